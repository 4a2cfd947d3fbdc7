"""Small real servers on loopback for tests of what goes out."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Recorder(ThreadingHTTPServer):
    """
    Answers by ``answers[path]`` and keeps every request in ``requests``, header names in lower case.

    ``accepted`` counts connections.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answers, tls=None):
        self.answers, self.requests, self.accepted = answers, [], 0
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def port(self):
        return self.server_address[1]

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    def get_request(self):
        accepted = super().get_request()
        self.accepted += 1
        return accepted

    def handle_error(self, request, client_address):
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet an answer

    def do_GET(self):
        self.server.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        answer = self.server.answers.get(self.path.partition("?")[0], (404, {}, b"{}"))
        if callable(answer):
            answer(self)
            return
        status, headers, body = answer
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(answers=None, tls=None):
    """A ``Recorder`` that runs while the block does."""
    server = Recorder(answers or {}, tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def model_list(*names, **fields):
    """An answer with a list of models, as both dialects have it."""
    return 200, {}, {"object": "list", "data": [{"id": name, "object": "model"} | fields for name in names]}
