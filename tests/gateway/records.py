"""Halves of request records for the tests of journal, drainer and rows."""

import time

from usage.records import Closed, Opened
from usage.ulid import new_ulid, request_id


def opened(workspace=None, *, ulid=None, **fields):
    """The ULID and first half of a request of ``workspace``, or of nobody in particular."""
    ulid = ulid or new_ulid()
    known = {
        "id": request_id(ulid),
        "started_us": time.time_ns() // 1000,
        "organization_id": workspace.organization_id if workspace else 1,
        "workspace_id": workspace.pk if workspace else 1,
        "api_key_id": None,
        "user_id": None,
        "source": "api",
        "endpoint": "chat_completions",
        "dialect": "openai",
        "stream": True,
        "requested_model": "m",
        "input_estimate": 40,
        "held_nanos": 10**15,
    }
    return ulid, Opened(**known | fields)


def closed(**fields):
    """A second half: completed and reported."""
    known = {
        "outcome": "completed",
        "status": 200,
        "duration_ms": 10,
        "usage_source": "reported",
        "input_tokens": 12,
        "output_tokens": 8,
        "cost_nanos": 156_000,
        "attempts": 1,
    }
    return Closed(**known | fields)
