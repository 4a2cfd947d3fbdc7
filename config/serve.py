"""One web process: uvicorn on the socket that ``config.up`` opened."""

import argparse
import asyncio
import os
import signal
import socket
import sys
import warnings

import uvicorn

DRAIN_SECONDS = 25
# So long a connection that is not in use is left open at the end, so that no request is lost that is on its way.
IDLE_SECONDS = 1.0
# What is cut off at the end has so long to say so and to be recorded.
FAREWELL_SECONDS = 2.0
# The preparation has said what is wrong.
NOT_PREPARED = 70


class Server(uvicorn.Server):
    """
    Ends without an error for anybody whose answer is whole within ``drain`` seconds.

    Others accept from the same socket meanwhile. Whoever asks on a connection that is open is answered, and told to
    make another one; what takes longer is cut off by cancelling its task.
    """

    def __init__(self, config, *, drain, ready=None):
        super().__init__(config)
        self.drain = drain
        self.ready = ready

    async def startup(self, sockets=None):
        await super().startup(sockets)
        if self.ready is not None:
            os.write(self.ready, b"\0")
            os.close(self.ready)

    async def shutdown(self, sockets=None):
        for server in self.servers:
            server.close()
        await self._finish()
        await super().shutdown(sockets)

    async def _finish(self):
        from gateway import runtime

        loop, state = asyncio.get_running_loop(), self.server_state
        state.default_headers = [*state.default_headers, (b"connection", b"close")]
        idle = []
        for connection in state.connections:
            connection.timeout_keep_alive = IDLE_SECONDS
            if connection.cycle is None or connection.cycle.response_complete:
                idle.append(connection)
        loop.call_later(IDLE_SECONDS, lambda: [connection.shutdown() for connection in idle])
        await self._until_quiet(self.drain)
        if serving := runtime.current():
            serving.cut_off()
        for task in state.tasks:
            task.cancel()
        await self._until_quiet(FAREWELL_SECONDS)

    async def _until_quiet(self, seconds):
        """Wait until no connection is open and no answer under way."""
        until = asyncio.get_running_loop().time() + seconds
        while (self.server_state.connections or self.server_state.tasks) and not self.force_exit:
            if asyncio.get_running_loop().time() >= until:
                break
            await asyncio.sleep(0.02)


def main():
    parser = argparse.ArgumentParser(prog="config.serve")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--prepare", action="store_true", help="first bring database and static files up to date")
    parser.add_argument("--drain", type=int, default=DRAIN_SECONDS, help="how long answers may take at the end")
    parser.add_argument("--ready", type=int, help="where to say that it answers")
    options = parser.parse_args()

    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    import gateway.asgi  # noqa: F401

    if options.prepare and (status := prepare()):
        sys.exit(status)
    # Only now: it lists the static files, which the preparation may have written.
    from config.asgi import application

    config = uvicorn.Config(
        application,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(os.environ.get("FORWARDED_ALLOW_IPS")),
        backlog=2048,
        timeout_keep_alive=75,
        # What is left by then has been cut off before.
        timeout_graceful_shutdown=1,
    )
    server = Server(config, drain=options.drain, ready=options.ready)
    signal.signal(signal.SIGHUP, server.handle_exit)
    server.run(sockets=[socket.socket(fileno=options.fd)])


def prepare():
    """
    Run ``manage.py prepare`` in a fork; its exit status.

    The fork spares it the imports, which take longer than all that it usually does, and this process the memory that
    a migration leaves behind. Nothing runs here yet but the thread that waits for the parent's end.
    """
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    child = os.fork()
    if child:
        return NOT_PREPARED if os.waitpid(child, 0)[1] else 0
    status = 1
    try:
        from django.core.management import CommandError, call_command

        try:
            call_command("prepare", verbosity=0)
            status = 0
        except CommandError as error:
            print(f"Comptoir cannot start: {error}", file=sys.stderr, flush=True)
    finally:
        if status and sys.exc_info()[0]:
            sys.excepthook(*sys.exc_info())
        os._exit(status)


if __name__ == "__main__":
    main()
