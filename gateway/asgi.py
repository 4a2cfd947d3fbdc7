"""The gateway as a plain ASGI application: no Django request, middleware, session or ORM between bytes in and out."""

import asyncio
import contextlib
import hmac

import msgspec
import structlog
from django.conf import settings
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway import endpoints, errors, metrics
from gateway import runtime as runtimes
from gateway.errors import GatewayError
from gateway.http import JSON_HEADERS, Http
from gateway.snapshot import CURRENT_SECONDS, USABLE_SECONDS
from providers.request_body import InvalidRequest

log = structlog.get_logger(__name__)

FAREWELL_SECONDS = 1.0


async def gateway(scope, receive, send):
    """Answer API requests and hold the process's lifespan."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if scope["type"] != "http":
        # There are no WebSockets here.
        await send({"type": "websocket.close", "code": 1000})
        return
    http = Http(scope, receive, send)
    runtime = runtimes.current()
    if http.path in MACHINE:
        await MACHINE[http.path](http, runtime)
        return
    try:
        await endpoints.find(http)(http, runtime)
    except GatewayError as error:
        await _refuse(http, error)
    except InvalidRequest as error:
        await _refuse(http, errors.invalid(error))
    except asyncio.CancelledError:
        # The process ends, and this has taken longer than it waits; nor does it wait for who does not read this.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await _refuse(http, errors.stopping())
    except Exception:
        # The one edge of this process: whatever was not foreseen is logged with its id and told without detail.
        log.exception("call failed", request_id=http.request_id, path=http.path)
        await http.fail(errors.internal())


async def _refuse(http, error):
    if http.caller is None:
        metrics.REFUSALS.labels(error.code).inc()
    log.info("call refused", request_id=http.request_id, path=http.path, status=error.status, code=error.code)
    await http.fail(error)


async def _live(receive, send):
    """Start with the process and stop with it."""
    runtime = None
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                runtime = runtimes.Runtime()
                await runtime.start()
            except OSError as error:
                await send({"type": "lifespan.startup.failed", "message": f"The journal cannot be written: {error}."})
                return
            await send({"type": "lifespan.startup.complete"})
        else:
            await runtime.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return


# For machines ----------------------------------------------------------------------------------------------------


async def healthz(http, runtime):
    """Whether the process runs."""
    await http.json({"status": "ok"})


async def readyz(http, runtime):
    """
    Whether calls can be answered; ``degraded`` where known keys still work although the database does not answer.
    """
    age = runtime.keeper.age if runtime else float("inf")
    failing = runtime is not None and runtime.drainer.failing_since is not None
    state = "ok" if age <= CURRENT_SECONDS * 5 and not failing else "degraded" if age <= USABLE_SECONDS else "not ready"
    await http.send(503 if state == "not ready" else 200, JSON_HEADERS, msgspec.json.encode({"status": state}))


async def prometheus(http, runtime):
    """What Prometheus scrapes; with ``COMPTOIR_METRICS_TOKEN`` set, for its bearer alone."""
    token = settings.METRICS_TOKEN
    given = http.header(b"authorization") or b""
    if token is None or (token and not hmac.compare_digest(given, b"Bearer " + token.encode())):
        await http.fail(errors.unknown_path(http.method, http.path))
        return
    if runtime is not None:
        metrics.look_at(runtime)
    await http.send(200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], generate_latest())


MACHINE = {"/healthz": healthz, "/readyz": readyz, "/metrics": prometheus}
