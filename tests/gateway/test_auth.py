"""Keys, models and prices as a request sees them: from the snapshot, never more than a moment old."""

import datetime
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connections
from django.utils import timezone

from console import api_keys, services
from console.revision import bump_revision
from gateway.auth import authenticate, key_of
from gateway.calls import Call, Caller
from gateway.errors import GatewayError
from gateway.health import Health
from gateway.routing import Router
from gateway.snapshot import CURRENT_SECONDS, USABLE_SECONDS, SnapshotKeeper, load
from providers.formats import chat_completions
from providers.services import delete_provider, remove_model
from tests.factories import make_model, make_price, make_provider

pytestmark = pytest.mark.django_db(transaction=True)


class Keeper(SnapshotKeeper):
    """A keeper whose database can be taken away, and its clock moved."""

    def __init__(self):
        super().__init__()
        self.is_gone = False
        self.asked = 0

    def _look(self):
        self.asked += 1
        if self.is_gone:
            raise OperationalError("gone")
        return super()._look()


@pytest.fixture
def keeper(transactional_db):
    keeper = Keeper()
    async_to_sync(keeper.refresh)()
    keeper.asked = 0
    yield keeper
    keeper._executor.submit(connections.close_all).result()
    keeper._executor.shutdown()


def bearer(secret):
    return [(b"authorization", f"Bearer {secret}".encode())]


def asked(keeper, headers):
    """The caller for ``headers``, or the status and code of the refusal."""
    try:
        return async_to_sync(authenticate)(headers, keeper)
    except GatewayError as error:
        return error.status, error.code


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([(b"authorization", b"Bearer a")], "a"),
        ([(b"authorization", b"bearer  a ")], "a"),
        ([(b"x-api-key", b"a")], "a"),
        ([(b"x-api-key", b"a"), (b"authorization", b"Bearer a")], "a"),
        ([(b"x-api-key", b"a"), (b"authorization", b"Bearer b")], None),
        ([(b"x-api-key", b"a"), (b"x-api-key", b"b")], None),
        ([(b"authorization", b"Basic a")], None),
        ([(b"authorization", b"Bearer ")], None),
        ([], None),
    ],
)
def test_a_key_is_found_in_every_spelling_and_two_are_none(headers, found):
    if found is None:
        with pytest.raises(GatewayError) as refused:
            key_of(headers)
        assert refused.value.status == 401
    else:
        assert key_of(headers) == found


def test_a_key_made_a_moment_ago_works_and_a_revoked_one_stops(workspace, alice, keeper):
    assert asked(keeper, bearer(api_keys.new_secret())) == (401, "invalid_api_key")
    key, secret = services.create_api_key(workspace=workspace, name="new", created_by=alice)
    assert asked(keeper, bearer(secret)).api_key_id == key.pk
    services.revoke_api_key(api_key=key, actor=alice)
    async_to_sync(keeper.refresh)()
    assert asked(keeper, bearer(secret)) == (401, "invalid_api_key")


def test_a_disabled_or_expired_key_is_refused(workspace, alice, keeper):
    key, secret = services.create_api_key(workspace=workspace, name="a", created_by=alice)
    services.disable_api_key(api_key=key, actor=alice)
    assert asked(keeper, bearer(secret)) == (401, "invalid_api_key")
    services.enable_api_key(api_key=key, actor=alice)
    async_to_sync(keeper.refresh)()
    assert asked(keeper, bearer(secret)).api_key_id == key.pk
    late = timezone.now() + datetime.timedelta(seconds=-1)
    _, expired = services.create_api_key(workspace=workspace, name="b", created_by=alice, expires_at=late)
    assert asked(keeper, bearer(expired)) == (401, "invalid_api_key")


def target_of(model, workspace, keeper):
    """The target that a chat completion for ``model`` goes to first."""
    caller = Caller(workspace.organization_id, "o", workspace.pk, "w", None, None, "api")
    call = Call(format=chat_completions, caller=caller, fields={}, model=model)
    return async_to_sync(Router(keeper, Health(), None).plan)(call).target


@pytest.mark.parametrize("junk", ["", "x", "sk-comptoir-", "sk-comptoir-" + "0" * 40, "sk-ant-" + "é" * 20])
def test_junk_asks_no_database(keeper, junk):
    assert asked(keeper, bearer(junk))[0] == 401
    assert keeper.asked == 0


def test_without_the_database_known_keys_go_on_and_unknown_ones_are_not_wrong(workspace, alice, keeper):
    _, secret = services.create_api_key(workspace=workspace, name="a", created_by=alice)
    assert asked(keeper, bearer(secret)).workspace_id == workspace.pk
    keeper.is_gone = True
    keeper.checked_at -= CURRENT_SECONDS + 1
    assert asked(keeper, bearer(secret)).workspace_id == workspace.pk
    assert asked(keeper, bearer(api_keys.new_secret())) == (503, "not_ready")
    keeper.checked_at -= USABLE_SECONDS
    assert asked(keeper, bearer(secret)) == (503, "not_ready")


def test_a_snapshot_costs_the_same_number_of_queries_however_much_it_holds(workspace, alice, django_assert_num_queries):
    provider = make_provider(workspace.organization)
    for number in range(3):
        make_price(make_model(provider, f"m{number}"))
        services.create_api_key(workspace=workspace, name=f"k{number}", created_by=alice)
    with django_assert_num_queries(10):
        snapshot = load(1)
    assert len(snapshot.keys) == 3
    assert list(snapshot.routes[workspace.organization_id]) == ["m0", "m1", "m2"]


def test_the_price_is_the_one_of_the_moment(workspace, alice):
    model = make_model(make_provider(workspace.organization), "m")
    now = timezone.now()
    make_price(model, input="1", valid_from=now - datetime.timedelta(days=2))
    make_price(model, input="2", valid_from=now - datetime.timedelta(days=1))
    make_price(model, input="3", valid_from=now + datetime.timedelta(days=1))
    target = load(1).routes[workspace.organization_id]["m"].targets[0]

    def rate(days):
        rates = target.rates_at((now + datetime.timedelta(days=days)).timestamp())
        return rates and rates.input

    assert [rate(days) for days in (-3, -2, -1.5, 0, 2)] == [None, 1_000_000, 1_000_000, 2_000_000, 3_000_000]


def test_models_of_another_organization_do_not_exist(workspace, charlie, keeper):
    make_model(make_provider(charlie.last_workspace.organization), "theirs")
    with pytest.raises(GatewayError) as refused:
        target_of("theirs", workspace, keeper)
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")


@pytest.mark.parametrize("removal", ["model", "provider"])
def test_what_is_removed_does_not_exist_at_once(workspace, alice, keeper, removal):
    model = make_model(make_provider(workspace.organization), "gone")
    bump_revision()
    assert target_of("gone", workspace, keeper).provider_model_id == model.pk
    if removal == "model":
        remove_model(model=model, actor=alice)
    else:
        delete_provider(provider=model.provider, actor=alice)
    async_to_sync(keeper.refresh)()
    with pytest.raises(GatewayError) as refused:
        target_of("gone", workspace, keeper)
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    again = make_model(make_provider(workspace.organization), "gone")
    bump_revision()
    async_to_sync(keeper.refresh)()
    assert target_of("gone", workspace, keeper).provider_model_id == again.pk


def test_a_provider_whose_credential_cannot_be_read_does_not_stop_the_others(workspace, keeper):
    broken = make_provider(workspace.organization, name="broken")
    broken.sealed_credential = b"\x01" + b"x" * 100
    broken.save()
    make_model(broken, "broken")
    make_model(make_provider(workspace.organization, name="sound"), "sound")
    bump_revision()
    sound = target_of("sound", workspace, keeper)
    assert sound.is_usable
    with pytest.raises(GatewayError) as refused:
        target_of("broken", workspace, keeper)
    assert refused.value.code == "provider_needs_key"


def test_a_credential_never_shows(workspace):
    provider = make_provider(workspace.organization, credential="sk-very-secret")
    make_model(provider, "m")
    snapshot = load(1)
    target = snapshot.routes[workspace.organization_id]["m"].targets[0]
    assert "sk-very-secret" in str(target.headers)
    assert "sk-very-secret" not in repr(snapshot) + repr(target) + repr(SimpleNamespace(target=target))
