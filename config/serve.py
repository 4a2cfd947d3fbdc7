"""
One web process: uvicorn on the socket that ``config.up`` opened.

It imports all it needs at once and, where it is told to, waits for the supervisor's word before it serves: so the
imports and the preparation of the database take place side by side.
"""

import argparse
import os
import socket

GRACEFUL_SECONDS = 25


def main():
    parser = argparse.ArgumentParser(prog="config.serve")
    parser.add_argument("--fd", type=int, required=True, help="the listening socket")
    parser.add_argument("--go", type=int, help="a pipe: serve when a byte arrives, leave when it ends")
    options = parser.parse_args()

    import django
    import uvicorn

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    import gateway.asgi  # noqa: F401

    if options.go is not None and not os.read(options.go, 1):
        return
    # Only now: it lists the static files, which the preparation may have written.
    from config.asgi import application

    behind_proxy = os.environ.get("FORWARDED_ALLOW_IPS")
    config = uvicorn.Config(
        application,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(behind_proxy),
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=options.fd)])


if __name__ == "__main__":
    main()
