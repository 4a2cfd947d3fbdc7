"""A limit that refuses, over the real server without a worker: told by mail and to a webhook that checks signatures."""

import contextlib
import hashlib
import hmac
import json
import sqlite3
import time

import httpx

from tests.server import Server
from tests.usage.receivers import http_receiver, mail_server

SET_UP = """
from console.models import Organization
from usage.spend_limits import set_spend_limit
from usage.webhooks import create_webhook
default = Organization.objects.get()
set_spend_limit(
    organization=default, scope="organization", scope_id=default.pk, period="month", amount_nanos=400_000
)
print(create_webhook(organization=default, url="URL", actor=None)[1])
"""


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_who_manages_is_told_that_a_limit_refuses(upstream, tmp_path):
    with http_receiver() as receiver, mail_server() as mails:
        environment = {
            "EMAIL_URL": f"smtp://127.0.0.1:{mails.options['port']}",
            "COMPTOIR_ALLOWED_PRIVATE_ORIGINS": receiver.url,
        }
        with Server(tmp_path, environment=environment) as server:
            key = server.create_api_key()
            server.add_provider(upstream.url, "gpt-test")
            secret = server.manage("shell", "--verbosity", "0", "-c", SET_UP.replace("URL", f"{receiver.url}/hook"))
            body = {"model": "gpt-test", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]}
            url, headers = f"{server.base_url}/v1/chat/completions", {"authorization": f"Bearer {key}"}
            until(lambda: httpx.post(url, headers=headers, json=body, timeout=20).status_code == 429)
            until(lambda: server.query("SELECT id FROM usage_limitalert WHERE threshold = ?", 100))
            # As if half a minute had passed since somebody looked.
            with contextlib.closing(sqlite3.connect(server.sqlite_path, timeout=10)) as database, database:
                database.execute("DELETE FROM usage_sweep")
            until(lambda: receiver.calls and mails.messages)

    path, headers, body = receiver.calls[0]
    signed = headers["comptoir-timestamp"].encode() + b"." + body
    assert path == "/hook"
    assert headers["comptoir-signature"] == "v1=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    message = json.loads(body)
    assert (message["type"], message["data"]["amount"]) == ("spend_limit.refusing", "0.000400000")
    recipients, mail = mails.messages[0]
    assert recipients == ["owner@example.org"]
    # How much was spent before every process knew the limit is not known.
    said = {"too_little_left": "was refused a request", "all_spent": "has used up"}
    assert said[message["data"]["because"]] in mail["subject"]
