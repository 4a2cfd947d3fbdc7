"""The generated programs do what they say, against the real server."""

import shutil
import subprocess
import sys

import pytest

from playground.snippets import snippet
from tests.upstream import Script

WORDS = 'It\'s "quoted", costs $5 and\nends ünïcödé 🎈'
REQUEST = {
    "model": "claude-test",
    "messages": [{"role": "system", "content": WORDS}, {"role": "user", "content": WORDS}],
    "max_tokens": 200,
    "temperature": 0.5,
    "stop": ["###"],
}


def run(server, code, *command):
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "COMPTOIR_API_KEY": server.api_key, "PYTHONUTF8": "1"}
    done = subprocess.run([*command, code], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.sdk
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("stream", [True, False])
def test_the_python_program_runs(server, upstream, dialect, stream):
    upstream.play("claude-test", Script(text=("Hello ", "there.")))
    said = run(server, snippet(dialect, "python", REQUEST, server.base_url, stream).text, sys.executable, "-c")
    assert said == "Hello there.\n"
    asked = upstream.requests[-1].json
    assert (asked["system"], asked["messages"]) == (WORDS, [{"role": "user", "content": WORDS}])
    assert (asked["max_tokens"], asked["temperature"], asked["stop_sequences"]) == (200, 0.5, ["###"])


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not here")
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_the_curl_call_runs(server, upstream, dialect):
    upstream.play("claude-test", Script(text=("Hello ", "there.")))
    said = run(server, snippet(dialect, "curl", REQUEST, server.base_url).text, "sh", "-c")
    assert "Hello " in said
    assert upstream.requests[-1].json["messages"] == [{"role": "user", "content": WORDS}]
