"""What alerts are sent to, over real sockets: a program that checks signatures, and a mail server."""

import email
import email.policy
import socketserver
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Keeps every call as ``(path, headers, body)``; answers with ``status`` after ``answer`` has been called."""

    def __init__(self):
        self.calls = []
        self.status = 200
        self.headers = {}

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def http_receiver():
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.calls.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(receiver.status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with _serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as receiver.server:
        yield receiver


class MailServer:
    """Keeps every message that it takes; refuses those to ``refuses``, and all where ``is_busy``."""

    def __init__(self):
        self.messages = []
        self.refuses = set()
        self.is_busy = False

    @property
    def options(self):
        return {"host": "127.0.0.1", "port": self.server.server_address[1], "timeout": 5}


@contextmanager
def mail_server():
    mails = MailServer()

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line):
            self.wfile.write(line.encode() + b"\r\n")

        def handle(self):
            self.say("421 busy" if mails.is_busy else "220 mail.test")
            if mails.is_busy:
                return
            recipients = []
            while line := self.rfile.readline().decode().strip():
                command = line.split()[0].upper().split(":")[0]
                if command == "EHLO":
                    self.say("250 mail.test")
                elif command == "RCPT" and any(address in line for address in mails.refuses):
                    self.say("550 nobody of that name")
                elif command == "RCPT":
                    recipients.append(line.partition("<")[2].rstrip(">"))
                    self.say("250 ok")
                elif command == "DATA":
                    self.say("354 go on")
                    data = b""
                    while (part := self.rfile.readline()) != b".\r\n":
                        data += part.removeprefix(b".")
                    message = email.message_from_bytes(data, policy=email.policy.default)
                    mails.messages.append((recipients, message))
                    recipients = []
                    self.say("250 ok")
                elif command == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = allow_reuse_address = True

    with _serving(Server(("127.0.0.1", 0), Handler)) as mails.server:
        yield mails


@contextmanager
def _serving(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
