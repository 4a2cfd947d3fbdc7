from django.conf import settings
from django.test import Client

PREFERENCES = "/preferences/"


def test_a_theme_is_kept_and_put_on_every_page(alice_client, alice, workspace):
    home = workspace.get_absolute_url()
    assert "data-theme" not in alice_client.get(home).text
    assert alice_client.post(PREFERENCES, {"theme": "dark", "next": home}).url == home
    assert 'data-theme="dark"' in alice_client.get(home).text


def test_htmx_gets_no_content_for_a_theme(alice_client, workspace):
    response = alice_client.post(PREFERENCES, {"theme": "light"}, headers={"HX-Request": "true"})
    assert response.status_code == 204


def test_the_language_of_the_profile_goes_before_the_browsers(alice_client, alice, workspace):
    alice_client.post(PREFERENCES, {"language": "fr"})
    alice.refresh_from_db()
    assert alice.language == "fr"
    response = alice_client.get(workspace.get_absolute_url(), headers={"Accept-Language": "es"})
    assert response["Content-Language"] == "fr"
    assert '<html lang="fr"' in response.text


def test_a_visitors_language_is_kept_in_a_cookie(db):
    client = Client()
    response = client.post(PREFERENCES, {"language": "es", "next": "/signin/"})
    assert response.url == "/signin/"
    assert response.cookies[settings.LANGUAGE_COOKIE_NAME].value == "es"
    assert client.get("/signin/")["Content-Language"] == "es"


def test_the_browser_decides_where_nothing_was_chosen(client, db):
    assert client.get("/signin/", headers={"Accept-Language": "fr-CA, en;q=0.5"})["Content-Language"] == "fr"
    assert client.get("/signin/", headers={"Accept-Language": "de"})["Content-Language"] == "en"


def test_what_is_not_offered_is_refused(alice_client, alice, workspace):
    assert alice_client.post(PREFERENCES, {"theme": "neon"}).status_code == 422
    assert alice_client.post(PREFERENCES, {"language": "xx"}).status_code == 422
    alice.refresh_from_db()
    assert (alice.theme, alice.language) == ("system", "")


def test_the_way_back_never_leaves_this_server(alice_client, workspace):
    assert alice_client.post(PREFERENCES, {"theme": "dark", "next": "https://evil.example/"}).url == "/"
