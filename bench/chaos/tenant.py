"""
What scenarios make and change within the server's Django: ``manage shell`` runs ``serve``.

What is wanted comes as a line of JSON on standard input, and what came of it goes out as one.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from tests.server import ROOT


class Workshop:
    """A process within the Django of ``server``; a context manager, asked by one thread at a time."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        script = "from bench.chaos.tenant import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", script],
            cwd=ROOT,
            env=self.server.environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def ask(self, task, wanted):
        """What ``task``, one of ``TASKS``, returned."""
        self.process.stdin.write(json.dumps([task, wanted]) + "\n")
        self.process.stdin.flush()
        if not (answer := self.process.stdout.readline()):
            raise RuntimeError(f"The workshop failed at {task}: what it said stands above.")
        return json.loads(answer)


def serve():
    """Do a task a line until there are no more."""
    from django.db import connection

    for line in sys.stdin:
        task, wanted = json.loads(line)
        print(json.dumps(TASKS[task](wanted)), flush=True)
        # The database may be away before it is asked the next time.
        connection.close()


def make(wanted):
    """Make the organization in one transaction; the secrets and ids of its keys."""
    from django.db import transaction

    with transaction.atomic():
        return _make(wanted)


def _make(wanted):
    from console.models import Member, Organization, User
    from console.services import create_api_key, create_workspace
    from providers import services
    from providers.discovery import RemoteModel
    from usage.rate_limits import set_model_group, set_rate_limit
    from usage.spend_limits import set_spend_limit

    name = wanted["name"]
    organization = Organization.objects.create(name=name, slug=name)
    provider = services.create_provider(
        organization=organization,
        kind="openai",
        name="scripted",
        base_url=wanted["upstream"],
        credential="sk-upstream",
        allow_private=True,
        actor=None,
    )
    remote = [RemoteModel(model) for model in wanted["models"]]
    for model in services.take_over_models(provider=provider, models=remote, actor=None, priced=False):
        services.set_price(
            model=model,
            input_per_mtok=Decimal(wanted["price"][0]),
            output_per_mtok=Decimal(wanted["price"][1]),
            actor=None,
        )
    scopes = {"organization": ("organization", organization.pk)}
    members, workspaces, keys = {}, {}, {}
    for key in wanted["keys"]:
        if key["member"] not in members:
            user = User.objects.create_user(f"{name}-{key['member']}@example.org", None)
            Member.objects.create(organization=organization, user=user, role=Member.Role.DEVELOPER)
            members[key["member"]] = user
            scopes[f"member {key['member']}"] = ("member", user.pk)
        if key["workspace"] not in workspaces:
            workspace = create_workspace(organization=organization, name=f"{name} {key['workspace']}", actor=None)
            workspaces[key["workspace"]] = workspace
            scopes[f"workspace {key['workspace']}"] = ("workspace", workspace.pk)
        row, secret = create_api_key(
            workspace=workspaces[key["workspace"]], name=key["name"], created_by=members[key["member"]]
        )
        scopes[f"key {key['name']}"] = ("api_key", row.pk)
        keys[key["name"]] = {
            "secret": secret,
            "scopes": [
                "organization",
                f"workspace {key['workspace']}",
                f"key {key['name']}",
                f"member {key['member']}",
            ],
        }
    for scope, nanos in wanted["limits"].items():
        kind, pk = scopes[scope]
        set_spend_limit(organization=organization, scope=kind, scope_id=pk, period="month", amount_nanos=nanos)
    group = None
    for scope, figures in wanted["rates"].items():
        # "organization of m-*" is for the models of a group.
        scope, _, patterns = scope.partition(" of ")
        kind, pk = scopes[scope]
        if patterns:
            group = set_model_group(organization=organization, name="group", patterns=[patterns])
        set_rate_limit(organization=organization, scope=kind, scope_id=pk, group=group if patterns else None, **figures)
    return {"keys": keys, "scopes": scopes, "organization": organization.pk}


def make_keys(wanted):
    """So many keys more for the organization, in one transaction; their ids and secrets."""
    from django.db import transaction

    from console.models import Member, Workspace
    from console.services import create_api_key

    workspace = Workspace.objects.filter(organization=wanted["organization"]).order_by("pk").first()
    owner = Member.objects.filter(organization=wanted["organization"]).order_by("pk").first().user
    with transaction.atomic():
        made = [
            create_api_key(workspace=workspace, name=f"{wanted['name']} {number}", created_by=owner)
            for number in range(wanted["count"])
        ]
    return [[key.pk, secret] for key, secret in made]


def revoke(wanted):
    """
    Revoke each key by itself as the console does, in so many threads; by key, when that was asked for and done.

    Times are of the system's monotonic clock, which all processes share.
    """
    from django.db import connection

    from console.models import ApiKey
    from console.services import revoke_api_key

    keys = ApiKey.objects.select_related("workspace__organization").in_bulk(wanted["keys"])

    def one(pk):
        began = time.monotonic()
        revoke_api_key(api_key=keys[pk], actor=keys[pk].created_by)
        return pk, began, time.monotonic()

    with ThreadPoolExecutor(wanted["threads"]) as threads:
        times = list(threads.map(one, wanted["keys"]))
        list(threads.map(lambda _: connection.close(), range(wanted["threads"])))
    return times


TASKS = {"make": make, "make_keys": make_keys, "revoke": revoke}
