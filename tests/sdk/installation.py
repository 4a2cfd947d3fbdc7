"""Providers, models, prices and keys for a server under test, by the product's own services."""

import json

# One process for all of it: each command that is started takes a second.
SET_UP = """
import json
from console.models import Workspace
from console.services import create_api_key
from providers import services
from providers.discovery import RemoteModel
workspace = Workspace.objects.select_related("organization").get(slug="default")
for kind, url, models in PROVIDERS:
    provider = services.create_provider(
        organization=workspace.organization, kind=kind, name=f"My {kind}", base_url=url,
        credential=f"sk-{kind}-0123456789", allow_private=True, actor=None,
    )
    remote = [RemoteModel(model) for model in models]
    for model in services.take_over_models(provider=provider, models=remote, actor=None):
        if model.public_name in PRICED:
            services.set_price(model=model, input_per_mtok=PRICE[0], output_per_mtok=PRICE[1], actor=None)
keys = {
    flavour: create_api_key(workspace=workspace, name=flavour or "plain", created_by=None, flavour=flavour)[1]
    for flavour in FLAVOURS
}
print(json.dumps(keys))
"""


def set_up(server, providers, *, flavours=("",), priced=(), price=(1, 2)):
    """Add ``providers``, each a kind, a base URL and names of models, and return a key for each flavour."""
    names = {"PROVIDERS": providers, "FLAVOURS": list(flavours), "PRICED": list(priced), "PRICE": list(price)}
    assignments = "".join(f"{name} = {value!r}\n" for name, value in names.items())
    return json.loads(server.manage("shell", "-v0", "-c", assignments + SET_UP))
