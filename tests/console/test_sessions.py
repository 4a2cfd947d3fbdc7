import re
from urllib.parse import unquote

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from console.views import sessions
from tests import factories

SIGN_IN = "/signin/"


def sign_in(client, email="alice@example.org", password=factories.PASSWORD, **fields):
    return client.post(SIGN_IN, {"email": email, "password": password, **fields})


def test_a_page_sends_a_visitor_to_the_sign_in_and_back(workspace, alice, client):
    url = reverse("console:api_key_list", args=[workspace.slug])
    response = client.get(url)
    assert response.status_code == 302
    assert response.url == f"{SIGN_IN}?next={url}"
    assert sign_in(client, next=url).url == url


def test_the_address_is_found_in_whatever_case(alice, workspace, client):
    assert sign_in(client, " ALICE@Example.org ").status_code == 302
    assert client.get("/").url == workspace.get_absolute_url()


def test_a_wrong_password_is_said_and_opens_no_session(alice, client):
    response = sign_in(client, password="wrong")
    assert response.status_code == 422
    assert "do not match" in response.text
    assert client.get("/").url.startswith(SIGN_IN)


def test_after_a_wrong_password_the_cursor_stands_in_its_field(alice, client):
    def cursor(page):
        return re.findall(r'<input[^>]* name="(\w+)"[^>]* autofocus', page.text)

    assert cursor(client.get(SIGN_IN)) == ["email"]
    assert cursor(sign_in(client, password="wrong")) == ["password"]


def test_an_unknown_address_reads_the_same_as_a_wrong_password(alice, client):
    unknown = sign_in(client, "nobody@example.org").text
    assert "do not match" in unknown


def test_a_person_who_was_made_inactive_cannot_sign_in(alice, client):
    alice.is_active = False
    alice.save()
    assert sign_in(client).status_code == 422


def test_the_session_changes_its_id_at_sign_in(alice, client):
    client.cookies[settings.SESSION_COOKIE_NAME] = "planted"
    response = sign_in(client)
    assert response.cookies[settings.SESSION_COOKIE_NAME].value not in {"", "planted"}


@pytest.mark.parametrize(
    "wanted", ["https://evil.example", "//evil.example/x", "javascript:alert(1)", "/\\evil.example"]
)
def test_next_never_leaves_this_server(alice, client, wanted):
    assert sign_in(client, next=wanted).url == "/"


def test_signing_out_needs_a_post_and_ends_the_session(alice_client, workspace):
    assert alice_client.get("/signout/").status_code == 405
    assert alice_client.post("/signout/").url == SIGN_IN
    assert alice_client.get(workspace.get_absolute_url()).url.startswith(SIGN_IN)


def test_every_form_needs_the_token(alice):
    client = Client(enforce_csrf_checks=True)
    response = sign_in(client)
    assert response.status_code == 403
    assert "too old to be accepted" in response.text


def test_the_start_leads_to_the_workspace_used_last(alice_client, alice, organization, workspace):
    other = factories.make_workspace(organization=organization, name="other", slug="other")
    assert alice_client.get("/").url == workspace.get_absolute_url()
    alice_client.get(other.get_absolute_url())
    assert alice_client.get("/").url == other.get_absolute_url()


def test_a_person_without_a_workspace_is_told_so(alice, client):
    client.force_login(alice)
    response = client.get("/")
    assert response.status_code == 200
    assert "No workspace yet" in response.text


def test_a_workspace_one_may_no_longer_enter_is_not_the_start(charlie, workspace, client):
    charlie.last_workspace = workspace
    charlie.save()
    client.force_login(charlie)
    assert client.get("/").url == "/w/elsewhere/"


def test_a_fragment_of_an_ended_session_leads_the_whole_page_to_the_sign_in(workspace, client):
    here = reverse("console:api_key_list", args=[workspace.slug])
    headers = {"HX-Request": "true", "HX-Current-URL": f"http://testserver{here}?q=bot"}
    response = client.get(here, headers=headers)
    assert unquote(response["HX-Redirect"]) == f"{SIGN_IN}?next={here}?q=bot"


def test_no_page_is_kept_by_a_cache(alice_client, workspace):
    assert alice_client.get(workspace.get_absolute_url())["Cache-Control"] == "no-store"


def test_the_first_sign_in_says_where_the_password_was_printed(alice, client):
    assert "printed the owner" in client.get(SIGN_IN).text
    sign_in(client)
    assert "printed the owner" not in Client().get(SIGN_IN).text


def test_no_more_than_a_few_passwords_are_checked_at_a_time(client, alice, monkeypatch):
    monkeypatch.setattr(sessions, "LONGEST_QUEUE", 0.01)
    with sessions.CHECKS, sessions.CHECKS:
        answer = sign_in(client)
        assert answer.status_code == 503
        assert "Many people are signing in" in answer.text
    assert sign_in(client).status_code == 302
