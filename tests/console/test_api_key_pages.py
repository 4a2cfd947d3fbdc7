import re
from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from console import api_keys
from console.models import ApiKey, AuditEvent
from console.revision import current_revision
from gateway.snapshot import load
from tests import factories

HTMX = {"HX-Request": "true"}


def url(name, workspace, api_key=None):
    return reverse(f"console:api_key_{name}", args=[workspace.slug, *([api_key.uid] if api_key else [])])


@pytest.fixture
def api_key(workspace, alice):
    return factories.make_api_key(workspace, name="reader", created_by=alice)


def test_the_list_shows_a_key_without_its_secret(alice_client, workspace, api_key):
    page = alice_client.get(url("list", workspace)).text
    assert "reader" in page
    assert f"sk-comptoir-…{api_key.hint}" in page
    assert api_key.secret not in page


def test_on_a_phone_too_the_list_says_what_its_amount_is(alice_client, workspace, api_key):
    for headers in ({}, {"HX-Request": "true"}):
        assert re.search(r'data-label="Spent in \w+"', alice_client.get(url("list", workspace), headers=headers).text)


def test_an_empty_list_says_what_a_key_is_for(alice_client, workspace):
    assert "No keys yet" in alice_client.get(url("list", workspace)).text


def test_the_list_shows_the_keys_of_its_workspace_alone(alice_client, workspace, organization, api_key):
    other = factories.make_workspace(organization=organization, name="other", slug="other")
    factories.make_api_key(other, name="elsewhere-key")
    assert "elsewhere-key" not in alice_client.get(url("list", workspace) + "?status=all").text


@pytest.mark.parametrize("name", ["list", "create"])
def test_a_stranger_gets_the_404_of_an_unknown_workspace(charlie_client, workspace, name):
    assert charlie_client.get(url(name, workspace)).status_code == 404
    assert charlie_client.get(f"/w/unknown/keys/{'' if name == 'list' else 'create/'}").status_code == 404


def test_the_list_costs_the_same_for_one_key_and_for_many(alice_client, workspace, django_assert_max_num_queries):
    for number in range(60):
        factories.make_api_key(workspace, name=f"key {number}")
    alice_client.get(url("list", workspace))
    with django_assert_max_num_queries(8):
        page = alice_client.get(url("list", workspace)).text
    assert page.count('scope="row"') == 50
    assert "1 of 2" in page
    assert alice_client.get(url("list", workspace) + "?page=2").text.count('scope="row"') == 10


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", {"reader", "soon"}),
        ("?status=disabled", {"paused"}),
        ("?status=expired", {"late"}),
        ("?status=revoked", {"gone"}),
        ("?status=all", {"reader", "soon", "paused", "late", "gone"}),
        ("?status=all&q=READ", {"reader"}),
        ("?status=nonsense", {"reader", "soon"}),
        ("?q=nothing-like-it", set()),
    ],
)
def test_the_list_is_narrowed_by_status_and_name(alice_client, workspace, api_key, query, names):
    now = timezone.now()
    factories.make_api_key(workspace, name="soon", expires_at=now + timedelta(days=3))
    factories.make_api_key(workspace, name="paused", disabled_at=now)
    factories.make_api_key(workspace, name="late", expires_at=now - timedelta(days=1))
    factories.make_api_key(workspace, name="gone", revoked_at=now)
    listed = alice_client.get(url("list", workspace) + query).context["page"]
    assert {key.name for key in listed} == names


def test_a_key_is_found_by_its_ending(alice_client, workspace, api_key):
    factories.make_api_key(workspace, name="other")
    listed = alice_client.get(url("list", workspace), {"q": f"…{api_key.hint}"}).context["page"]
    assert "reader" in {key.name for key in listed}


def test_a_filter_that_finds_nothing_offers_to_be_cleared(alice_client, workspace, api_key):
    page = alice_client.get(url("list", workspace) + "?q=zzz").text
    assert "No keys match" in page
    assert "Clear filters" in page


def test_htmx_gets_the_table_and_the_segments_alone(alice_client, workspace, api_key):
    fragment = alice_client.get(url("list", workspace), headers=HTMX).text
    assert "<table" in fragment
    assert 'hx-swap-oob="true"' in fragment
    assert "<h1" not in fragment


def test_a_created_key_is_shown_once_and_works(alice_client, alice, workspace):
    before = current_revision()
    response = alice_client.post(url("create", workspace), {"name": "ci", "expiry": "never"})
    assert response.status_code == 200
    created = ApiKey.objects.get()
    secret = next(word for word in response.text.replace("<", " ").replace(">", " ").split() if word.startswith("sk-"))
    assert api_keys.is_well_formed(secret)
    assert secret.endswith(created.hint)
    assert (created.name, created.created_by, created.expires_at) == ("ci", alice, None)
    assert secret not in alice_client.get(url("list", workspace)).text
    assert current_revision() == before + 1
    event = AuditEvent.objects.get()
    assert event.action == "api_key.created"
    assert secret not in str(event.details)


def test_htmx_gets_the_created_key_as_a_dialog_and_the_list_learns_of_it(alice_client, workspace):
    response = alice_client.post(url("create", workspace), {"name": "ci", "expiry": "30"}, headers=HTMX)
    assert response["HX-Trigger"] == "keys-changed"
    assert "<modal-dialog data-keep" in response.text
    assert "<html" not in response.text


def test_a_key_expires_after_the_days_chosen(alice_client, workspace):
    alice_client.post(url("create", workspace), {"name": "ci", "expiry": "90"})
    left = ApiKey.objects.get().expires_at - timezone.now()
    assert timedelta(days=89, hours=23) < left <= timedelta(days=90)


def test_a_last_day_ends_at_midnight_of_the_organization(alice_client, workspace, organization):
    organization.time_zone = "Europe/Paris"
    organization.save()
    fields = {"name": "ci", "expiry": "date", "expires_on": "2099-06-30"}
    alice_client.post(url("create", workspace), fields)
    assert ApiKey.objects.get().expires_at == datetime(2099, 6, 30, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "", "expiry": "never"}, "This field is required."),
        ({"name": "x" * 81, "expiry": "never"}, "at most 80 characters"),
        ({"name": "ci", "expiry": "soon"}, "Select a valid choice"),
        ({"name": "ci", "expiry": "date"}, "Choose the last day."),
        ({"name": "ci", "expiry": "date", "expires_on": "2020-01-01"}, "That day has passed."),
        ({"name": "ci", "expiry": "date", "expires_on": "tomorrow"}, "Enter a valid date."),
        ({"name": "reader", "expiry": "never"}, "already has a key with that name"),
    ],
)
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_bad_input_is_said_beside_its_field(alice_client, workspace, api_key, fields, message, headers):
    response = alice_client.post(url("create", workspace), fields, headers=headers)
    assert response.status_code == 422
    assert message in response.text
    assert 'aria-invalid="true"' in response.text
    assert ApiKey.objects.count() == 1


def test_the_name_of_a_revoked_key_is_free_again(alice_client, workspace, api_key):
    alice_client.post(url("revoke", workspace, api_key), {"confirmation": "reader"})
    assert alice_client.post(url("create", workspace), {"name": "reader", "expiry": "never"}).status_code == 200


def test_a_key_is_renamed(alice_client, workspace, api_key):
    assert alice_client.post(url("edit", workspace, api_key), {"name": "writer"}).url == url("list", workspace)
    api_key.refresh_from_db()
    assert api_key.name == "writer"
    assert "Key writer saved" in alice_client.get(url("list", workspace)).text
    assert [event.action for event in AuditEvent.objects.all()] == ["api_key.renamed"]


def test_a_key_gets_an_answer_style_of_its_own(alice_client, workspace):
    workspace.flavour = "ektos"
    workspace.save()
    page = alice_client.get(url("create", workspace)).text
    assert "As the workspace (Ektos)" in page
    alice_client.post(url("create", workspace), {"name": "plain", "expiry": "never", "flavour": ""})
    alice_client.post(url("create", workspace), {"name": "full", "expiry": "never", "flavour": "evolink"})
    assert dict(ApiKey.objects.values_list("name", "flavour")) == {"plain": "", "full": "evolink"}


def test_the_answer_style_of_a_key_is_changed_and_the_gateway_learns_of_it(alice_client, workspace, api_key):
    before = current_revision()
    fields = {"name": "reader", "flavour": "cloud-temple"}
    alice_client.post(url("edit", workspace, api_key), fields)
    alice_client.post(url("edit", workspace, api_key), fields)
    api_key.refresh_from_db()
    assert api_key.flavour == "cloud-temple"
    assert current_revision() == before + 1
    event = AuditEvent.objects.get()
    assert (event.action, event.details) == ("api_key.flavour_changed", {"before": "", "after": "cloud-temple"})
    page = alice_client.get(url("edit", workspace, api_key)).text
    assert '<option value="cloud-temple" selected>' in page


def test_a_key_stores_no_responses_where_that_is_chosen_for_it(alice_client, workspace, api_key):
    before = current_revision()
    for value in ("False", "False", ""):
        alice_client.post(url("edit", workspace, api_key), {"name": "reader", "stores_responses": value})
        api_key.refresh_from_db()
        assert api_key.stores_responses is False
    assert current_revision() == before + 1
    event = AuditEvent.objects.get()
    assert (event.action, event.details) == ("api_key.stores_responses_changed", {"before": True, "after": False})
    assert '<option value="False" selected>' in alice_client.get(url("edit", workspace, api_key)).text
    for name, value in (("open", "True"), ("plain", ""), ("closed", "False")):
        fields = {"name": name, "expiry": "never", "stores_responses": value}
        alice_client.post(url("create", workspace), fields)
    made = ApiKey.objects.exclude(pk=api_key.pk).values_list("name", "stores_responses")
    assert dict(made) == {"open": True, "plain": True, "closed": False}


def test_no_key_stores_what_its_workspace_does_not(alice_client, workspace, api_key):
    assert "As the workspace (for thirty days)" in alice_client.get(url("create", workspace)).text
    assert load(0).keys[bytes(api_key.digest)].caller.stores
    closed = factories.make_api_key(workspace, stores_responses=False)
    assert not load(0).keys[bytes(closed.digest)].caller.stores
    workspace.stores_responses = False
    workspace.save()
    assert "As the workspace (never)" in alice_client.get(url("create", workspace)).text
    assert not any(key.caller.stores for key in load(0).keys.values())


def test_an_unknown_answer_style_is_refused(alice_client, workspace, api_key):
    fields = {"name": "reader", "expiry": "never", "flavour": "other"}
    for name, key in (("edit", api_key), ("create", None)):
        response = alice_client.post(url(name, workspace, key), fields)
        assert response.status_code == 422
        assert "Select a valid choice" in response.text


def test_a_key_is_not_renamed_to_a_name_that_is_taken(alice_client, workspace, api_key):
    factories.make_api_key(workspace, name="writer")
    response = alice_client.post(url("edit", workspace, api_key), {"name": "writer"})
    assert response.status_code == 422
    assert "already has a key with that name" in response.text


def test_a_key_is_disabled_and_enabled(alice_client, workspace, api_key):
    response = alice_client.post(url("disable", workspace, api_key), headers=HTMX)
    assert response["HX-Trigger"] == "keys-changed"
    api_key.refresh_from_db()
    assert api_key.status == ApiKey.Status.DISABLED
    alice_client.post(url("enable", workspace, api_key))
    api_key.refresh_from_db()
    assert api_key.status == ApiKey.Status.ACTIVE


def test_a_key_is_revoked_once_its_name_is_typed(alice_client, workspace, api_key):
    assert alice_client.post(url("revoke", workspace, api_key), {"confirmation": "read"}).status_code == 422
    api_key.refresh_from_db()
    assert api_key.status == ApiKey.Status.ACTIVE
    alice_client.post(url("revoke", workspace, api_key), {"confirmation": "reader"})
    api_key.refresh_from_db()
    assert api_key.status == ApiKey.Status.REVOKED


@pytest.mark.parametrize("name", ["edit", "disable", "enable", "revoke"])
def test_a_revoked_key_cannot_be_changed(alice_client, workspace, api_key, name):
    ApiKey.objects.update(revoked_at=timezone.now())
    assert alice_client.post(url(name, workspace, api_key)).status_code == 404


@pytest.mark.parametrize("name", ["edit", "disable", "enable", "revoke"])
def test_a_developer_changes_their_own_keys_and_no_others(bob_client, bob, workspace, api_key, name):
    own = factories.make_api_key(workspace, name="bobs", created_by=bob)
    fields = {"name": "new", "confirmation": "bobs"}
    assert bob_client.post(url(name, workspace, api_key), fields).status_code == 403
    assert bob_client.post(url(name, workspace, own), fields).status_code == 302


def test_a_developer_creates_keys_and_sees_everyones(bob_client, workspace, api_key):
    assert bob_client.post(url("create", workspace), {"name": "bobs", "expiry": "never"}).status_code == 200
    page = bob_client.get(url("list", workspace)).text
    assert "reader" in page
    assert f"menu-{api_key.uid}" not in page


@pytest.mark.parametrize("name", ["edit", "disable", "enable", "revoke"])
def test_a_key_cannot_be_reached_through_another_workspace(charlie_client, alice_client, workspace, api_key, name):
    elsewhere = "elsewhere"
    assert charlie_client.post(f"/w/{elsewhere}/keys/{api_key.uid}/{name}/").status_code == 404
    assert charlie_client.post(url(name, workspace, api_key)).status_code == 404


@pytest.mark.parametrize("name", ["disable", "enable"])
def test_a_change_needs_a_post(alice_client, workspace, api_key, name):
    assert alice_client.get(url(name, workspace, api_key)).status_code == 405


def test_names_are_escaped_wherever_they_stand(alice_client, workspace):
    factories.make_api_key(workspace, name="<script>alert(1)</script>")
    assert "<script>alert" not in alice_client.get(url("list", workspace)).text


def test_a_key_cannot_expire_beyond_the_calendar(alice_client, workspace):
    address = f"/w/{workspace.slug}/keys/create/"
    answer = alice_client.post(address, {"name": "far", "expiry": "date", "expires_on": "9999-12-31"})
    assert answer.status_code == 422
    assert not workspace.api_keys.exists()
