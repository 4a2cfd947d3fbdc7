"""Structured logs: one JSON object a line, or readable lines on a terminal, each with its request id."""

import logging.config
import sys
from uuid import uuid4

import structlog
from django.core.exceptions import ImproperlyConfigured
from django.utils.decorators import sync_and_async_middleware

LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR"}


def logging_config(level, form):
    """Configure structlog and the standard library alike; ``form`` is ``json``, ``text`` or empty to decide."""
    if level not in LEVELS or form not in {"", "json", "text"}:
        raise ImproperlyConfigured(
            "COMPTOIR_LOG_LEVEL is DEBUG, INFO, WARNING or ERROR; COMPTOIR_LOG_FORMAT is json or text."
        )
    readable = form == "text" or (not form and sys.stderr.isatty())
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer = structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level)),
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "structured": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": shared,
                    "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                "uvicorn": {"level": "WARNING"},
                "uvicorn.access": {"level": "WARNING"},
                "asyncio": {"level": "WARNING"},
                "httpx": {"level": "WARNING"},
                "httpcore": {"level": "WARNING"},
                "django.request": {"level": "ERROR"},
            },
        }
    )


@sync_and_async_middleware
def RequestIdMiddleware(get_response):
    """Give each page request an id, bind it to the log and answer with it as ``x-request-id``."""
    from asgiref.sync import iscoroutinefunction

    def begin():
        request_id = f"page_{uuid4().hex}"
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        return request_id

    if iscoroutinefunction(get_response):

        async def middleware(request):
            request.id = begin()
            response = await get_response(request)
            response["x-request-id"] = request.id
            return response
    else:

        def middleware(request):
            request.id = begin()
            response = get_response(request)
            response["x-request-id"] = request.id
            return response

    return middleware
