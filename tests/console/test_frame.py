"""What stands around every page: the sidebar, the switcher, the home page, the pages of refusals and faults."""

import re

import pytest
from django.urls import reverse
from django.utils import timezone

from console.models import Member
from tests import factories


def test_the_sidebar_shows_an_admin_the_organization_too(alice_client, bob_client, workspace):
    assert "/o/default/workspaces/" in alice_client.get(workspace.get_absolute_url()).text
    assert "/o/default/workspaces/" not in bob_client.get(workspace.get_absolute_url()).text


def test_the_current_page_is_marked_once(alice_client, workspace):
    page = alice_client.get(reverse("console:api_key_list", args=[workspace.slug])).text
    assert page.count('aria-current="page"') == 1


def test_switching_the_workspace_keeps_the_page(alice_client, organization, workspace):
    factories.make_workspace(organization=organization, name="other", slug="other")
    assert 'href="/w/other/keys/"' in alice_client.get(reverse("console:api_key_list", args=[workspace.slug])).text
    assert 'class="menu__item" href="/w/other/"' in alice_client.get(workspace.get_absolute_url()).text


def test_the_switcher_names_the_organizations_of_who_has_several(alice_client, alice, workspace, charlie):
    factories.make_member(charlie.last_workspace.organization, alice)
    page = alice_client.get(workspace.get_absolute_url()).text
    assert page.count("menu__heading") == 2
    assert 'href="/w/elsewhere/"' in page


def test_a_stranger_never_sees_the_names_of_a_workspace(charlie_client, workspace):
    response = charlie_client.get(workspace.get_absolute_url())
    assert response.status_code == 404
    assert workspace.organization.name not in response.text.replace("default", "")


def test_the_home_page_counts_the_steps_that_are_done(alice_client, workspace):
    assert "1 of 4 done" in alice_client.get(workspace.get_absolute_url()).text
    factories.make_api_key(workspace)
    factories.make_request_log(workspace)
    assert "3 of 4 done" in alice_client.get(workspace.get_absolute_url()).text


def test_without_a_model_a_provider_is_the_next_step(alice_client, workspace, organization):
    def titles():
        page = alice_client.get(workspace.get_absolute_url()).text
        assert page.count("button--primary") == 1
        primary = page.index("button--primary")
        return re.findall(r"<h3>([^<]+)</h3>", page)[:3], page[:primary].count("<h3>")

    assert titles() == (["Start the server", "Connect a provider", "Get a first answer"], 2)
    factories.make_model(factories.make_provider(organization, kind="local"))
    assert titles() == (["Start the server", "Get a first answer", "Create an API key"], 2)


def test_a_developer_is_not_asked_to_connect_a_provider(bob_client, workspace):
    page = bob_client.get(workspace.get_absolute_url()).text
    assert "1 of 3 done" in page
    assert "Connect a provider" not in page


def test_the_steps_go_when_all_are_done(alice_client, workspace, organization):
    factories.make_api_key(workspace)
    factories.make_request_log(workspace)
    factories.make_provider(organization)
    page = alice_client.get(workspace.get_absolute_url()).text
    assert "First steps" not in page
    assert f"<h1>{workspace.name}</h1>" in page


def test_the_steps_of_another_workspace_do_not_count(alice_client, workspace, organization):
    other = factories.make_workspace(organization=organization)
    factories.make_api_key(other)
    factories.make_request_log(other)
    assert "1 of 4 done" in alice_client.get(workspace.get_absolute_url()).text


def test_the_base_url_is_the_one_the_page_came_by(alice_client, workspace, settings):
    page = alice_client.get(workspace.get_absolute_url(), headers={"Host": "localhost:8123"}).text
    assert "<code>http://localhost:8123/v1</code>" in page
    settings.PUBLIC_URL = "https://ai.example.org"
    assert "<code>https://ai.example.org/v1</code>" in alice_client.get(workspace.get_absolute_url()).text


def test_the_command_for_a_key_names_one_that_is_free(alice_client, workspace):
    def page():
        return alice_client.get(workspace.get_absolute_url()).text

    assert "--name first)" in page()
    factories.make_api_key(workspace, name="first")
    assert "--name first-2)" in page()
    factories.make_api_key(workspace, name="first-2")
    factories.make_api_key(workspace, name="first-4")
    assert "--name first-3)" in page()
    workspace.api_keys.filter(name="first").update(revoked_at=timezone.now())
    assert "--name first)" in page()


def test_the_home_page_costs_a_fixed_number_of_queries(alice_client, workspace, django_assert_max_num_queries):
    alice_client.get(workspace.get_absolute_url())
    with django_assert_max_num_queries(11):
        alice_client.get(workspace.get_absolute_url())


def test_an_unknown_address_has_a_page_of_ours(client, db):
    response = client.get("/nowhere/")
    assert response.status_code == 404
    assert "nothing at this address" in response.text


def test_a_refusal_names_the_role(bob_client, organization, workspace):
    response = bob_client.get(reverse("console:workspace_list", args=[organization.slug]))
    assert response.status_code == 403
    assert "Your role does not allow this" in response.text


def test_a_fault_shows_its_number_and_asks_nothing_of_the_database(alice_client, workspace, monkeypatch):
    def fail(*args):
        raise RuntimeError("a fault")

    monkeypatch.setattr("console.views.home.steps_of", fail)
    alice_client.raise_request_exception = False
    response = alice_client.get(workspace.get_absolute_url())
    assert response.status_code == 500
    assert response["x-request-id"] in response.text


@pytest.mark.parametrize("role", Member.Role.values)
def test_no_page_holds_inline_code_or_style(alice_client, alice, workspace, role):
    Member.objects.filter(user=alice).update(role=role)
    for name in ("home", "api_key_list", "api_key_create"):
        page = alice_client.get(reverse(f"console:{name}", args=[workspace.slug])).text
        for forbidden in (" style=", " onclick=", " onload=", "javascript:", "hx-on", "data:image", "<script>"):
            assert forbidden not in page
