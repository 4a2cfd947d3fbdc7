"""docs/conformance.md: written from a run in which every cell was as it must be, and read again by a test."""

import json
import re

from tests.conformance.matrix import CLIENTS, UPSTREAMS, Cell
from tests.server import ROOT

PATH = ROOT / "docs/conformance.md"
WORKS, REFUSED = "✓", "refused"
HEAD = """\
# Conformance

Unchanged clients, with only their base URL and key set, against every kind of provider behind Comptoir. This page is
written by `python -m tests.conformance --write` from a run in which every cell held, and `tests/conformance` asks them
all again with every run of the tests: a cell that is not tested is not on it.

Each cell is one question to a running server over sockets. {works} says that the client was given what the provider
said: text, tool calls with their arguments, the stop reason in the client's own terms, and the usage that the provider
billed; that the provider was given what the client sent: pictures, tools, results, schemas; and that there is one
record of it, with these tokens, under the request id that the client was told. *{refused}* says that no provider of
that kind has such an endpoint: the client's own exception says so, and a record does. An empty cell is not asked.

| case | what is asked |
|---|---|
| `plain`, `stream` | a text, whole and in a stream |
| `tools`, `tools_stream` | two calls of a function at once, whole and in a stream: names, arguments, ids |
| `tool_result` | the turn after a call, with what came of it |
| `tool_loop`, `tool_loop_stream` | both of them, as a program runs through them by itself |
| `image` | a picture in the question |
| `structured` | an answer that follows a JSON schema |
| `reasoning` | an answer with thoughts before it, which are counted and stay out of the text |
| `refused` | a question that the provider refuses: its words in the client's own exception, with the request's id |
| `stored` | a response that is fetched again, deleted, and then gone |

Providers are played by a scripted one that has each one's wire: its paths, credential, fields, usage, order of chunks,
tool calls, thoughts and errors. `openai-compatible` is a server that refuses `stream_options` and tells no usage in a
stream, which is counted here then. LangChain adds up the usage that Gemini repeats in every chunk of a stream: what it
tells there is more than what was billed and recorded. `local` is no script: it is the language model of this machine.
"""


def write(cells, path=PATH):
    """Write the page of ``cells``, each of which holds."""
    path.write_text("\n".join(lines(cells)) + "\n")


def lines(cells):
    yield HEAD.format(works=WORKS, refused=REFUSED)
    yield "## Whoever the provider is\n"
    here = [cell for cell in cells if cell.is_here]
    cases = list(dict.fromkeys(cell.case for cell in here))
    yield from table("client", cases)
    for client in CLIENTS.values():
        for endpoint in dict.fromkeys(cell.endpoint for cell in here if cell.client == client.name):
            if endpoint == "models":
                continue
            row = {cell.case: cell for cell in here if cell.client == client.name and cell.endpoint == endpoint}
            row |= {cell.case: cell for cell in here if cell.client == client.name and cell.endpoint == "models"}
            yield line(f"{client.title}, {endpoint}", [mark(row.get(case)) for case in cases])
    yield ""
    for client in CLIENTS.values():
        yield f"## {client.title}: {client.package} {version_of(client)}\n"
        own = {(cell.upstream, cell.ask): cell for cell in cells if cell.client == client.name and not cell.is_here}
        asks = list(dict.fromkeys(ask for _, ask in own))
        for group in groups(asks):
            yield from table("provider", group)
            for upstream in UPSTREAMS:
                if any((upstream, ask) in own for ask in group):
                    yield line(upstream, [mark(own.get((upstream, ask))) for ask in group])
            yield ""


def groups(asks):
    """The columns of one table each: the endpoints that are asked most, and what is left."""
    wide = [[ask for ask in asks if ask.startswith(f"{endpoint}.")] for endpoint in ("chat", "messages")]
    rest = [ask for ask in asks if not ask.startswith(("chat.", "messages."))]
    return [group for group in (*wide, rest) if group]


def table(first, columns):
    return [line(first, [f"`{column}`" for column in columns]), line("---", [":-:" for _ in columns])]


def line(first, cells):
    return f"| {' | '.join([first, *cells])} |"


def mark(cell):
    if cell is None:
        return ""
    return REFUSED if cell.is_refused else WORKS


def marks_on(text):
    """What the page says of each cell, but of those that no provider has a part in: how many of these there are."""
    found, here, client, asks = {}, 0, None, []
    titles = {client.title: client.name for client in CLIENTS.values()}
    for row in text.splitlines():
        if row.startswith("## "):
            client, asks = titles.get(row.removeprefix("## ").partition(": ")[0]), []
        elif row.startswith("|"):
            first, *rest = [part.strip() for part in row.strip("|").split("|")]
            if first in ("provider", "client"):
                asks = [part.strip("`") for part in rest]
            elif first == "---" or not asks:
                continue
            elif client is None:
                here += rest.count(WORKS)
            else:
                found |= {Cell(client, ask, first): value for ask, value in zip(asks, rest, strict=True) if value}
    return found, here


def version_of(client):
    """The version of the client's package, as its lock has it."""
    if client.folder == "npm":
        packages = json.loads((ROOT / "sdk/npm.lock").read_bytes())["packages"]
        return packages[f"node_modules/{client.package}"]["version"]
    lock = ROOT / (f"sdk/{client.folder}.lock" if client.folder else "requirements-dev.lock")
    return re.search(rf"^{re.escape(client.package)}==(\S+)", lock.read_text(), re.MULTILINE)[1]
