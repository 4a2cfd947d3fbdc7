"""Client programs as long-lived processes: one line of JSON asked, one answered."""

import json
import os
import subprocess
import threading

from tests.conformance.matrix import PROGRAMS, SHARED, Cell, Client


class Worker:
    """The process of one client; a context manager."""

    def __init__(self, client: Client, url: str, key: str):
        command, variables = client.command
        self.client = client
        self.process = subprocess.Popen(
            command,
            env={name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
            | variables
            # No certificates: reading those of the machine would take longer than all that is asked.
            | {"PYTHONUTF8": "1", "SSL_CERT_DIR": str(PROGRAMS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.errors = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()
        self._tell({"url": url, "key": key} | SHARED)

    def ready(self):
        """The asks that it knows, once it has loaded all that it needs."""
        return self._hear()["ready"]

    def ask(self, cell: Cell):
        """What the client made of the answer to ``cell``."""
        fields = {"model": cell.model, "prompt": f"What is the weather in Málaga? id={cell.id}"}
        match cell.case:
            case "list":
                fields = {}
            case "unknown_model":
                fields["model"] = f"{cell.endpoint}-no-such-model"
        self._tell({"ask": cell.ask, "with": fields})
        return self._hear()

    def _tell(self, value):
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()

    def _hear(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(5)
            raise RuntimeError(f"The client {self.client.name} ended:\n{''.join(self.errors[-40:])}")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
