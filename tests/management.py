"""
Management commands of one installation, without starting Python and Django for each: a process that has loaded them
forks for every command. A command finds what it would find in a process of its own, and leaves nothing behind in it.
"""

import contextlib
import gc
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Management:
    """The process that forks, started with these environment variables; it ends with whoever started it."""

    def __init__(self, environment):
        self.environment = dict(environment)
        self._one_at_a_time = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.management"],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments, environment, timeout):
        """The exit status, the standard output and the standard error of one command."""
        with self._one_at_a_time:
            self.process.stdin.write(json.dumps([arguments, environment]) + "\n")
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], timeout)[0]:
                self.close()
                raise TimeoutError(f"manage.py {' '.join(arguments)} took more than {timeout} s.")
            return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()


def serve():
    """Carry out a command for each line of standard input."""
    import django
    from django.core.checks import run_checks

    import manage

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    # Loads all that a command's own checks load.
    run_checks()
    # What is loaded is not looked through again in every fork, which would then have a copy of it all.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        arguments, environment = json.loads(line)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            if (pid := os.fork()) == 0:
                os.environ |= environment
                os.dup2(output.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                carry_out(lambda: manage.main(arguments))  # noqa: B023
            _, status = os.waitpid(pid, 0)
            answer = [os.waitstatus_to_exitcode(status), *map(read, (output, errors))]
        print(json.dumps(answer), flush=True)


def carry_out(command):
    """Run a command and end this process with its status at once: to take all apart takes longer than most of them."""
    status = 1
    try:
        status = command()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
    if isinstance(status, str):
        print(status, file=sys.stderr)
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)


def read(file):
    file.seek(0)
    return file.read().decode(errors="replace")


if __name__ == "__main__":
    serve()
