"""Programs that ask what the playground asks: curl, Python and Node, in OpenAI's dialect and in Anthropic's."""

import json
import re
import shlex
import unicodedata
from dataclasses import dataclass, field

from django.utils.html import escape
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _

KEY_VARIABLE = "COMPTOIR_API_KEY"
ANTHROPIC_VERSION = "2023-06-01"
DIALECTS = {"openai": "OpenAI", "anthropic": "Anthropic"}
LANGUAGES = {"curl": "curl", "python": "Python", "node": "Node"}
DEFAULT_MAX_TOKENS = 1024
# The newest clients of Anthropic know these no more and send a version in which they are refused.
ANTHROPIC_SAMPLING = ("temperature", "top_p", "top_k")
ANTHROPIC_LACKS = ("seed", "frequency_penalty", "presence_penalty")


@dataclass(frozen=True)
class Snippet:
    """One program: its text as it is copied, and the same with its parts marked for the eye."""

    dialect: str
    language: str
    text: str
    html: str = field(repr=False)

    @property
    def label(self):
        return LANGUAGES[self.language]


def snippet(dialect, language, request, base_url, stream=True):
    """
    The program that sends ``request`` (in OpenAI's shape) to the server at ``base_url``.

    The key is read from ``COMPTOIR_API_KEY`` and never stands in it. A parameter that the dialect lacks is left out
    and a comment says so.
    """
    body, left_out = (_openai_body, _anthropic_body)[dialect == "anthropic"](request)
    mark = "//" if language == "node" else "#"
    note = _("%(name)s has no counterpart in this dialect and is left out.")
    notes = [f"{mark} {note % {'name': name}}" for name in left_out]
    write = {"curl": _curl, "python": _python, "node": _node}[language]
    text = "\n".join([*notes, write(dialect, body, base_url.rstrip("/"), stream)]) + "\n"
    return Snippet(dialect, language, text, highlight(text, language))


def all_snippets(request, base_url):
    """Every program for ``request``: the dialects by name, each with its languages."""
    return {dialect: [snippet(dialect, language, request, base_url) for language in LANGUAGES] for dialect in DIALECTS}


def _openai_body(request):
    return dict(request), []


def _anthropic_body(request):
    messages = [message for message in request["messages"] if message["role"] != "system"]
    system = "\n\n".join(message["content"] for message in request["messages"] if message["role"] == "system")
    body = {"model": request["model"], "max_tokens": request.get("max_tokens", DEFAULT_MAX_TOKENS)}
    if system:
        body["system"] = system
    body["messages"] = messages
    for name in ANTHROPIC_SAMPLING:
        if name in request:
            body[name] = min(request[name], 1) if name == "temperature" else request[name]
    if "stop" in request:
        body["stop_sequences"] = request["stop"]
    return body, [name for name in ANTHROPIC_LACKS if name in request]


# curl ------------------------------------------------------------------------------------------------------------


def _curl(dialect, body, base_url, stream):
    if stream:
        body = body | {"stream": True}
    address = base_url + ("/v1/messages" if dialect == "anthropic" else "/v1/chat/completions")
    lines = [f"curl{' -N' if stream else ''} {shlex.quote(address)}"]
    if dialect == "anthropic":
        lines += [f'-H "x-api-key: ${KEY_VARIABLE}"', f'-H "anthropic-version: {ANTHROPIC_VERSION}"']
    else:
        lines += [f'-H "Authorization: Bearer ${KEY_VARIABLE}"']
    lines += ['-H "Content-Type: application/json"', f"-d {_shell_quote(_json(body))}"]
    return " \\\n  ".join(lines)


def _shell_quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def _json(body):
    lines = [
        f"    {_json_string(name)}: {_literal(value, 4, 2, key=_json_string, string=_json_string)}"
        for name, value in body.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n  }"


def _json_string(text):
    return _escape_unseen(json.dumps(text, ensure_ascii=False))


# Python ----------------------------------------------------------------------------------------------------------


def _python(dialect, body, base_url, stream):
    if dialect == "anthropic":
        return _python_anthropic(body, base_url, stream)
    extra = {name: body[name] for name in ("top_k",) if name in body}
    arguments = _python_arguments({name: value for name, value in body.items() if name not in extra}, extra_body=extra)
    head = [
        "import os",
        "",
        "from openai import OpenAI",
        "",
        "client = OpenAI(",
        f"    base_url={_python_value(base_url + '/v1')},",
        f'    api_key=os.environ["{KEY_VARIABLE}"],',
        ")",
        "",
    ]
    if not stream:
        return "\n".join(
            [
                *head,
                "answer = client.chat.completions.create(",
                *arguments,
                ")",
                "print(answer.choices[0].message.content)",
            ]
        )
    return "\n".join([
        *head,
        "stream = client.chat.completions.create(",
        *arguments,
        "    stream=True,",
        ")",
        "for chunk in stream:",
        "    if chunk.choices and chunk.choices[0].delta.content:",
        '        print(chunk.choices[0].delta.content, end="", flush=True)',
        "print()",
    ])  # fmt: skip


def _python_anthropic(body, base_url, stream):
    sampling = {name: body[name] for name in ANTHROPIC_SAMPLING if name in body}
    rest = {name: value for name, value in body.items() if name not in sampling}
    headers = {"anthropic-version": ANTHROPIC_VERSION} if sampling else {}
    arguments = _python_arguments(rest, extra_body=sampling, extra_headers=headers)
    head = [
        "import os",
        "",
        "from anthropic import Anthropic",
        "",
        "client = Anthropic(",
        f"    base_url={_python_value(base_url)},",
        f'    api_key=os.environ["{KEY_VARIABLE}"],',
        ")",
        "",
    ]
    if not stream:
        return "\n".join([*head, "answer = client.messages.create(", *arguments, ")", "print(answer.content[0].text)"])
    return "\n".join([
        *head,
        "with client.messages.stream(",
        *arguments,
        ") as stream:",
        "    for text in stream.text_stream:",
        '        print(text, end="", flush=True)',
        "print()",
    ])  # fmt: skip


def _python_arguments(named, **extra):
    lines = [f"    {name}={_python_value(value, 4)}," for name, value in named.items()]
    return lines + [f"    {name}={_python_value(value, 4)}," for name, value in extra.items() if value]


def _python_value(value, indent=0):
    return _literal(value, indent, 4, key=_python_string, string=_python_string, end=",")


def _python_string(text):
    # JSON writes a sign beyond the basic plane as it is; only what cannot be seen is escaped, in Python's way.
    return _escape_unseen(json.dumps(text, ensure_ascii=False), wide="\\U{:08x}")


# Node ------------------------------------------------------------------------------------------------------------


def _node(dialect, body, base_url, stream):
    if dialect == "anthropic":
        return _node_anthropic(body, base_url, stream)
    arguments = _node_arguments(body)
    head = [
        'import OpenAI from "openai";',
        "",
        "const client = new OpenAI({",
        f"  baseURL: {_json_string(base_url + '/v1')},",
        f"  apiKey: process.env.{KEY_VARIABLE},",
        "});",
        "",
    ]
    if not stream:
        return "\n".join([
            *head,
            "const answer = await client.chat.completions.create({",
            *arguments,
            "});",
            "console.log(answer.choices[0].message.content);",
        ])  # fmt: skip
    return "\n".join([
        *head,
        "const stream = await client.chat.completions.create({",
        *arguments,
        "  stream: true,",
        "});",
        "for await (const chunk of stream) {",
        '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");',
        "}",
    ])  # fmt: skip


def _node_anthropic(body, base_url, stream):
    sampling = any(name in body for name in ANTHROPIC_SAMPLING)
    end = f'}}, {{ headers: {{ "anthropic-version": "{ANTHROPIC_VERSION}" }} }});' if sampling else "});"
    head = [
        'import Anthropic from "@anthropic-ai/sdk";',
        "",
        "const client = new Anthropic({",
        f"  baseURL: {_json_string(base_url)},",
        f"  apiKey: process.env.{KEY_VARIABLE},",
        "});",
        "",
    ]
    arguments = _node_arguments(body)
    if not stream:
        return "\n".join(
            [
                *head,
                "const answer = await client.messages.create({",
                *arguments,
                end,
                "console.log(answer.content[0].text);",
            ]
        )
    return "\n".join([
        *head,
        "const stream = client.messages.stream({",
        *arguments,
        end,
        'stream.on("text", (text) => process.stdout.write(text));',
        "await stream.finalMessage();",
    ])  # fmt: skip


def _node_arguments(named):
    return [
        f"  {name}: {_literal(value, 2, 2, key=str, string=_json_string, end=',')}," for name, value in named.items()
    ]


# Both ------------------------------------------------------------------------------------------------------------


def _literal(value, indent, step, *, key, string, end=""):
    """A list of messages over several lines, everything else on one; ``end`` is what may follow the last of them."""
    if isinstance(value, str):
        return string(value)
    if isinstance(value, dict):
        items = [f"{key(name)}: {_literal(item, indent, step, key=key, string=string)}" for name, item in value.items()]
        return f"{{ {', '.join(items)} }}" if key is str else f"{{{', '.join(items)}}}"
    if isinstance(value, list):
        items = [_literal(item, indent, step, key=key, string=string) for item in value]
        if not value or not isinstance(value[0], dict):
            return f"[{', '.join(items)}]"
        pad, inner = " " * indent, " " * (indent + step)
        return "[\n" + ",\n".join(inner + item for item in items) + f"{end}\n{pad}]"
    return json.dumps(value)


def _escape_unseen(text, wide=None):
    """Escape what cannot be seen, such as marks that turn the direction of writing: code reads as it runs."""
    return "".join(_escaped(sign, wide) if _is_unseen(sign) else sign for sign in text)


def _is_unseen(sign):
    return sign != "\n" and unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def _escaped(sign, wide):
    code = ord(sign)
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    if wide:
        return wide.format(code)
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


# For the eye -----------------------------------------------------------------------------------------------------

_STRING = r'"(?:\\.|[^"\\])*"'
_WORDS = {
    "python": r"\b(?:from|import|with|as|for|in|if|and)\b",
    "node": r"\b(?:import|from|const|new|await|for|of)\b",
    "curl": r"(?:(?<=^)curl|(?<=\s)-[NHd](?=\s))",
}
_COMMENTS = {"python": r"(?m:^\#[^\n]*)", "node": r"(?m:^//[^\n]*)", "curl": r"(?m:^\#[^\n]*)"}
_PARTS = {
    language: re.compile(
        f"(?P<i>{_COMMENTS[language]})|(?P<q>{_STRING})|(?P<b>{words})", re.DOTALL | re.MULTILINE
    )
    for language, words in _WORDS.items()
}  # fmt: skip


def highlight(text, language):
    """``text`` as HTML: ``<b>`` a word of the language, ``<q>`` a string, ``<i>`` a comment; all else escaped."""
    pieces, end = [], 0
    for found in _PARTS[language].finditer(text):
        pieces.append(("", text[end : found.start()]))
        pieces.append((found.lastgroup, found.group()))
        end = found.end()
    pieces.append(("", text[end:]))
    return mark_safe("".join(_marked(tag, piece) for tag, piece in pieces))  # noqa: S308 - every piece is escaped


def _marked(tag, piece):
    return f"<{tag}>{escape(piece)}</{tag}>" if tag else escape(piece)
