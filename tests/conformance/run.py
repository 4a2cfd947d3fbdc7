"""One server, one upstream that plays every provider, every client beside each other: asks cells and gathers rows."""

import json
import os
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

from tests.conformance.matrix import CLIENTS, UPSTREAMS, Seen, question
from tests.conformance.workers import Worker
from tests.server import Server
from tests.upstream import Upstream
from tests.upstream.providers import credential_of

AT_ONCE = 3  # clients that ask beside each other


def run(cells, folder):
    """What became of each of ``cells``, by cell."""
    with Upstream() as upstream, Server(folder) as server:
        secrets = prepare(server, upstream, cells)
        by_client = defaultdict(list)
        for cell in cells:
            by_client[cell.client].append(cell)
        seen = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for answers in pool.map(lambda name: ask(server, secrets[name], CLIENTS[name], by_client[name]), by_client):
                seen |= answers
        gather(server, upstream, seen)
        if upstream.mistakes:
            raise upstream.mistakes[0]
        return seen


def ask(server, secret, client, cells):
    with Worker(client, server.base_url, secret) as worker:
        known = worker.ready()
        assert sorted(client.asks) == known, f"{client.name} can ask {known}"
        return {cell: Seen(cell, worker.ask(cell)) for cell in cells}


def prepare(server, upstream, cells):
    """Set up a provider for each upstream, a model for each of its asks and a key for each client: their secrets."""
    models = defaultdict(set)
    for cell in cells:
        models[cell.upstream].add(cell.ask)
    providers = []
    for name, asks in models.items():
        for each in asks:
            upstream.play(f"{name}:{each}", *question(each, name).scripts)
        providers.append(
            {
                "name": name,
                "kind": UPSTREAMS[name].preset.kind,
                "base_url": upstream.url_of(name),
                "credential": credential_of(name),
                "models": [f"{name}:{each}" for each in sorted(asks)],
            }
        )
    wanted = {"providers": providers, "keys": list(CLIENTS)}
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
    from providers.discovery import RemoteModel

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
            models = [RemoteModel(name) for name in provider["models"]]
            services.take_over_models(provider=made, models=models, actor=None)
        for name in wanted["keys"]:
            _, secrets[name] = create_api_key(workspace=workspace, name=name, created_by=None)
    print(json.dumps(secrets))


def gather(server, upstream, seen):
    """Give every cell what reached the upstream of it and its rows, once they have reached the database."""
    by_marker = {cell.id: cell for cell in seen}
    for request in upstream.requests:
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
        if cell := by_name.get((row["key_name"], row["requested_model"])):
            seen[cell].rows.append(row)


def asked_model(cell):
    """The model that the cell's client asks for; its name and the client's key tell the rows of a cell."""
    return f"{cell.endpoint}-no-such-model" if cell.case == "unknown_model" else cell.model


def expects_row(cell):
    return cell.case not in ("list", "wrong_key") and cell.endpoint != "count_tokens"
