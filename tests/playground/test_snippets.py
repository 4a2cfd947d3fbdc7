import ast
import json
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from playground.snippets import DIALECTS, LANGUAGES, all_snippets, snippet

BASE = "https://ai.example.org"
NASTY = [
    "plain",
    "it's \"quoted\" with `ticks`",
    "line one\nline two\r\n\ttabbed",
    "$HOME $(touch /tmp/never) ${IFS} `id` !! \\ \\n \\u0041 %s {x} #no //no",
    "'; rm -rf / #",
    "'\\''",
    '"""triple""" \'\'\'triple\'\'\'',
    "ünïcödé 你好 🎈 👩‍👧 e\u0301",
    "turned \u202e around \u2066 and \u2028 parted \ufeff \x00\x7f\x85",
    "</code></pre><script>alert(1)</script>",
    "trailing backslash \\",
    "",
]  # fmt: skip
REQUEST = {
    "model": "claude-sonnet",
    "messages": [
        {"role": "system", "content": "Plain words."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello. What is it?"},
        {"role": "user", "content": "Again"},
    ],
    "max_tokens": 1024,
    "temperature": 0.7,
    "top_p": 0.9,
    "stop": ["###", "\n"],
}
EVERY = [(dialect, language) for dialect in DIALECTS for language in LANGUAGES]


def asking(text):
    return REQUEST | {"messages": [{"role": "system", "content": text}, {"role": "user", "content": text}]}


def curl_parts(text):
    """The words that a shell would give to curl."""
    return shlex.split("\n".join(line for line in text.splitlines() if not line.startswith("#")), posix=True)


def curl_body(text):
    words = curl_parts(text)
    return json.loads(words[words.index("-d") + 1])


def python_call(text):
    """The keyword arguments of the call that carries the request."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and any(keyword.arg == "messages" for keyword in node.keywords):
            return {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    raise AssertionError(text)


class Text(HTMLParser):
    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.text, self.tags = "", set()
        self.feed(html)
        self.close()

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attrs):
        self.tags.add((tag, tuple(attrs)))


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("stream", [True, False])
def test_curl_sends_the_very_text(text, stream):
    sent = curl_body(snippet("openai", "curl", asking(text), BASE, stream).text)
    assert sent["messages"] == asking(text)["messages"]
    sent = curl_body(snippet("anthropic", "curl", asking(text), BASE, stream).text)
    assert sent["messages"] == [{"role": "user", "content": text}]
    assert sent.get("system", "") == text
    assert sent.get("stream", False) is stream


@pytest.mark.parametrize("text", NASTY)
def test_a_real_shell_gives_curl_the_very_text(text, tmp_path):
    code = snippet("openai", "curl", asking(text), BASE).text
    fake = tmp_path / "curl"
    fake.write_text('#!/bin/sh\nfor word do printf "%s\\0" "$word"; done\n')
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", code], env={"PATH": f"{tmp_path}:/usr/bin:/bin", "COMPTOIR_API_KEY": "sk-1"}, capture_output=True
    )
    words = done.stdout.decode().split("\0")
    assert json.loads(words[words.index("-d") + 1])["messages"] == asking(text)["messages"]
    assert "Authorization: Bearer sk-1" in words
    assert f"{BASE}/v1/chat/completions" in words


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("stream", [True, False])
def test_python_compiles_and_says_the_very_text(text, stream):
    openai = snippet("openai", "python", asking(text), BASE, stream).text
    compile(openai, "ask.py", "exec")
    assert python_call(openai)["messages"] == asking(text)["messages"]
    anthropic = snippet("anthropic", "python", asking(text), BASE, stream).text
    compile(anthropic, "ask.py", "exec")
    assert python_call(anthropic)["messages"] == [{"role": "user", "content": text}]
    assert python_call(anthropic).get("system", "") == text


needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not here")


@needs_node
def test_node_says_the_very_text(tmp_path):
    script = tmp_path / "all.mjs"
    asked = []
    for text in NASTY:
        for dialect in DIALECTS:
            code = snippet(dialect, "node", asking(text), BASE).text
            body = re.search(r"^const stream = .*?\((\{\n.*?^\})", code, re.DOTALL | re.MULTILINE)[1]
            asked.append(f"console.log(JSON.stringify({body}));")
    script.write_text("\n".join(asked))
    done = subprocess.run(["node", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line)["messages"][-1]["content"] for line in done.stdout.rstrip("\n").split("\n")]
    assert said == [text for text in NASTY for _ in DIALECTS]


@needs_node
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [True, False])
def test_node_parses_the_whole_program(dialect, stream, tmp_path):
    program = tmp_path / "ask.mjs"
    program.write_text(snippet(dialect, "node", asking(NASTY[2]), BASE, stream).text)
    done = subprocess.run(["node", "--check", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("dialect", "language"), EVERY)
def test_the_highlighted_code_is_the_same_text(dialect, language):
    for text in NASTY:
        code = snippet(dialect, language, asking(text), BASE)
        seen = Text(code.html)
        assert seen.text == code.text.replace("\r\n", "\n")
        assert seen.tags <= {("b", ()), ("q", ()), ("i", ())}


@pytest.mark.parametrize(("dialect", "language"), EVERY)
def test_nothing_unseen_stands_in_the_code(dialect, language):
    code = snippet(dialect, language, asking("a\u202eb\u2028c\x00d"), BASE).text
    assert not {"\u202e", "\u2028", "\x00"} & set(code)


@pytest.mark.parametrize(("dialect", "language"), EVERY)
def test_the_key_is_read_from_the_environment(dialect, language):
    code = snippet(dialect, language, REQUEST, BASE).text
    assert "COMPTOIR_API_KEY" in code
    assert "sk-comptoir" not in code


def test_a_hostile_model_name_stays_a_string():
    name = "m\"'; import os #\n$(id)"
    for dialect, language in EVERY:
        code = snippet(dialect, language, REQUEST | {"model": name}, BASE).text
        if language == "python":
            assert python_call(code)["model"] == name
        if language == "curl":
            assert curl_body(code)["model"] == name


def test_each_dialect_has_its_own_words_and_address():
    programs = {
        name: {program.language: program.text for program in row}
        for name, row in all_snippets(REQUEST, BASE + "/").items()
    }
    assert f"{BASE}/v1/chat/completions" in programs["openai"]["curl"]
    assert f"{BASE}/v1/messages" in programs["anthropic"]["curl"]
    assert f'base_url="{BASE}/v1"' in programs["openai"]["python"]
    assert f'base_url="{BASE}"' in programs["anthropic"]["python"]
    assert f'baseURL: "{BASE}/v1"' in programs["openai"]["node"]
    body = curl_body(programs["anthropic"]["curl"])
    assert body["system"] == "Plain words."
    assert body["stop_sequences"] == ["###", "\n"]
    assert "stop" not in body
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]


def test_what_the_newest_anthropic_client_does_not_know_is_sent_beside_it():
    call = python_call(snippet("anthropic", "python", REQUEST, BASE).text)
    assert call["extra_body"] == {"temperature": 0.7, "top_p": 0.9}
    assert call["extra_headers"] == {"anthropic-version": "2023-06-01"}
    assert "temperature" not in call


def test_without_sampling_nothing_is_sent_beside():
    bare = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert set(python_call(snippet("anthropic", "python", bare, BASE).text)) == {"model", "max_tokens", "messages"}
    assert set(python_call(snippet("openai", "python", bare, BASE, stream=False).text)) == {"model", "messages"}


def test_what_a_dialect_lacks_is_left_out_and_said():
    request = REQUEST | {"seed": 7, "presence_penalty": 0.5, "temperature": 1.5}
    for language in LANGUAGES:
        code = snippet("anthropic", language, request, BASE).text
        assert "seed has no counterpart" in code
    body = curl_body(snippet("anthropic", "curl", request, BASE).text)
    assert "seed" not in body
    assert body["temperature"] == 1


def test_top_k_goes_beside_what_the_openai_client_knows():
    call = python_call(snippet("openai", "python", REQUEST | {"top_k": 40}, BASE).text)
    assert call["extra_body"] == {"top_k": 40}
