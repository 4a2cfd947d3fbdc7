"""Setting limits by the minute: services, groups, tiers and commands."""

import datetime
import io
import tomllib

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import timezone

from console.models import AuditEvent
from console.revision import current_revision
from providers.models import ModelRoute
from tests.factories import make_api_key, make_model, make_organization, make_provider, make_request_log, make_workspace
from tests.gateway.records import closed, opened
from usage import rate_limits, rate_queries
from usage.models import GatewayProcess, ModelGroup, RateLimit, Scope, SpendLimit, TierPlace, UsageTier
from usage.processes import count_living
from usage.rate_limits import (
    current_rules,
    install_presets,
    is_binding,
    promote_organizations,
    put_on_tier,
    remove_model_group,
    remove_rate_limit,
    rules_over,
    set_model_group,
    set_rate_limit,
    set_rule,
    set_tier,
    take_off_tier,
)
from usage.records import Record, write_batch
from usage.rollups import rebuild_rollups
from usage.spend_limits import remove_spend_limit, set_spend_limit

pytestmark = pytest.mark.django_db
EURO = 10**9


def limit(organization, scope=Scope.ORGANIZATION, scope_id=None, **figures):
    return set_rate_limit(organization=organization, scope=scope, scope_id=scope_id or organization.pk, **figures)


def of_workspace(workspace, **figures):
    return limit(workspace.organization, Scope.WORKSPACE, workspace.pk, **figures)


def command(name, *arguments):
    out = io.StringIO()
    call_command(name, *arguments, stdout=out)
    return out.getvalue().strip()


# Limits ----------------------------------------------------------------------------------------------------------


def test_a_change_is_audited_and_known_to_every_process(organization, alice):
    before = current_revision()
    first = limit(organization, requests_per_minute=60, actor=alice)
    second = limit(organization, output_tokens_per_minute=1000, actor=alice)
    assert second == first
    assert (second.requests_per_minute, second.output_tokens_per_minute) == (60, 1000)
    assert current_revision() > before
    event = AuditEvent.objects.filter(action="rate_limit.changed").get()
    assert event.target_uid == first.uid
    assert event.details["before"]["output_tokens_per_minute"] is None
    assert event.details["after"]["output_tokens_per_minute"] == 1000

    remove_rate_limit(limit=second, actor=alice)
    assert not RateLimit.objects.exists()
    assert AuditEvent.objects.filter(action="rate_limit.removed").exists()


def test_a_figure_can_be_lifted_and_the_last_one_cannot(organization):
    limit(organization, requests_per_minute=60, concurrent_requests=3)
    assert limit(organization, requests_per_minute=None).requests_per_minute is None
    with pytest.raises(ValidationError):
        limit(organization, concurrent_requests=None)


@pytest.mark.parametrize("figure", [-1, 10**13])
def test_what_is_no_figure_is_refused(organization, figure):
    with pytest.raises(ValidationError) as refused:
        limit(organization, requests_per_minute=figure)
    assert "requests_per_minute" in refused.value.message_dict


def test_a_workspace_can_only_tighten_what_its_organization_has(workspace):
    limit(workspace.organization, requests_per_minute=60)
    with pytest.raises(ValidationError) as refused:
        of_workspace(workspace, requests_per_minute=61)
    assert "60" in refused.value.message_dict["requests_per_minute"][0]
    with pytest.raises(ValidationError):
        of_workspace(workspace, model="gpt-test", requests_per_minute=61)
    of_workspace(workspace, requests_per_minute=60, input_tokens_per_minute=5)
    of_workspace(workspace, model="gpt-test", requests_per_minute=10)


def test_a_key_can_only_tighten_what_its_workspace_and_organization_have(workspace):
    key = make_api_key(workspace)
    limit(workspace.organization, input_tokens_per_minute=5000)
    of_workspace(workspace, requests_per_minute=30)
    for figures in ({"requests_per_minute": 31}, {"input_tokens_per_minute": 5001}):
        with pytest.raises(ValidationError):
            limit(workspace.organization, Scope.API_KEY, key.pk, **figures)
    limit(workspace.organization, Scope.API_KEY, key.pk, requests_per_minute=30, output_tokens_per_minute=10**9)


def test_a_limit_of_one_model_says_nothing_of_another(workspace):
    limit(workspace.organization, model="gpt-test", requests_per_minute=5)
    of_workspace(workspace, requests_per_minute=100)
    of_workspace(workspace, model="claude-test", requests_per_minute=100)
    with pytest.raises(ValidationError):
        of_workspace(workspace, model="gpt-test", requests_per_minute=6)


def test_a_limit_that_was_lowered_above_leaves_the_one_below_without_effect(workspace):
    limit(workspace.organization, requests_per_minute=60)
    below = of_workspace(workspace, requests_per_minute=30)
    assert is_binding(below, "requests_per_minute", rules_over(below))
    limit(workspace.organization, requests_per_minute=20)
    assert not is_binding(below, "requests_per_minute", rules_over(below))
    assert not is_binding(below, "input_tokens_per_minute", rules_over(below))


def test_what_is_of_somebody_else_cannot_be_limited(organization, workspace):
    stranger = make_workspace()
    with pytest.raises(ValidationError):
        limit(organization, Scope.WORKSPACE, stranger.pk, requests_per_minute=1)
    with pytest.raises(ValidationError):
        limit(organization, Scope.API_KEY, make_api_key(stranger).pk, requests_per_minute=1)
    with pytest.raises(ValidationError):
        limit(organization, scope_id=stranger.organization_id, requests_per_minute=1)
    group = set_model_group(organization=stranger.organization, name="theirs", patterns=["*"])
    with pytest.raises(ValidationError):
        limit(organization, group=group, requests_per_minute=1)


def test_a_group_covers_what_its_patterns_match(organization):
    group = set_model_group(organization=organization, name="small", patterns=["gpt-*-mini", "haiku"])
    limit(organization, group=group, requests_per_minute=5)
    limit(organization, model="odd[1]*", requests_per_minute=1)
    rules = current_rules(organization)["organization", organization.pk]
    assert [rule.covers(["gpt-5-mini"]) for rule in rules] == [True, False]
    assert [rule.covers(["gpt-5"]) for rule in rules] == [False, False]
    assert [rule.covers(["alias", "haiku"]) for rule in rules] == [True, False]
    assert [rule.covers(["odd[1]*"]) for rule in rules] == [False, True]
    assert [rule.covers(["odd1x"]) for rule in rules] == [False, False]
    remove_model_group(group=group)
    assert len(current_rules(organization)["organization", organization.pk]) == 1


def test_the_rules_of_all_cost_two_queries(workspace, django_assert_num_queries):
    for number in range(3):
        group = set_model_group(organization=workspace.organization, name=f"g{number}", patterns=["a"])
        of_workspace(workspace, group=group, requests_per_minute=5)
        key = make_api_key(workspace)
        of_key = limit(workspace.organization, Scope.API_KEY, key.pk, requests_per_minute=1 + number)
        put_on_tier(organization=make_organization(), tier=tier("s", 1))
    with django_assert_num_queries(2):
        rules = current_rules()
    assert len(rules["workspace", workspace.pk]) == 3
    assert {rule.name for rule in rules["workspace", workspace.pk]} == {workspace.name}
    assert [rule.name for rule in rules["api_key", of_key.scope_id]] == [key.name]


# Tiers -----------------------------------------------------------------------------------------------------------


def tier(slug, step, cap=None, rpm=10, **rule):
    rates = [{"requests_per_minute": rpm}]
    return set_tier(ladder="l", step=step, slug=slug, name=slug, rates=rates, monthly_cap_nanos=cap, **rule)


def cap_of(organization):
    found = SpendLimit.objects.filter(organization=organization, scope="organization", period="month").first()
    return found and found.amount_nanos


def spend(workspace, cost):
    write_batch([Record(opened(workspace)[1], closed(cost_nanos=cost))])


def test_the_published_tiers_are_ready(organization):
    install_presets()
    install_presets()
    assert list(UsageTier.objects.filter(ladder="claude").values_list("name", "monthly_cap_nanos")) == [
        ("Claude Start", 500 * EURO),
        ("Claude Build", 1_000 * EURO),
        ("Claude Scale", 200_000 * EURO),
    ]
    put_on_tier(organization=organization, tier=UsageTier.objects.get(slug="claude-start"))
    rules = current_rules(organization)["organization", organization.pk]
    for model, requests, tokens in (
        ("claude-fable-5-1", 1000, 500_000),
        ("claude-opus-5-5", 1000, 2_000_000),
        ("claude-sonnet-4-6", 1000, 2_000_000),
        ("claude-sonnet-5-20260925", 1000, 2_000_000),
    ):
        found = [rule for rule in rules if rule.covers([model])]
        assert [(rule.requests, rule.input_tokens) for rule in found] == [(requests, tokens)], model
    put_on_tier(organization=organization, tier=UsageTier.objects.get(slug="ikalas-standard"))
    assert [rule.requests for rule in current_rules(organization)["organization", organization.pk]] == [60]


def test_every_preset_says_where_it_is_from_and_when_that_was_looked_at():
    for ladder in tomllib.loads(rate_limits.PRESETS.read_text()).values():
        assert ladder["source"]
        assert isinstance(ladder["checked"], datetime.date)
        assert ladder["steps"]


def test_a_rule_that_somebody_set_survives_a_new_version_of_the_presets():
    install_presets()
    set_rule(tier=UsageTier.objects.get(slug="claude-build"), after_spent_nanos=100 * EURO, after_days=7)
    install_presets()
    assert UsageTier.objects.get(slug="claude-build").after_days == 7


def test_a_tier_brings_its_cap_and_takes_it_along(organization):
    put_on_tier(organization=organization, tier=tier("one", 1, cap=5 * EURO))
    assert cap_of(organization) == 5 * EURO
    put_on_tier(organization=organization, tier=tier("two", 2, cap=9 * EURO))
    assert cap_of(organization) == 9 * EURO
    take_off_tier(organization=organization)
    assert cap_of(organization) is None
    assert not TierPlace.objects.exists()


def test_a_higher_cap_leaves_models_without_a_price_allowed(organization):
    month = {"scope": Scope.ORGANIZATION, "scope_id": organization.pk, "period": "month"}
    put_on_tier(organization=organization, tier=tier("one", 1, cap=5 * EURO))
    assert not SpendLimit.objects.get().allows_unpriced
    set_spend_limit(organization=organization, amount_nanos=5 * EURO, allows_unpriced=True, thresholds=[7], **month)
    put_on_tier(organization=organization, tier=tier("two", 2, cap=9 * EURO))
    limit = SpendLimit.objects.get()
    assert (limit.amount_nanos, limit.allows_unpriced, limit.thresholds) == (9 * EURO, True, [7])


def test_a_lower_limit_of_one_s_own_stays_whatever_the_tier(organization):
    month = {"scope": Scope.ORGANIZATION, "scope_id": organization.pk, "period": "month"}
    set_spend_limit(organization=organization, amount_nanos=2 * EURO, **month)
    put_on_tier(organization=organization, tier=tier("one", 1, cap=5 * EURO))
    put_on_tier(organization=organization, tier=tier("two", 2, cap=9 * EURO))
    assert cap_of(organization) == 2 * EURO
    take_off_tier(organization=organization)
    assert cap_of(organization) == 2 * EURO


def test_a_higher_limit_of_one_s_own_is_brought_down_to_the_cap(organization):
    month = {"scope": Scope.ORGANIZATION, "scope_id": organization.pk, "period": "month"}
    set_spend_limit(organization=organization, amount_nanos=20 * EURO, **month)
    put_on_tier(organization=organization, tier=tier("one", 1, cap=5 * EURO))
    assert cap_of(organization) == 5 * EURO


def test_a_tier_s_cap_can_be_lowered_and_neither_passed_nor_softened(organization):
    month = {"scope": Scope.ORGANIZATION, "scope_id": organization.pk, "period": "month"}
    put_on_tier(organization=organization, tier=tier("one", 1, cap=5 * EURO))
    for wrong in ({"amount_nanos": 6 * EURO}, {"amount_nanos": 4 * EURO, "is_hard": False}):
        with pytest.raises(ValidationError, match="5"):
            set_spend_limit(organization=organization, **month, **wrong)
    own = set_spend_limit(organization=organization, amount_nanos=4 * EURO, **month)
    remove_spend_limit(limit=own)
    assert cap_of(organization) == 5 * EURO
    set_spend_limit(organization=organization, amount_nanos=6 * EURO, **month | {"period": "day"})
    take_off_tier(organization=organization)
    assert cap_of(organization) is None


def test_an_organization_rises_once_it_has_spent_enough_for_long_enough(organization, workspace):
    first = tier("one", 1)
    tier("two", 2, rpm=20, after_spent_nanos=100, after_days=7)
    tier("three", 3, rpm=30)
    put_on_tier(organization=organization, tier=first)
    assert promote_organizations() == []
    spend(workspace, 99)
    make_request_log(workspace, started_at=timezone.now() - datetime.timedelta(days=8), cost_nanos=0)
    rebuild_rollups()
    assert promote_organizations() == []
    spend(workspace, 1)
    assert [place.tier.slug for place in promote_organizations()] == ["two"]
    assert [rule.requests for rule in current_rules(organization)["organization", organization.pk]] == [20]
    event = AuditEvent.objects.filter(action="tier.changed").latest("pk")
    assert (event.details["before"], event.details["after"], event.actor) == ("one", "two", None)
    # Nobody rises to a step without a rule, and nobody is moved down.
    assert promote_organizations() == []


def test_days_count_from_the_first_request(organization, workspace):
    tier("two", 2, after_spent_nanos=1, after_days=7)
    put_on_tier(organization=organization, tier=tier("one", 1))
    spend(workspace, 1)
    assert promote_organizations() == []
    assert promote_organizations(timezone.now() + datetime.timedelta(days=8))


@pytest.mark.parametrize("rates", [[{}], [{"models": ["a"]}], [{"requests_per_minute": -1}], [{"rpm": 3}]])
def test_rates_of_a_tier_that_are_none_are_refused(rates):
    with pytest.raises(ValidationError):
        set_tier(ladder="l", step=1, slug="s", name="S", rates=rates)


# Commands --------------------------------------------------------------------------------------------------------


def test_the_command_sets_changes_and_removes(workspace):
    key = make_api_key(workspace, name="ci")
    uid = command("set_rate_limit", "--organization", "--rpm", "60", "--input-tpm", "10,000")
    assert RateLimit.objects.get(uid=uid).input_tokens_per_minute == 10_000
    assert command("set_rate_limit", "--organization", "--output-tpm", "500", "--concurrent", "4") == uid
    found = RateLimit.objects.get(uid=uid)
    assert (found.requests_per_minute, found.output_tokens_per_minute, found.concurrent_requests) == (60, 500, 4)
    of_key = command("set_rate_limit", "--key", "ci", "--model", "gpt-test", "--rpm", "5")
    assert RateLimit.objects.get(uid=of_key).scope_id == key.pk
    with pytest.raises(CommandError, match="no such limit"):
        command("set_rate_limit", "--key", "ci", "--remove")
    assert command("set_rate_limit", "--key", "ci", "--model", "gpt-test", "--remove") == ""
    assert not RateLimit.objects.filter(uid=of_key).exists()


def test_the_command_warns_of_a_model_that_nobody_can_ask_for(organization, workspace):
    make_model(make_provider(organization), public_name="known")
    ModelRoute.objects.create(organization=organization, name="aliased")
    assert rate_queries.model_names(organization) == ["aliased", "known"]
    for name, is_warned in (("known", False), ("aliased", False), ("nonexist", True)):
        told = io.StringIO()
        call_command(
            "set_rate_limit", "--organization", "--model", name, "--rpm", "5", stdout=io.StringIO(), stderr=told
        )
        assert ("No model or route is called 'nonexist'" in told.getvalue()) == is_warned


def test_the_command_warns_of_patterns_that_match_no_model(organization):
    make_model(make_provider(organization), public_name="gpt-5-mini")
    ModelRoute.objects.create(organization=organization, name="small[1]")
    make_model(make_provider(make_organization()), public_name="theirs-mini")
    patterns = ["gpt-*", "small[[]1]", "gpt-6*", "theirs-*", "*"]
    told, out = io.StringIO(), io.StringIO()
    arguments = [word for pattern in patterns for word in ("--model", pattern)]
    call_command("set_model_group", "--organization", "default", "--name", "small", *arguments, stdout=out, stderr=told)
    assert out.getvalue().strip() == ModelGroup.objects.get().uid
    assert [line.split("'")[1] for line in told.getvalue().splitlines()] == ["gpt-6*", "theirs-*"]


def test_the_command_names_the_figure_that_is_wrong(workspace):
    command("set_rate_limit", "--organization", "--rpm", "60")
    with pytest.raises(CommandError, match=r"--rpm: .*60"):
        command("set_rate_limit", "--workspace", "default", "--rpm", "90")
    with pytest.raises(CommandError, match="at least one figure"):
        command("set_rate_limit", "--workspace", "default")
    with pytest.raises(CommandError, match="no group"):
        command("set_rate_limit", "--workspace", "default", "--group", "none", "--rpm", "1")


def test_groups_and_tiers_have_commands(organization):
    command("set_model_group", "--organization", "--name", "small", "--model", "gpt-*-mini", "--model", "haiku")
    assert ModelGroup.objects.get().patterns == ["gpt-*-mini", "haiku"]
    command("set_rate_limit", "--organization", "--group", "small", "--rpm", "5")
    command("set_model_group", "--organization", "--name", "small", "--remove")
    assert not RateLimit.objects.exists()
    assert command("set_usage_tier", "--organization", "--tier", "ikalas-standard") == "ikalas-standard"
    assert TierPlace.objects.get().tier.slug == "ikalas-standard"
    bronze = ["--slug", "bronze", "--name", "Bronze", "--ladder", "own", "--step", "1", "--monthly-cap", "5"]
    assert command("define_tier", *bronze, "--rates", '[{"requests_per_minute": 6}]') == "bronze"
    for wrong in ("6", "[6]", "[{}]", "{"):
        with pytest.raises(CommandError):
            command("define_tier", *bronze, "--rates", wrong)
    command("set_usage_tier", "--organization", "--tier", "bronze")
    assert cap_of(organization) == 5 * EURO
    with pytest.raises(CommandError, match="claude-start, claude-build"):
        command("set_usage_tier", "--organization", "--tier", "gold")
    command("set_tier_rule", "--tier", "claude-build", "--after-spent", "100", "--after-days", "7")
    assert UsageTier.objects.get(slug="claude-build").after_spent_nanos == 100 * EURO
    command("set_tier_rule", "--tier", "claude-build", "--never")
    assert not UsageTier.objects.get(slug="claude-build").is_reached_by_rule
    command("set_usage_tier", "--organization", "--remove")
    assert not TierPlace.objects.exists()


# Processes -------------------------------------------------------------------------------------------------------


def test_processes_are_counted_while_they_live():
    assert count_living(uid="one", host="here", pid=1) == 1
    assert count_living(uid="two", host="there", pid=999_999_999) == 2
    # Of the machine on which the looker runs, the pid itself says.
    assert count_living(uid="three", host="there", pid=1) == 2
    GatewayProcess.objects.filter(uid="one").update(seen_at=timezone.now() - datetime.timedelta(minutes=2))
    assert count_living(uid="three", host="there", pid=1) == 1
