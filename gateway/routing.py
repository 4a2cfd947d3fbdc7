"""A model's name to whom to ask."""

from gateway import errors


def models_of(organization_id, snapshot):
    """Every model that an organization may use, by public name."""
    return snapshot.models.get(organization_id, {})


async def route(model, organization_id, keeper):
    """The target of a public model name; raises ``GatewayError`` where there is none that could be called."""
    target = models_of(organization_id, keeper.current).get(model)
    if target is None:
        # It may have been added a moment ago.
        await keeper.refresh()
        target = models_of(organization_id, keeper.current).get(model)
        if target is None:
            raise errors.unknown_model(model)
    if not target.is_usable:
        raise errors.unusable_provider(target.provider_name)
    return target
