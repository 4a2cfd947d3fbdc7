"""One web process: uvicorn on the socket that ``config.up`` opened."""

import argparse
import os
import socket
import sys
import warnings

GRACEFUL_SECONDS = 25
# The preparation has said what is wrong.
NOT_PREPARED = 70


def main():
    parser = argparse.ArgumentParser(prog="config.serve")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--prepare", action="store_true", help="first bring database and static files up to date")
    options = parser.parse_args()

    import django
    import uvicorn

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
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=options.fd)])


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
