"""Routes and alerts as people see them: services, pages, the command line."""

import re

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from console.models import AuditEvent
from console.revision import current_revision
from gateway.snapshot import load
from providers import routes, services
from providers.alerts import raise_alert
from providers.models import ModelRoute, ProviderAlert
from tests.factories import make_model, make_organization, make_provider

HTMX = {"HX-Request": "true"}
SPLIT = "Requests for “fast” are split: A 75.0%, B 25.0%. When one fails, another answers."


@pytest.fixture
def models(organization):
    first = make_provider(organization, name="First", credential="sk-first-0123456789")
    second = make_provider(organization, name="Second", credential="sk-second-0123456789")
    return make_model(first, "alpha"), make_model(second, "beta"), make_model(second, "gamma")


def url(name, *objects):
    return reverse(f"providers:{name}", args=["default", *(each.uid for each in objects)])


def make_route(organization, *models, name="fast", strategy="ordered", weights=None, actor=None):
    targets = list(zip(models, weights or [1] * len(models), strict=True))
    return routes.create_route(organization=organization, name=name, strategy=strategy, targets=targets, actor=actor)


def steps_of(route):
    return [(step.provider_model.public_name, step.weight) for step in route.targets.select_related("provider_model")]


def posted(name, *rows, strategy="ordered", **more):
    targets = [getattr(model, "uid", model) for model, _weight in rows]
    return {"name": name, "strategy": strategy, "target": targets, "weight": [weight for _, weight in rows]} | more


# Services --------------------------------------------------------------------------------------------------------


def test_a_route_is_what_the_gateway_asks_from_the_next_revision_on(alice, organization, models):
    before = current_revision()
    make_route(organization, *models[:2], strategy="weighted", weights=[3, 1], actor=alice)
    assert current_revision() > before
    route = load(0).routes[organization.pk]["fast"]
    assert [target.public_name for target in route.targets] == ["alpha", "beta"]
    assert route.weights == (3, 1)
    event = AuditEvent.objects.get(action="route.created")
    assert (event.actor, event.target_label) == (alice, "fast")
    assert event.details["targets"] == ["alpha (3)", "beta (1)"]


def test_a_route_may_bear_a_models_name_and_gives_it_back(organization, models):
    alpha, beta, _gamma = models
    route = make_route(organization, beta, name="alpha")
    assert load(0).routes[organization.pk]["alpha"].targets[0].upstream_name == "beta"
    routes.delete_route(route=route, actor=None)
    routes.delete_route(route=route, actor=None)
    assert load(0).routes[organization.pk]["alpha"].targets[0].upstream_name == "alpha"
    assert AuditEvent.objects.filter(action="route.deleted").count() == 1


def test_what_is_disabled_or_removed_is_left_out_and_without_any_the_name_is_unknown(organization, models):
    alpha, beta, gamma = models
    make_route(organization, alpha, beta, gamma)
    services.disable_model(model=beta, actor=None)
    services.disable_provider(provider=alpha.provider, actor=None)
    assert [target.public_name for target in load(0).routes[organization.pk]["fast"].targets] == ["gamma"]
    services.remove_model(model=gamma, actor=None)
    assert "fast" not in load(0).routes.get(organization.pk, {})


def test_a_change_says_what_was_and_what_is_and_none_says_nothing(organization, models):
    alpha, beta, gamma = models
    route = make_route(organization, alpha, beta)
    change = {"name": "quick", "strategy": "ordered", "targets": [(gamma, 1), (alpha, 1)], "actor": None}
    routes.update_route(route=route, **change)
    routes.update_route(route=route, **change)
    event = AuditEvent.objects.get(action="route.updated")
    assert event.details["before"]["targets"] == ["alpha", "beta"]
    assert event.details["after"] == {"name": "quick", "strategy": "ordered", "targets": ["gamma", "alpha"]}
    assert steps_of(route) == [("gamma", 1), ("alpha", 1)]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "two words"}, "name"),
        ({"name": "a\x07b"}, "name"),
        ({"name": "taken"}, "__all__"),
        ({"strategy": "best"}, "strategy"),
        ({"targets": []}, "targets"),
        ({"weights": [-1, 1]}, "targets"),
        ({"weights": [1001, 1]}, "targets"),
        ({"weights": [0, 0], "strategy": "weighted"}, "targets"),
    ],
)
def test_what_is_no_route_is_refused_and_leaves_nothing(organization, models, change, field):
    make_route(organization, models[0], name="taken")
    wanted = {"name": "fast", "strategy": "ordered", "weights": [1, 1]} | change
    targets = wanted.pop("targets", list(zip(models[:2], wanted.pop("weights"), strict=False)))
    wanted.pop("weights", None)
    with pytest.raises(ValidationError) as refused:
        routes.create_route(organization=organization, targets=targets, actor=None, **wanted)
    assert field in refused.value.message_dict
    assert ModelRoute.objects.count() == 1


def test_models_of_others_and_models_twice_are_refused(organization, models):
    foreign = make_model(make_provider(make_organization()), "foreign")
    for wrong in ([foreign], [models[0], models[0]]):
        with pytest.raises(ValidationError):
            make_route(organization, *wrong)
    with pytest.raises(ValidationError):
        make_route(organization, *(make_model(models[0].provider) for _ in range(11)))


@pytest.mark.parametrize(
    ("strategy", "targets", "sentence"),
    [
        ("ordered", [("A", 1)], "Requests for “fast” go to A."),
        ("ordered", [("A", 1), ("B", 1)], "Requests for “fast” go to A; when it fails, to B."),
        ("ordered", [("A", 1), ("B", 1), ("C", 1)], "Requests for “fast” go to A; when it fails, to B, then to C."),
        ("weighted", [("A", 3), ("B", 1)], SPLIT),
        ("weighted", [("A", 0), ("B", 0)], ""),
        ("ordered", [], ""),
    ],
)  # fmt: skip
def test_a_sentence_says_what_a_route_does(strategy, targets, sentence):
    assert routes.described("fast", strategy, targets) == sentence


# The command line ------------------------------------------------------------------------------------------------


def test_the_command_adds_a_route(organization, models, capsys):
    call_command("add_route", "--name", "fast", "--to", "beta", "--to", "alpha")
    route = ModelRoute.objects.get()
    assert capsys.readouterr().out.strip() == route.uid
    assert (route.strategy, steps_of(route)) == ("ordered", [("beta", 1), ("alpha", 1)])
    call_command("add_route", "--name", "split", "--to", "beta", "--weight", "9", "--to", "alpha", "--weight", "1")
    assert steps_of(ModelRoute.objects.get(name="split", strategy="weighted")) == [("beta", 9), ("alpha", 1)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--name", "fast", "--to", "unknown"],
        ["--name", "fast", "--to", "alpha", "--to", "beta", "--weight", "2"],
        ["--name", "no name", "--to", "alpha"],
        ["--name", "fast", "--to", "alpha", "--organization", "unknown"],
    ],
)
def test_the_command_refuses_what_is_no_route(models, arguments):
    with pytest.raises(CommandError):
        call_command("add_route", *arguments)
    assert not ModelRoute.objects.exists()


# Pages -----------------------------------------------------------------------------------------------------------


def test_routes_are_for_those_who_manage_the_organization(bob_client, charlie_client, client, organization, models):
    route = make_route(organization, *models)
    addresses = [url("route_list"), url("route_create"), url("route_edit", route), url("route_delete", route)]
    for address in [*addresses, url("alert_list")]:
        for method in ("get", "post"):
            if getattr(bob_client, method)(address).status_code == 405:
                continue
            assert getattr(bob_client, method)(address).status_code == 403, address
            assert getattr(charlie_client, method)(address).status_code == 404, address
            assert getattr(client, method)(address).status_code == 302, address
    assert ModelRoute.objects.filter(pk=route.pk).exists()


def test_a_route_of_another_organization_is_not_found(alice_client, organization):
    other = make_organization()
    route = make_route(other, make_model(make_provider(other)))
    for name in ("route_edit", "route_delete"):
        assert alice_client.get(url(name, route)).status_code == 404
        assert alice_client.post(url(name, route)).status_code == 404


def test_the_list_tells_where_each_name_leads(alice_client, organization, models):
    alpha, beta, gamma = models
    make_route(organization, alpha, beta, name="alpha")
    make_route(organization, beta, gamma, name="split", strategy="weighted", weights=[3, 1])
    make_route(organization, gamma, name="quiet")
    services.disable_model(model=gamma, actor=None)
    rows = re.findall(r"<tr>.*?</tr>", alice_client.get(url("route_list")).text, re.S)[1:]
    assert "Takes the place of the model of that name" in rows[0]
    assert rows[0].index("First") < rows[0].index("Second")
    assert "Nobody answers" in rows[1]
    assert "75.0%" in rows[2]
    assert "Disabled" in rows[2]
    assert "Active" in rows[2]


def test_an_empty_list_shows_the_command(alice_client, organization):
    assert "Go to the providers" in alice_client.get(url("route_list")).text
    make_model(make_provider(organization))
    assert "./comptoir manage add_route --name fast" in alice_client.get(url("route_list")).text


def test_the_list_costs_the_same_for_many(alice_client, organization):
    def cost():
        with CaptureQueriesContext(connection) as queries:
            assert alice_client.get(url("route_list")).status_code == 200
        return len(queries)

    make_route(organization, make_model(make_provider(organization)), name="first")
    few = cost()
    for number in range(8):
        made = [make_model(make_provider(organization)) for _ in range(3)]
        make_route(organization, *made, name=f"route-{number}")
    assert cost() == few <= 10


def test_a_route_is_made_changed_and_deleted(alice_client, organization, models):
    alpha, beta, gamma = models
    rows = [(alpha, "1"), ("", "1"), (beta, "1")]
    assert alice_client.post(url("route_create"), posted("fast", *rows)).status_code == 302
    route = ModelRoute.objects.get()
    assert steps_of(route) == [("alpha", 1), ("beta", 1)]
    page = alice_client.get(url("route_edit", route)).text
    assert page.count('name="target"') == 2
    assert "when it fails, to beta (Second)." in page
    changed = posted("quick", (gamma, "9"), (alpha, "1"), strategy="weighted")
    answer = alice_client.post(url("route_edit", route), changed, headers=HTMX)
    assert answer["HX-Trigger"] == "routes-changed"
    route.refresh_from_db()
    assert (route.name, steps_of(route)) == ("quick", [("gamma", 9), ("alpha", 1)])
    assert "quick" in alice_client.get(url("route_delete", route)).text
    assert alice_client.post(url("route_delete", route)).status_code == 302
    assert not ModelRoute.objects.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "two words"}, "has no spaces"),
        ({"name": "taken"}, "already has that name"),
        ({"target": ["", ""]}, "Choose at least one model."),
        ({"target": ["model_unknown", ""]}, "not available any more"),
        ({"weight": ["many", "1"]}, "A weight is a whole number"),
        ({"weight": ["0", "0"], "strategy": "weighted"}, "must be more than 0"),
        ({"strategy": ""}, "required"),
    ],
)
def test_a_form_that_is_wrong_says_where_and_keeps_what_was_typed(alice_client, organization, models, change, said):
    make_route(organization, models[0], name="taken")
    typed = posted("fast", (models[0], "1"), (models[1], "1")) | change
    answer = alice_client.post(url("route_create"), typed)
    assert answer.status_code == 422
    assert said in answer.text
    assert f'value="{typed["name"]}"' in answer.text
    assert ModelRoute.objects.count() == 1


def chosen(text):
    """The models that are selected, row by row."""
    rows = re.findall(r"<select.*?</select>", text, re.S)
    return [re.findall(r'<option value="[^"]+" selected>([^<]*)<', row) for row in rows]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("up:1", [["beta"], ["alpha"], ["gamma"]]),
        ("down:1", [["alpha"], ["gamma"], ["beta"]]),
        ("remove:0", [["beta"], ["gamma"]]),
        ("add", [["alpha"], ["beta"], ["gamma"], []]),
        ("up:0", [["alpha"], ["beta"], ["gamma"]]),
        ("up:99", [["alpha"], ["beta"], ["gamma"]]),
        ("nonsense:x", [["alpha"], ["beta"], ["gamma"]]),
    ],
)
def test_rows_are_moved_added_and_taken_out_by_buttons(alice_client, models, how, expected):
    rows = [(model, "1") for model in models]
    answer = alice_client.post(url("route_create"), posted("two words", *rows, arrange=how))
    assert answer.status_code == 200
    whose = {"alpha": "alpha (First)", "beta": "beta (Second)", "gamma": "gamma (Second)"}
    assert chosen(answer.text) == [[whose[name] for name in row] for row in expected]
    assert "has no spaces" not in answer.text
    assert not ModelRoute.objects.exists()


def test_the_preview_follows_what_is_typed(alice_client, models):
    rows = [(models[1], "1"), (models[0], "3")]
    answer = alice_client.post(url("route_create"), posted("gamma", *rows, arrange="preview"), headers=HTMX)
    assert "<form" not in answer.text
    assert "go to beta (Second); when it fails, to alpha (First)." in answer.text
    assert "the route takes its place" in answer.text


# Alerts ----------------------------------------------------------------------------------------------------------


def refuse(provider, count=14):
    raise_alert(provider_id=provider.pk, kind=ProviderAlert.Kind.CREDENTIAL, message="Wrong key.", count=count)


def test_an_alert_stands_where_an_administrator_looks_until_another_credential_is_set(alice_client, alice, models):
    provider, other = models[0].provider, models[1].provider
    refuse(provider)
    places = [url("provider_list"), url("provider_detail", provider)]
    for place in places:
        text = alice_client.get(place).text
        assert "First has refused the key of this server since" in text
        assert "14 requests have met that." in text
        assert url("provider_credential", provider) in text
    assert "has refused" in alice_client.get(url("alert_list"), headers=HTMX).text
    assert "has refused" not in alice_client.get(url("provider_detail", other)).text
    services.set_credential(provider=provider, credential="sk-another-0123456789", actor=alice)
    for place in places:
        assert "has refused" not in alice_client.get(place).text
    assert "hidden" in alice_client.get(url("alert_list"), headers=HTMX).text


def test_the_home_page_asks_for_alerts_for_those_who_may_see_them(alice_client, bob_client, models):
    refuse(models[0].provider)
    home = reverse("console:home", args=["default"])
    assert url("alert_list") in alice_client.get(home).text
    assert url("alert_list") not in bob_client.get(home).text
    assert "has refused" not in bob_client.get(home).text


def test_a_disabled_provider_alerts_nobody(alice_client, alice, models):
    refuse(models[0].provider)
    services.disable_provider(provider=models[0].provider, actor=alice)
    assert "has refused" not in alice_client.get(url("provider_list")).text


def test_an_alert_is_gone_once_a_provider_is_enabled_again_or_has_another_address(alice, models):
    provider = models[0].provider
    is_open = ProviderAlert.objects.filter(resolved_at=None)
    same = {"name": provider.name, "base_url": provider.base_url}
    refuse(provider)
    services.disable_provider(provider=provider, actor=alice)
    services.enable_provider(provider=provider, actor=alice)
    assert not is_open.exists()
    refuse(provider)
    # Another name mends nothing, and more patience no account.
    before = provider.renewed_at
    services.update_provider(provider=provider, **same | {"name": "Other"}, actor=alice)
    assert provider.renewed_at == before
    services.update_provider(provider=provider, **same, idle_timeout_s=30, actor=alice)
    assert provider.renewed_at > before
    assert is_open.exists()
    services.update_provider(provider=provider, **same | {"base_url": f"{provider.base_url}/eu"}, actor=alice)
    assert not is_open.exists()


def test_an_alert_counts_on_and_is_told_once_in_the_audit_log(models):
    provider = models[0].provider
    refuse(provider, 1)
    refuse(provider, 2)
    alert = ProviderAlert.objects.get()
    assert (alert.count, alert.resolved_at) == (3, None)
    assert AuditEvent.objects.filter(action="provider.alerted").count() == 1
    services.delete_provider(provider=provider, actor=None)
    ProviderAlert.objects.update(resolved_at=timezone.now())
    refuse(provider)
    assert ProviderAlert.objects.count() == 1
