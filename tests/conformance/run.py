"""One server, one upstream that plays every provider, every client beside each other: asks cells and gathers rows."""

import contextlib
import json
import os
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from tests.conformance.matrix import ANY, CLIENTS, LOCAL, UPSTREAMS, Seen, question
from tests.conformance.workers import Worker
from tests.server import Server
from tests.upstream import Upstream
from tests.upstream.bedrock import BedrockUpstream
from tests.upstream.providers import credential_of
from tests.upstream.vertex import VertexUpstream

ENDPOINTS = {"chat_completions": "chat", "messages": "messages"}
AT_ONCE = 3  # clients that ask beside each other


def run(cells, folder):
    """What became of each of ``cells``, by cell."""
    wants_local = any(cell.upstream == LOCAL for cell in cells)
    with Upstreams() as upstreams, started(Server(folder, local_model=wants_local)) as server:
        secrets = prepare(server, upstreams, cells)
        by_client = defaultdict(list)
        for cell in cells:
            by_client[cell.client].append(cell)
        seen = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for answers in pool.map(lambda name: ask(server, secrets[name], CLIENTS[name], by_client[name]), by_client):
                seen |= answers
        gather(server, upstreams, seen)
        return seen


@contextlib.contextmanager
def started(server):
    """The running server, which may take its time beside everything else that tests do."""
    try:
        yield server.start(timeout=300)
    finally:
        server.stop()


class Upstreams:
    """Everything that plays a provider; a context manager."""

    def __init__(self):
        self.plain, self.bedrock, self.vertex = Upstream(), BedrockUpstream(), VertexUpstream()
        self.all = (self.plain, self.bedrock, self.vertex)

    def place(self, name):
        """What plays the provider ``name``, its base URL and the credential that is good there."""
        match name:
            case "bedrock":
                return self.bedrock, self.bedrock.url, self.bedrock.credential_json()
            case "vertex":
                return self.vertex, self.vertex.url, self.vertex.credential_json()
        return self.plain, self.plain.url_of(name), credential_of(name)

    @property
    def requests(self):
        return [request for upstream in self.all for request in upstream.requests]

    def __enter__(self):
        for upstream in self.all:
            upstream.start()
        return self

    def __exit__(self, kind, *_):
        for upstream in self.all:
            upstream.stop()
        for mistake in (mistake for upstream in self.all for mistake in upstream.mistakes if kind is None):
            raise mistake


def ask(server, secret, client, cells):
    with Worker(client, server.base_url, secret) as worker:
        known = worker.ready()
        assert sorted(client.asks) == known, f"{client.name} can ask {known}"
        return {cell: Seen(cell, worker.ask(cell)) for cell in cells}


def prepare(server, upstreams, cells):
    """Set up a provider for each upstream, a model for each of its asks and a key for each client: their secrets."""
    models = defaultdict(set)
    for cell in cells:
        models[cell.upstream].add(cell.ask)
    providers, aliases = [], [f"{LOCAL}:{each}" for each in models.pop(LOCAL, ())]
    for name, asks in models.items():
        upstream, base_url, credential = upstreams.place(name)
        for each in asks:
            upstream.play(f"{name}:{each}", *question(each, name).scripts)
        providers.append(
            {
                "name": name,
                "kind": UPSTREAMS[name].preset.kind,
                "base_url": base_url,
                "credential": credential,
                "models": [f"{name}:{each}" for each in sorted(asks)],
            }
        )
    wanted = {"providers": providers, "aliases": aliases, "keys": list(CLIENTS)}
    path = server.folder / "wanted.json"
    path.write_text(json.dumps(wanted))
    code = "from tests.conformance.run import make; make()"
    return json.loads(server.manage("shell", "--no-imports", "-c", code, environment={"TEST_WANTED": str(path)}))


def make():
    """Within Django: make what ``TEST_WANTED`` names and print the secrets of the keys."""
    from django.db import transaction

    from console.models import Organization, Workspace
    from console.services import create_api_key
    from providers import services
    from providers.models import ModelRoute, ProviderModel, RouteTarget

    with open(os.environ["TEST_WANTED"]) as file:
        wanted = json.load(file)
    secrets = {}
    with transaction.atomic():
        organization, workspace = Organization.objects.get(), Workspace.objects.get(slug="default")
        for provider in wanted["providers"]:
            made = services.create_provider(
                organization=organization,
                kind=provider["kind"],
                name=provider["name"],
                base_url=provider["base_url"],
                credential=provider["credential"],
                allow_private=True,
                actor=None,
            )
            # Hundreds of them, without a line in the audit log for each.
            models = [
                ProviderModel(organization=organization, provider=made, name=name, public_name=name)
                for name in provider["models"]
            ]
            ProviderModel.objects.bulk_create(models)
        for name in wanted["aliases"]:
            route = ModelRoute.objects.create(organization=organization, name=name)
            local = organization.models.get(provider__kind="local")
            RouteTarget.objects.create(route=route, provider_model=local, position=1)
        for name in wanted["keys"]:
            _, secrets[name] = create_api_key(workspace=workspace, name=name, created_by=None)
    print(json.dumps(secrets))


def gather(server, upstreams, seen):
    """Give every cell what reached the upstream of it and its rows, once they have reached the database."""
    by_marker = {cell.id: cell for cell in seen}
    for request in upstreams.requests:
        if cell := by_marker.get(request.marker):
            seen[cell].received.append(request)
    by_name = {(cell.client, asked_model(cell)): cell for cell in seen}
    sql = (
        "SELECT usage_requestlog.*, console_apikey.name AS key_name FROM usage_requestlog "
        "JOIN console_apikey ON console_apikey.id = usage_requestlog.api_key_id ORDER BY usage_requestlog.id"
    )
    until, count = time.monotonic() + 20, -1
    while True:
        rows = server.query(sql)
        waiting = {(row["key_name"], row["requested_model"]) for row in rows}
        missing = [cell for cell in seen if expects_row(cell) and (cell.client, asked_model(cell)) not in waiting]
        if (not missing and len(rows) == count) or time.monotonic() > until:
            break
        count = len(rows)
        time.sleep(0.3)
    for row in rows:
        # A body that could not be read has no model.
        model = row["requested_model"] or f"{ANY}:{ENDPOINTS[row['endpoint']]}.bad_field"
        if cell := by_name.get((row["key_name"], model)):
            seen[cell].rows.append(row)


def asked_model(cell):
    """The model that the cell's client asks for; its name and the client's key tell the rows of a cell."""
    return f"{cell.endpoint}-no-such-model" if cell.case == "unknown_model" else cell.model


def expects_row(cell):
    return cell.case not in ("list", "wrong_key") and cell.endpoint != "count_tokens"
