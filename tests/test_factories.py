"""The makers fit the models, and their keys are real ones."""

from console.api_keys import is_well_formed
from tests import factories


def test_every_maker_saves_an_object_that_its_model_accepts(workspace):
    api_key = factories.make_api_key(workspace)
    model = factories.make_model(factories.make_provider(workspace.organization))
    price = factories.make_price(model)
    log = factories.make_request_log(workspace, api_key=api_key, provider_model=model, price=price)
    for made in (api_key, model.provider, model, price):
        made.full_clean()
    assert log.price == price
    assert is_well_formed(api_key.secret)


def test_request_ids_stand_in_the_order_of_time(workspace):
    logs = [factories.make_request_log(workspace) for _ in range(3)]
    assert [len(log.id) for log in logs] == [30, 30, 30]
    assert logs[0].id[:14] <= logs[1].id[:14] <= logs[2].id[:14]


def test_the_stranger_is_at_home_elsewhere(charlie, workspace):
    assert charlie.last_workspace.organization != workspace.organization
