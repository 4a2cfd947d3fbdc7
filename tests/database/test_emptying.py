import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType

from tests.emptying import empty_database
from tests.factories import make_api_key, make_model, make_price, make_provider, make_request_log


@pytest.mark.django_db(transaction=True)
def test_nothing_that_a_test_committed_is_left_and_all_that_migrating_wrote(workspace, alice_client):
    model = make_model(make_provider(workspace.organization))
    make_price(model)
    make_request_log(workspace, api_key=make_api_key(workspace), provider_model=model)
    empty_database()
    filled = {model for model in apps.get_models() if model._base_manager.exists()}
    assert filled == {ContentType, Permission}
