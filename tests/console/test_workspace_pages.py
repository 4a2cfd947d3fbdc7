from django.urls import reverse

from console.models import AuditEvent, Workspace
from console.revision import current_revision
from tests import factories

HTMX = {"HX-Request": "true"}


def url(name, organization, *args):
    return reverse(f"console:workspace_{name}", args=[organization.slug, *args])


def test_an_admin_sees_every_workspace_with_its_keys(alice_client, organization, workspace):
    factories.make_api_key(workspace)
    listed = alice_client.get(url("list", organization)).context["listed"]
    assert [(row.name, row.key_count) for row in listed] == [("default", 1)]


def test_the_list_costs_the_same_for_many(alice_client, organization, workspace, django_assert_max_num_queries):
    for _ in range(12):
        factories.make_workspace(organization=organization)
    with django_assert_max_num_queries(8):
        alice_client.get(url("list", organization))


def test_a_developer_and_a_stranger_are_kept_out(bob_client, charlie_client, organization, workspace):
    for name, args in (("list", []), ("create", []), ("edit", [workspace.uid])):
        assert bob_client.get(url(name, organization, *args)).status_code == 403
        assert charlie_client.get(url(name, organization, *args)).status_code == 404


def test_a_workspace_is_created_with_an_address_of_its_name(alice_client, organization, workspace):
    response = alice_client.post(url("create", organization), {"name": "Équipe Support"})
    assert response.url == url("list", organization)
    created = Workspace.objects.get(name="Équipe Support")
    assert created.slug == "equipe-support"
    assert created.organization == organization
    assert AuditEvent.objects.get().action == "workspace.created"


def test_a_name_that_is_taken_is_refused(alice_client, organization, workspace):
    response = alice_client.post(url("create", organization), {"name": "default"}, headers=HTMX)
    assert response.status_code == 422
    assert "already has a workspace with that name" in response.text


def test_a_workspace_is_renamed_and_keeps_its_address(alice_client, organization, workspace):
    response = alice_client.post(url("edit", organization, workspace.uid), {"name": "Support"}, headers=HTMX)
    assert response["HX-Trigger"] == "workspaces-changed"
    workspace.refresh_from_db()
    assert (workspace.name, workspace.slug) == ("Support", "default")


def test_a_workspace_has_an_answer_style_that_the_gateway_learns_of(alice_client, organization, workspace):
    before = current_revision()
    fields = {"name": "default", "flavour": "evolink"}
    alice_client.post(url("edit", organization, workspace.uid), fields)
    alice_client.post(url("edit", organization, workspace.uid), fields)
    workspace.refresh_from_db()
    assert workspace.flavour == "evolink"
    assert current_revision() == before + 1
    event = AuditEvent.objects.get()
    assert (event.action, event.details) == ("workspace.flavour_changed", {"before": "openai", "after": "evolink"})
    assert '<option value="evolink" selected>' in alice_client.get(url("edit", organization, workspace.uid)).text


def test_a_new_name_leaves_the_answer_style_as_it_is(alice_client, organization, workspace):
    workspace.flavour = "ikalas"
    workspace.save()
    alice_client.post(url("edit", organization, workspace.uid), {"name": "Support"})
    workspace.refresh_from_db()
    assert (workspace.name, workspace.flavour) == ("Support", "ikalas")


def test_a_workspace_says_that_no_response_is_stored_and_the_gateway_learns_of_it(
    alice_client, organization, workspace
):
    before = current_revision()
    for fields in ({"stores_responses": "False"}, {"stores_responses": "False"}, {"stores_responses": ""}, {}):
        alice_client.post(url("edit", organization, workspace.uid), {"name": "default", **fields})
        workspace.refresh_from_db()
        assert workspace.stores_responses is False
    assert current_revision() == before + 1
    event = AuditEvent.objects.get()
    assert (event.action, event.details) == (
        "workspace.stores_responses_changed",
        {"before": True, "after": False},
    )
    assert '<option value="False" selected>' in alice_client.get(url("edit", organization, workspace.uid)).text
    response = alice_client.post(
        url("edit", organization, workspace.uid), {"name": "default", "stores_responses": "sometimes"}
    )
    assert response.status_code == 422


def test_a_workspace_is_created_with_what_is_chosen_of_its_responses(alice_client, organization, workspace):
    for name, fields in (("Open", {}), ("Closed", {"stores_responses": "False"})):
        alice_client.post(url("create", organization), {"name": name, **fields})
    chosen = Workspace.objects.exclude(pk=workspace.pk).values_list("name", "stores_responses")
    assert dict(chosen) == {"Open": True, "Closed": False}


def test_a_workspace_of_another_organization_cannot_be_edited(alice_client, organization, charlie):
    stranger = charlie.last_workspace
    assert alice_client.post(url("edit", organization, stranger.uid), {"name": "mine"}).status_code == 404
