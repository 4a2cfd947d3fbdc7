"""
A provider that does as it is told, over real sockets, and keeps a ledger of what it billed.

It speaks OpenAI chat completions and Anthropic messages, plain and streaming, token counting and model lists::

    with Upstream() as upstream:
        upstream.play("slow", Script(chunks=20, delay=0.05))
        upstream.play("flaky", Script.refuse(529), Script())     # the first request, then every later one
        ...                                                      # ask for the model "slow" at upstream.url
        upstream.ledger["abc"]                                   # the bills of prompts that held "id=abc"
        upstream.books                                           # every bill, whole or cut, and what it comes to
        upstream.requests[-1].left_after                         # seconds until the client hung up, or None

A model without a script answers with ``upstream.default``; the name ``m-50-5`` means 50 chunks 5 ms apart.
``python -m tests.upstream --port 9100`` runs one by hand.
"""

from tests.upstream.scripts import ABSURD_USAGE, Bill, Entry, Script, Tariff
from tests.upstream.server import Received, Upstream

__all__ = ["ABSURD_USAGE", "Bill", "Entry", "Received", "Script", "Tariff", "Upstream"]
