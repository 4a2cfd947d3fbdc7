"""
Organizations of their own for scenarios, made within the server's Django: ``manage shell`` runs ``serve``.

What is wanted comes as a line of JSON on standard input, and what was made goes out as one.
"""

import json
import sys
from decimal import Decimal


def serve():
    """Make an organization a line until there are no more."""
    from django.db import connection

    for line in sys.stdin:
        print(json.dumps(make(json.loads(line))), flush=True)
        # The database may be away before it is asked the next time.
        connection.close()


def make(wanted):
    """Make the organization; the secrets and ids of its keys."""
    from console.models import Member, Organization, User
    from console.services import create_api_key, create_workspace
    from providers import services
    from providers.discovery import RemoteModel
    from usage.rate_limits import set_rate_limit
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
    for scope, figures in wanted["rates"].items():
        kind, pk = scopes[scope]
        set_rate_limit(organization=organization, scope=kind, scope_id=pk, **figures)
    return {"keys": keys, "scopes": scopes, "organization": organization.pk}
