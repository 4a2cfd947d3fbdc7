"""The pages of limits: what they show and to whom, what a change would do, and asking for more."""

import datetime
import html
import re
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from console.models import AuditEvent, Member, Revision
from providers.exchange_rates import set_exchange_rate
from tests import factories
from tests.books import ledger_differences
from tests.conftest import signed_in
from tests.factories import make_api_key, make_model, make_price, make_provider, make_workspace
from tests.gateway.records import closed, opened
from usage import increases, ledger, limit_queries
from usage.calendar import calendar_of, first_instant
from usage.models import (
    GatewayProcess,
    LedgerPeriod,
    LimitIncrease,
    ModelGroup,
    RateLimit,
    SpendLease,
    SpendLimit,
    TierPlace,
    UsageTier,
)
from usage.processes import TOLD, delete_old
from usage.rate_limits import put_on_tier, set_model_group, set_rate_limit, set_tier
from usage.records import Record, write_batch
from usage.spend_limits import set_spend_limit

DOLLAR = 10**9
HTMX = {"HX-Request": "true"}


def url(name, workspace, *args):
    return reverse(f"usage:{name}", args=[workspace.slug, *args])


def limit(thing, dollars, period="month", **fields):
    """A limit of an organization, a workspace, a key or a user."""
    subject = limit_queries.Subject.of(thing)
    organization = fields.pop("organization", None) or (subject.workspace.organization if subject.workspace else thing)
    return set_spend_limit(
        organization=organization,
        scope=subject.scope,
        scope_id=subject.scope_id,
        period=period,
        amount_nanos=round(dollars * DOLLAR),
        **fields,
    )


def spend(thing, organization, dollars, day):
    """Enter into the ledger what a scope spent on a day of its organization."""
    subject, calendar = limit_queries.Subject.of(thing), calendar_of(organization.time_zone)
    moment = first_instant(day, calendar.zone)
    for period in ("day", "week", "month"):
        start, end = calendar.interval(period, moment)
        book, _ = LedgerPeriod.objects.get_or_create(
            organization=organization,
            scope=subject.scope,
            scope_id=subject.scope_id,
            period=period,
            start=start,
            defaults={"end": end},
        )
        book.settled_nanos += round(dollars * DOLLAR)
        book.save()


def today(organization):
    return timezone.now().astimezone(ZoneInfo(organization.time_zone)).date()


def days_ago(organization, days):
    return today(organization) - datetime.timedelta(days=days)


def at(*parts):
    return datetime.datetime(*parts, tzinfo=datetime.UTC)


def words(html):
    """The text of a page, its white space as single blanks."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def ask(spend_limit, user, dollars=5, days=3, reason="load test"):
    until = timezone.now() + datetime.timedelta(days=days)
    return increases.request_increase(
        limit=spend_limit, amount_nanos=dollars * DOLLAR, until=until, reason=reason, requested_by=user
    )


# How limits stand --------------------------------------------------------------------------------------------------


def test_a_page_without_limits_teaches_the_command(alice_client, bob_client, workspace, settings):
    command = "./comptoir manage set_spend_limit --workspace default --period month --amount 50"
    assert command in alice_client.get(url("limit_list", workspace)).text
    settings.DATA_DIR = settings.BASE_DIR / "var"
    page = alice_client.get(url("limit_list", workspace)).text
    assert f"<code>{command}</code>" in page
    settings.DATA_DIR = Path("/srv/my data")
    page = html.unescape(alice_client.get(url("limit_list", workspace)).text)
    assert f"<code>COMPTOIR_DATA='/srv/my data' {command}</code>" in page
    assert "COMPTOIR_DATA='/srv/my data' ./comptoir" in html.unescape(
        alice_client.get(workspace.get_absolute_url()).text
    )
    page = bob_client.get(url("limit_list", workspace)).text
    assert "An administrator sets limits." in page
    assert command not in page


def test_a_scope_shows_its_own_limits_and_those_above(alice_client, workspace, organization, alice, bob):
    key, other = make_api_key(workspace, name="mine", created_by=bob), make_api_key(workspace, name="other")
    elsewhere = make_workspace(organization=organization, name="elsewhere")
    limits = {
        "organization": limit(organization, 10),
        "workspace": limit(workspace, 20),
        "key": limit(key, 30),
        "other": limit(other, 40),
        "elsewhere": limit(elsewhere, 50),
        "bob": limit(bob, 60, organization=organization),
    }

    def shown(name, *args):
        page = alice_client.get(url(name, workspace, *args)).text
        applying, _, beneath = page.partition('id="beneath-title"')
        return (
            {name for name, found in limits.items() if f'id="{found.uid}"' in applying},
            {name for name, found in limits.items() if f'id="{found.uid}"' in beneath},
        )

    assert shown("limit_list") == ({"organization", "workspace"}, {"key", "other", "bob"})
    assert shown("limit_organization") == ({"organization"}, {"workspace", "elsewhere", "bob"})
    assert shown("limit_key", key.uid) == ({"organization", "workspace", "bob", "key"}, set())
    assert shown("limit_member", bob.uid) == ({"organization", "workspace", "bob"}, set())


def test_a_limit_of_some_cents_is_written_as_finely_as_requests_are(alice_client, workspace, organization, alice):
    found = limit(workspace, 0.02)
    spend(workspace, organization, 0.0156, today(organization))
    for address in (url("limit_list", workspace), url("limit_ledger", workspace, found.uid)):
        assert "$0.0156 settled, $0.00 set aside, $0.0044 left of $0.0200" in alice_client.get(address).text
    assert "Settled so far $0.0156 " in words(alice_client.get(url("increase_create", workspace, found.uid)).text)


def test_the_ledger_is_reached_by_its_name(alice_client, workspace):
    address = url("limit_ledger", workspace, limit(workspace, 10).uid)
    link = f'<a href="{address}" aria-label="Ledger: default, Workspace, each month">Ledger</a>'
    assert link in alice_client.get(url("limit_list", workspace)).text
    assert link not in alice_client.get(address).text


def test_a_process_that_owes_holds_nothing(alice_client, workspace, organization):
    limit(workspace, 10)
    spend(workspace, organization, 6, today(organization))
    LedgerPeriod.objects.filter(scope="workspace").update(leased_nanos=-2 * DOLLAR)
    page = alice_client.get(url("limit_list", workspace)).text
    assert "$6.00 settled, $0.00 set aside, $4.00 left of $10.00" in page
    assert '<rect class="held" x="60.00%" width="0.00%"' in page


def test_a_line_says_what_is_settled_held_and_left(alice_client, workspace, organization, alice):
    month = limit(workspace, 100, actor=alice, thresholds=[50, 90])
    spend(workspace, organization, 60, today(organization))
    LedgerPeriod.objects.filter(scope="workspace", period="month").update(leased_nanos=5 * DOLLAR)

    page = alice_client.get(url("limit_list", workspace)).text

    assert 'aria-label="default: $60.00 settled, $5.00 set aside, $35.00 left of $100.00"' in page
    assert '<rect class="settled" width="60.00%"' in page
    assert '<rect class="held" x="60.00%" width="5.00%"' in page
    text = words(page)
    assert "Set by Alice, just now" in text
    assert "Tells at 50%, 90%" in text
    _start, end = calendar_of("UTC").interval("month", timezone.now())
    assert f"Refills {end:1 %b %Y}, 00:00" in text
    assert month.uid in page


def test_the_hard_limit_with_the_least_left_binds(alice_client, workspace, organization):
    roomy, tight = limit(organization, 100), limit(workspace, 90)
    soft = limit(workspace, 1, "day", is_hard=False)
    page = alice_client.get(url("limit_list", workspace)).text
    lines = {line.split('"')[0]: line for line in page.split('<article class="limit" id="')[1:]}
    assert [uid for uid in (roomy.uid, tight.uid, soft.uid) if "Binds" in lines[uid]] == [tight.uid]
    spend(organization, organization, 20, today(organization))
    page = alice_client.get(url("limit_list", workspace)).text
    lines = {line.split('"')[0]: line for line in page.split('<article class="limit" id="')[1:]}
    assert [uid for uid in (roomy.uid, tight.uid, soft.uid) if "Binds" in lines[uid]] == [roomy.uid]


def test_a_forecast_takes_the_pace_of_the_last_seven_full_days(workspace, organization):
    found = limit(workspace, 100)
    now, end = at(2026, 11, 21, 12), at(2026, 12, 1)
    day = DOLLAR / 86_400
    of = limit_queries.forecast_of

    assert of(found, 100 * DOLLAR, day, now, end).kind == "full"
    assert of(found, 50 * DOLLAR, None, now, end).kind == "new"
    assert of(found, 50 * DOLLAR, 0, now, end).kind == "idle"
    fills = of(found, 95 * DOLLAR, day, now, end)
    assert (fills.kind, round((fills.at - now) / datetime.timedelta(days=1), 6)) == ("fills", 5)
    lasts = of(found, 90 * DOLLAR, day, now, end)
    assert (lasts.kind, lasts.total) == ("lasts", round(99.5 * DOLLAR))
    assert of(found, 1, 1e-30, now, end).kind == "lasts"


def test_a_grant_that_ends_within_the_interval_is_forecast_to_end(workspace):
    found = limit(workspace, 100)
    now, end = at(2026, 11, 21), at(2026, 12, 1)
    found.raised_nanos, found.raised_until = 20 * DOLLAR, at(2026, 11, 24)
    forecast = limit_queries.forecast_of(found, 98 * DOLLAR, DOLLAR / 86_400, now, end)
    assert (forecast.kind, forecast.at) == ("fills", at(2026, 11, 24))
    found.raised_until = at(2026, 12, 24)
    assert limit_queries.forecast_of(found, 98 * DOLLAR, DOLLAR / 86_400, now, end).kind == "lasts"


def test_the_pace_is_of_full_days_since_the_first_use(workspace, organization):
    found, subjects = limit(workspace, 1000), {}
    subject = limit_queries.Subject.of(workspace)
    subjects[subject.key] = subject
    now = timezone.now()

    def forecast():
        (standing,) = limit_queries.standings(organization, [found], subjects, now)
        return standing

    assert forecast().forecast.kind == "new"
    spend(workspace, organization, 3, today(organization))
    assert forecast().forecast.kind == "new"
    spend(workspace, organization, 8, days_ago(organization, 2))
    standing = forecast()
    expected = standing.settled + 4 * DOLLAR / 86_400 * (standing.end - now).total_seconds()
    assert standing.forecast.kind == "lasts"
    assert standing.forecast.total == pytest.approx(expected)
    LedgerPeriod.objects.all().delete()
    spend(workspace, organization, 8, days_ago(organization, 30))
    assert forecast().forecast.kind == "idle"


def test_a_limit_is_counted_by_the_organizations_calendar(alice_client, workspace, organization):
    organization.time_zone = "Pacific/Kiritimati"
    organization.save()
    limit(workspace, 10, "day")
    spend(workspace, organization, 4, today(organization))
    page = alice_client.get(url("limit_list", workspace)).text
    assert "$4.00 settled, $0.00 set aside, $6.00 left of $10.00" in page
    tomorrow = today(organization) + datetime.timedelta(days=1)
    assert f"Refills {tomorrow.day} {tomorrow:%b %Y}, 00:00" in words(page)
    assert "Pacific/Kiritimati" in page


def test_figures_add_up_as_they_are_written(alice_client, workspace, organization):
    limit(workspace, 1)
    spend(workspace, organization, 0.336, today(organization))
    LedgerPeriod.objects.filter(period="month").update(leased_nanos=336_000_000)
    assert "$0.34 settled, $0.34 set aside, $0.32 left of $1.00" in alice_client.get(url("limit_list", workspace)).text


def test_what_was_overspent_leaves_nothing(alice_client, workspace, organization):
    limit(workspace, 1)
    spend(workspace, organization, 2, today(organization))
    text = words(alice_client.get(url("limit_list", workspace)).text)
    assert "Nothing left of $1.00" in text
    assert "Full: requests are refused" in text
    limit(workspace, 0)
    assert '<rect class="settled" width="100.00%"' in alice_client.get(url("limit_list", workspace)).text


@pytest.mark.parametrize("name", ["limit_list", "limit_organization"])
def test_a_page_takes_a_fixed_number_of_queries(
    alice_client, workspace, organization, alice, name, django_assert_max_num_queries
):
    for number in range(12):
        key = make_api_key(workspace)
        user = factories.make_user()
        factories.make_member(organization, user)
        other = make_workspace(organization=organization)
        for thing in (key, other):
            limit(thing, 5)
            subject = limit_queries.Subject.of(thing)
            where = {"scope": subject.scope, "scope_id": subject.scope_id}
            set_rate_limit(organization=organization, requests_per_minute=number + 1, **where)
            spend(thing, organization, 1, days_ago(organization, 1))
        ask(limit(user, 5, organization=organization), user)
    limit(organization, 100)
    alice_client.get(url(name, workspace))
    with django_assert_max_num_queries(21):
        alice_client.get(url(name, workspace))


# Who sees what -----------------------------------------------------------------------------------------------------


def test_strangers_find_nothing(charlie_client, charlie, workspace, organization, bob):
    key = make_api_key(workspace)
    found = limit(organization, 10)
    wish = ask(found, bob)
    rate = set_rate_limit(
        organization=organization, scope="organization", scope_id=organization.pk, requests_per_minute=1
    )
    group = set_model_group(organization=organization, name="all", patterns=["*"])
    pages = [
        ("limit_list",),
        ("limit_organization",),
        ("limit_key", key.uid),
        ("limit_member", bob.uid),
        ("limit_create",),
        ("increase_list",),
        ("increase_answer", wish.uid),
        ("limit_ledger", found.uid),
        ("limit_edit", found.uid),
        ("limit_remove", found.uid),
        ("increase_create", found.uid),
        ("lease_release", found.uid, 1),
        ("rate_create",),
        ("rate_edit", rate.uid),
        ("rate_remove", rate.uid),
        ("group_create",),
        ("group_edit", group.uid),
        ("group_remove", group.uid),
        ("tier_edit",),
    ]
    for place in (workspace, charlie.last_workspace):
        for name, *args in pages:
            if place == workspace or args:
                assert charlie_client.get(url(name, place, *args)).status_code == 404, name
    assert charlie_client.get(reverse("usage:limit_link", args=[found.uid])).status_code == 404


def test_developers_see_but_change_nothing(bob_client, workspace, organization, alice, bob):
    found = limit(workspace, 10)
    wish = ask(found, bob)
    rate = set_rate_limit(organization=organization, scope="workspace", scope_id=workspace.pk, requests_per_minute=1)
    group = set_model_group(organization=organization, name="all", patterns=["*"])
    page = bob_client.get(url("limit_list", workspace)).text
    assert found.uid in page
    assert "Ask for more" in page
    for name in ("limit_create", "rate_create", "group_create", "tier_edit"):
        assert url(name, workspace) not in page
        assert bob_client.get(url(name, workspace)).status_code == 403
        assert bob_client.post(url(name, workspace)).status_code == 403
    for name, uid in [
        ("limit_edit", found.uid),
        ("limit_remove", found.uid),
        ("increase_answer", wish.uid),
        ("rate_edit", rate.uid),
        ("rate_remove", rate.uid),
        ("group_edit", group.uid),
        ("group_remove", group.uid),
    ]:
        assert url(name, workspace, uid) not in page
        assert bob_client.post(url(name, workspace, uid)).status_code == 403
    assert bob_client.post(url("lease_release", workspace, found.uid, 1)).status_code == 403
    assert SpendLimit.objects.get().amount_nanos == 10 * DOLLAR


def test_a_developer_sees_no_other_members_limits(bob_client, workspace, organization, alice, bob):
    hers, his = limit(alice, 5, organization=organization), limit(bob, 6, organization=organization)
    page = bob_client.get(url("limit_list", workspace)).text
    assert his.uid in page
    assert hers.uid not in page
    assert bob_client.get(url("limit_member", workspace, alice.uid)).status_code == 403
    assert bob_client.get(url("limit_ledger", workspace, hers.uid)).status_code == 403
    assert bob_client.get(url("limit_member", workspace, bob.uid)).status_code == 200


def test_a_key_of_another_workspace_is_not_to_be_found(alice_client, workspace, organization):
    elsewhere = make_workspace(organization=organization)
    key = make_api_key(elsewhere)
    found = limit(key, 5)
    assert alice_client.get(url("limit_key", workspace, key.uid)).status_code == 404
    assert alice_client.get(url("limit_edit", workspace, found.uid)).status_code == 404
    assert alice_client.get(url("limit_edit", elsewhere, found.uid)).status_code == 200
    assert alice_client.get(url("limit_ledger", workspace, limit(elsewhere, 5).uid)).status_code == 404


def test_keys_and_workspaces_lead_to_their_limits(alice_client, workspace, organization):
    key = make_api_key(workspace)
    page = alice_client.get(reverse("console:api_key_list", args=[workspace.slug])).text
    assert url("limit_key", workspace, key.uid) in page
    page = alice_client.get(reverse("console:workspace_list", args=[organization.slug])).text
    assert url("limit_list", workspace) in page


# Setting -----------------------------------------------------------------------------------------------------------


def form_of(**fields):
    return {"amount": "12,50", "period": "month", "effect": "hard", "thresholds": "50 100"} | fields


def test_a_limit_is_set_for_whom_it_is_meant(alice_client, workspace, organization, alice, bob):
    key = make_api_key(workspace)
    things = {"workspace": workspace, "api_key": key, "member": bob, "organization": organization}
    before = Revision.objects.get(pk=1).number if Revision.objects.exists() else 0
    for thing in things.values():
        subject = limit_queries.Subject.of(thing)
        response = alice_client.post(url("limit_create", workspace), form_of(subject=subject.target))
        assert response.status_code == 302
    found = {row.scope: row for row in SpendLimit.objects.all()}
    assert {scope: row.scope_id for scope, row in found.items()} == {s: thing.pk for s, thing in things.items()}
    row = found["api_key"]
    assert (row.amount_nanos, row.is_hard, row.thresholds) == (12_500_000_000, True, [50, 100])
    assert (row.changed_by, row.allows_unpriced) == (alice, False)
    event = AuditEvent.objects.filter(action="spend_limit.set", target_uid=row.uid).get()
    assert (event.actor, event.details["after"]["amount_nanos"]) == (alice, 12_500_000_000)
    assert Revision.objects.get(pk=1).number == before + 4


def test_there_is_one_limit_a_period(alice_client, workspace):
    limit(workspace, 10)
    subject = limit_queries.Subject.of(workspace).target
    response = alice_client.post(url("limit_create", workspace), form_of(subject=subject))
    assert response.status_code == 422
    assert response.text.count("There is already a limit for that period") == 1
    assert SpendLimit.objects.get().amount_nanos == 10 * DOLLAR


def test_another_organizations_key_is_no_choice(alice_client, workspace, charlie):
    key = make_api_key(charlie.last_workspace)
    subject = limit_queries.Subject.of(key).target
    assert alice_client.post(url("limit_create", workspace), form_of(subject=subject)).status_code == 422
    assert not SpendLimit.objects.exists()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("amount", "", "This field is required."),
        ("amount", "much", "Write an amount such as 3.00 or 3,00."),
        ("amount", "1,250", "This can be read in two ways. Write 1250 or 1.25."),
        ("amount", "-1", "An amount cannot be below zero."),
        ("amount", "0.0000000001", "An amount has at most nine decimals."),
        ("amount", "99999999999", "That is more than can be counted here."),
        ("amount", "NaN", "Enter a number."),
        ("thresholds", "often", "Write up to eight percentages"),
        ("thresholds", "0, 80", "From 1 to 1000 percent."),
        ("effect", "maybe", "Select a valid choice"),
    ],
)
def test_what_is_no_limit_is_said_beside_the_field(alice_client, workspace, field, value, said):
    data = form_of(subject=limit_queries.Subject.of(workspace).target) | {field: value}
    response = alice_client.post(url("limit_create", workspace), data)
    assert response.status_code == 422
    assert said in response.text
    assert not SpendLimit.objects.exists()


def test_a_limit_is_changed_and_keeps_what_was_granted(alice_client, workspace, organization, alice, bob):
    found = limit(workspace, 10)
    increases.approve_increase(
        increase=ask(found, bob), amount_nanos=DOLLAR, until=timezone.now() + datetime.timedelta(days=1), actor=alice
    )
    page = alice_client.get(url("limit_edit", workspace, found.uid)).text
    assert 'value="10.00"' in page
    data = form_of(effect="soft", allows_unpriced="on")
    assert alice_client.post(url("limit_edit", workspace, found.uid), data).status_code == 302
    found.refresh_from_db()
    assert (found.amount_nanos, found.is_hard, found.allows_unpriced) == (12_500_000_000, False, True)
    assert found.raised_nanos == DOLLAR
    assert AuditEvent.objects.filter(action="spend_limit.changed", actor=alice).count() == 1


def test_a_limit_is_removed_after_a_question(alice_client, workspace, alice, bob):
    found = limit(workspace, 10)
    ask(found, bob)
    page = words(alice_client.get(url("limit_remove", workspace, found.uid)).text)
    assert "From the next second on nothing is refused for it." in page
    assert "1 request for more that waits goes with it." in page
    assert SpendLimit.objects.exists()
    response = alice_client.post(url("limit_remove", workspace, found.uid), headers=HTMX)
    assert response["HX-Trigger"] == "limits-changed"
    assert not SpendLimit.objects.exists()
    assert AuditEvent.objects.get(action="spend_limit.removed").actor == alice


# What a change would do --------------------------------------------------------------------------------------------


def preview(client, workspace, found=None, **fields):
    if found:
        address = url("limit_edit", workspace, found.uid)
    else:
        address = url("limit_create", workspace)
        fields = {"subject": limit_queries.Subject.of(workspace).target} | fields
    response = client.post(address, form_of(**fields) | {"preview": "1"}, headers=HTMX)
    assert response.status_code == 200
    assert "<form" not in response.text
    return words(response.text)


def test_a_preview_changes_nothing(alice_client, workspace):
    found = limit(workspace, 10)
    preview(alice_client, workspace, found, amount="1")
    preview(alice_client, workspace, period="day")
    assert SpendLimit.objects.get().amount_nanos == 10 * DOLLAR


def test_a_preview_says_what_is_spent_already(alice_client, workspace, organization):
    found = limit(workspace, 10)
    spend(workspace, organization, 4, today(organization))
    assert "Spent so far: $4.00 of $5.00" in preview(alice_client, workspace, found, amount="5")
    text = preview(alice_client, workspace, found, amount="4")
    assert "Already spent: $4.00 of $4.00. Requests are refused from now on, until" in text
    assert "Requests go on" in preview(alice_client, workspace, found, amount="4", effect="soft")


def test_a_preview_tells_on_how_many_days_the_last_month_would_have_been_cut_short(workspace):
    found = limit(workspace, 100)
    now = at(2026, 11, 21, 12)
    for day in range(1, 32):
        spend(workspace, workspace.organization, 10, datetime.date(2026, 10, day))
    past = limit_queries.past_of(found, now)
    assert (past.days, past.over, past.first) == (31, 21, at(2026, 10, 11))
    assert past.spent == 310 * DOLLAR
    found.amount_nanos = 310 * DOLLAR
    assert limit_queries.past_of(found, now).over == 0


def test_a_day_is_compared_with_thirty_days_and_a_week_with_the_last(workspace):
    by_day, by_week = limit(workspace, 5, "day"), limit(workspace, 15, "week")
    now = at(2026, 11, 18, 12)  # a Wednesday
    for day, dollars in [(1, 6), (9, 5), (10, 9), (11, 2), (15, 1)]:
        spend(workspace, workspace.organization, dollars, datetime.date(2026, 11, day))
    past = limit_queries.past_of(by_day, now)
    assert (past.days, past.over, past.first, past.start) == (30, 2, at(2026, 11, 1), at(2026, 10, 19))
    past = limit_queries.past_of(by_week, now)
    assert (past.days, past.over, past.first, past.start) == (7, 5, at(2026, 11, 11), at(2026, 11, 9))


def test_a_preview_is_honest_where_there_is_nothing_to_compare_with(alice_client, workspace):
    text = preview(alice_client, workspace)
    assert "so there is nothing to compare with" in text
    assert "No forecast before the first full day of use" in text


def test_a_preview_names_models_that_would_be_refused_for_want_of_a_price(alice_client, workspace, organization):
    provider = make_provider(organization)
    make_price(make_model(provider, "priced"))
    make_model(provider, "unpriced-model")
    make_model(provider, "gone", removed_at=timezone.now())
    said = "1 model has no price: requests for it are refused (unpriced-model)."
    assert said in preview(alice_client, workspace)
    assert said not in preview(alice_client, workspace, allows_unpriced="on")
    assert said not in preview(alice_client, workspace, effect="soft")


def test_a_preview_names_models_whose_price_is_in_a_currency_without_a_rate(alice_client, workspace, organization):
    provider = make_provider(organization)
    make_price(make_model(provider, "in-francs", max_output_tokens=100), currency="CHF")
    said = "1 model has its price in a currency without an exchange rate: requests for it are refused (in-francs)."
    assert said in preview(alice_client, workspace)
    assert said not in preview(alice_client, workspace, allows_unpriced="on")
    assert said not in preview(alice_client, workspace, effect="soft")
    set_exchange_rate(organization=organization, from_currency="CHF", rate=Decimal("1.1"), actor=None)
    assert said not in preview(alice_client, workspace)


def test_a_preview_names_models_that_need_to_be_told_how_long_an_answer_may_get(alice_client, workspace, organization):
    provider = make_provider(organization)
    make_price(make_model(provider, "endless"))
    make_price(make_model(provider, "told", max_output_tokens=100))
    make_price(make_model(provider, "windowed", context_window=100))
    make_price(make_model(provider, "vectors", capabilities=["embeddings"]))
    make_model(provider, "verdicts", capabilities=["moderations"])
    said = "1 model has no maximum output entered: requests for it without max_tokens are refused (endless)."
    page = preview(alice_client, workspace)
    assert said in page
    assert "verdicts" not in page
    assert said in preview(alice_client, workspace, allows_unpriced="on")
    assert said not in preview(alice_client, workspace, effect="soft")


def test_a_preview_of_half_a_form_says_what_is_missing(alice_client, workspace):
    assert "This field is required." in preview(alice_client, workspace, amount="")
    limit(workspace, 10)
    assert "There is already a limit for that period" in preview(alice_client, workspace)
    text = preview(alice_client, workspace, amount="", told="period")
    assert "There is already a limit for that period" not in text
    assert "This field is required." in text


def test_a_preview_works_without_scripts(alice_client, workspace, organization):
    found = limit(workspace, 10)
    data = form_of(amount="3") | {"preview": "1"}
    response = alice_client.post(url("limit_edit", workspace, found.uid), data)
    assert response.status_code == 200
    assert 'value="3"' in response.text
    assert "Spent so far: $0.00 of $3.00" in words(response.text)


# The ledger --------------------------------------------------------------------------------------------------------


def lease_of(organization, thing, state="open", *, uid="one", granted=10, settled=3, released=2):
    """A lease in the present month of a scope, in dollars, by the ledger's own rules."""
    subject = limit_queries.Subject.of(thing)
    start, end = calendar_of(organization.time_zone).interval("month", timezone.now())
    book, _ = LedgerPeriod.objects.get_or_create(
        organization=organization,
        scope=subject.scope,
        scope_id=subject.scope_id,
        period="month",
        start=start,
        defaults={"end": end},
    )
    remaining = granted - settled - released
    LedgerPeriod.objects.filter(pk=book.pk).update(
        settled_nanos=book.settled_nanos + settled * DOLLAR, leased_nanos=book.leased_nanos + remaining * DOLLAR
    )
    GatewayProcess.objects.get_or_create(uid=uid, defaults={"host": f"host-{uid}", "pid": 4123})
    return SpendLease.objects.create(
        ledger_period=book,
        process_id=uid,
        state=state,
        granted_nanos=granted * DOLLAR,
        settled_nanos=settled * DOLLAR,
        released_nanos=released * DOLLAR,
        remaining_nanos=remaining * DOLLAR,
    )


def test_the_ledger_tells_intervals_and_processes(bob_client, workspace, organization):
    found = limit(workspace, 100)
    lease_of(organization, workspace)
    lost = lease_of(organization, workspace, "orphaned", uid="two", granted=8, settled=1, released=0)
    spend(workspace, organization, 7, (today(organization).replace(day=1) - datetime.timedelta(days=1)))
    page = bob_client.get(url("limit_ledger", workspace, found.uid)).text
    months, _, processes = page.partition('id="leases-title"')
    rows = [words(row) for row in re.findall(r"<tr>.*?</tr>", months, re.S)]
    assert rows[1].endswith("Now $4.00 $18.00 $2.00 $12.00 $7.00 2")
    assert rows[2].endswith("$7.00 $0.00 $0.00 $0.00 $0.00 0")
    rows = [words(row) for row in re.findall(r"<tr>.*?</tr>", processes, re.S)]
    assert rows[1] == "host-two 4123 Orphaned just now $8.00 $1.00 $0.00 $7.00"
    assert rows[2] == "host-one 4123 Set aside just now $10.00 $3.00 $2.00 $5.00"
    assert url("lease_release", workspace, found.uid, lost.pk) not in page


def test_an_earlier_interval_can_be_looked_into(alice_client, workspace, organization):
    found = limit(workspace, 100)
    spend(workspace, organization, 7, today(organization).replace(day=1) - datetime.timedelta(days=1))
    lease_of(organization, workspace)
    earlier = LedgerPeriod.objects.filter(period="month", scope="workspace").earliest("start")
    page = alice_client.get(url("limit_ledger", workspace, found.uid), {"interval": earlier.pk}).text
    assert "No process drew anything" in page
    other = LedgerPeriod.objects.filter(period="day").first()
    for wrong in (other.pk, "x", "9" * 30, 10**17):
        response = alice_client.get(url("limit_ledger", workspace, found.uid), {"interval": wrong})
        assert response.status_code == 404


def test_the_ledger_says_what_it_has_forgotten(alice_client, workspace, organization):
    found = limit(workspace, 100)
    long_ago = today(organization) - TOLD - datetime.timedelta(days=40)
    spend(workspace, organization, 7, long_ago)
    book = LedgerPeriod.objects.get(period="month", scope="workspace")
    process = GatewayProcess.objects.create(uid="old", host="host-old", pid=1, seen_at=book.end, ended_at=book.end)
    sums = {"granted_nanos": 9 * DOLLAR, "settled_nanos": 7 * DOLLAR, "released_nanos": 2 * DOLLAR}
    SpendLease.objects.create(ledger_period=book, process=process, state="closed", **sums)
    delete_old()
    page = alice_client.get(url("limit_ledger", workspace, found.uid), {"interval": book.pk}).text
    months, _, told = page.partition('id="leases-title"')
    (row,) = [words(row) for row in re.findall(r"<tr>.*?</tr>", months, re.S)][1:]
    assert row.endswith("$7.00 – – $0.00 $0.00 –")
    assert "forgotten 35 days after" in told
    assert "No process drew anything" not in told


def test_the_ledger_takes_a_fixed_number_of_queries(
    alice_client, workspace, organization, django_assert_max_num_queries
):
    found = limit(workspace, 100)
    for number in range(30):
        lease_of(organization, workspace, uid=str(number))
        spend(workspace, organization, 1, days_ago(organization, 31 * number))
    alice_client.get(url("limit_ledger", workspace, found.uid))
    with django_assert_max_num_queries(13):
        alice_client.get(url("limit_ledger", workspace, found.uid))


def test_an_orphan_is_released_once_and_only_by_who_manages(alice_client, workspace, organization, alice):
    found = limit(workspace, 100)
    lost = lease_of(organization, workspace, "orphaned")
    address = url("lease_release", workspace, found.uid, lost.pk)
    assert address in alice_client.get(url("limit_ledger", workspace, found.uid)).text
    page = alice_client.get(address).text
    assert "Release it only if that process is gone for good." in page
    assert "Release $5.00" in page

    assert alice_client.post(address).status_code == 302

    lost.refresh_from_db()
    book = lost.ledger_period
    assert (lost.state, lost.remaining_nanos, lost.released_nanos) == ("closed", 0, 7 * DOLLAR)
    assert (book.leased_nanos, book.settled_nanos) == (0, 3 * DOLLAR)
    event = AuditEvent.objects.get(action="spend_lease.released")
    assert (event.actor, event.details) == (alice, {"process": "4123 on host-one", "amount_nanos": 5 * DOLLAR})
    assert "Nothing to release" in alice_client.post(address, follow=True).text
    assert AuditEvent.objects.filter(action="spend_lease.released").count() == 1


def test_only_what_is_orphaned_can_be_released(alice_client, workspace, organization):
    found = limit(workspace, 100)
    held = lease_of(organization, workspace)
    address = url("lease_release", workspace, found.uid, held.pk)
    assert "There is nothing to release." in alice_client.get(address).text
    alice_client.post(address)
    held.refresh_from_db()
    assert (held.state, held.remaining_nanos) == ("open", 5 * DOLLAR)
    other = limit(organization, 100)
    assert alice_client.get(url("lease_release", workspace, other.uid, held.pk)).status_code == 404


def test_what_comes_to_light_after_a_release_counts_against_the_limit(workspace, organization, alice):
    limit(organization, 100)
    lost = lease_of(organization, organization, "orphaned", settled=0, released=0)
    alive = lease_of(organization, organization, uid="two", settled=0, released=0)
    ledger.release_orphan(lease=lost, actor=alice)

    write_batch([Record(opened(workspace, leases=[lost.pk])[1], closed(cost_nanos=4 * DOLLAR))])

    book = LedgerPeriod.objects.get(pk=lost.ledger_period_id)
    assert (book.settled_nanos, book.leased_nanos) == (4 * DOLLAR, alive.remaining_nanos)
    lost.refresh_from_db()
    assert (lost.settled_nanos, lost.released_nanos, lost.remaining_nanos) == (4 * DOLLAR, 6 * DOLLAR, 0)
    assert ledger_differences() == []


# Asking for more ---------------------------------------------------------------------------------------------------


def wish_form(organization, **fields):
    day = today(organization) + datetime.timedelta(days=2)
    return {"amount": "25", "last_day": day.isoformat(), "reason": "Load test."} | fields


def test_a_member_asks_and_those_who_manage_see_it(alice_client, bob_client, workspace, organization, alice, bob):
    organization.time_zone = "Asia/Tokyo"
    organization.save()
    found = limit(workspace, 10)
    dialog = words(bob_client.get(url("increase_create", workspace, found.uid)).text)
    assert "It goes to Alice." in dialog
    assert "waiting for an answer" not in alice_client.get(url("limit_list", workspace)).text

    assert bob_client.post(url("increase_create", workspace, found.uid), wish_form(organization)).status_code == 302

    wish = LimitIncrease.objects.get()
    after = today(organization) + datetime.timedelta(days=3)
    assert (wish.amount_nanos, wish.reason, wish.requested_by) == (25 * DOLLAR, "Load test.", bob)
    assert wish.until == datetime.datetime.combine(after, datetime.time(), ZoneInfo("Asia/Tokyo"))
    assert AuditEvent.objects.get(action="limit_increase.requested").actor == bob
    page = alice_client.get(url("limit_list", workspace)).text
    last = after - datetime.timedelta(days=1)
    chosen = f"{last.day} {last:%b %Y}"
    assert f"Bob asks for $25.00 more until the end of {chosen}." in words(page)
    assert f'data-label="Until the end of">{chosen}</td>' in bob_client.get(url("increase_list", workspace)).text
    assert url("increase_answer", workspace, wish.uid) in page
    home = alice_client.get(workspace.get_absolute_url()).text
    assert re.search(r'<span class="badge badge--warn">1<span class="visually-hidden"> waiting for an answer', home)
    page = bob_client.get(url("limit_list", workspace)).text
    assert "You asked for $25.00 more" in page
    assert url("increase_answer", workspace, wish.uid) not in page
    assert "waiting for an answer" not in bob_client.get(workspace.get_absolute_url()).text


def test_one_asks_once_and_for_something_to_come(bob_client, workspace, organization, bob):
    found = limit(workspace, 10)
    address = url("increase_create", workspace, found.uid)
    for wrong in ({"amount": "0"}, {"amount": ""}, {"reason": " "}, {"last_day": "2020-01-01"}, {"last_day": "soon"}):
        assert bob_client.post(address, wish_form(organization, **wrong)).status_code == 422
    assert not LimitIncrease.objects.exists()
    bob_client.post(address, wish_form(organization))
    page = bob_client.get(address).text
    assert "It waits for an answer. Load test." in words(page)
    assert 'name="amount"' not in page
    response = bob_client.post(address, wish_form(organization))
    assert response.status_code == 422
    assert "You have asked for more here already" in response.text
    assert LimitIncrease.objects.count() == 1


def test_a_wish_is_approved_with_another_amount_and_day(alice_client, bob_client, workspace, organization, alice, bob):
    found = limit(workspace, 10)
    wish = ask(found, bob, dollars=25)
    revision = Revision.objects.get(pk=1).number
    day = today(organization) + datetime.timedelta(days=1)
    data = {"amount": "7.5", "last_day": day.isoformat(), "answer": "A part of it.", "decision": "approve"}

    assert alice_client.post(url("increase_answer", workspace, wish.uid), data).status_code == 302

    found.refresh_from_db()
    until = datetime.datetime.combine(day + datetime.timedelta(days=1), datetime.time(), datetime.UTC)
    assert (found.amount_nanos, found.raised_nanos, found.raised_until) == (10 * DOLLAR, 7_500_000_000, until)
    assert found.amount_at(timezone.now()) == 17_500_000_000
    assert found.amount_at(until) == 10 * DOLLAR
    assert Revision.objects.get(pk=1).number == revision + 1
    event = AuditEvent.objects.get(action="limit_increase.approved")
    assert (event.actor, event.details["asked_nanos"], event.details["amount_nanos"]) == (
        alice,
        25 * DOLLAR,
        7_500_000_000,
    )
    for client in (alice_client, bob_client):
        text = words(client.get(url("increase_list", workspace)).text)
        assert "Approved $7.50 of $25.00" in text
        assert "A part of it." in text
    assert "Alice granted $7.50 more" in bob_client.get(url("limit_list", workspace)).text
    assert f"$7.50 of it granted until the end of {day.day} {day:%b %Y}" in words(
        bob_client.get(url("limit_list", workspace)).text
    )


def test_a_wish_is_denied_with_an_answer(alice_client, bob_client, workspace, organization, bob):
    found = limit(workspace, 10)
    wish = ask(found, bob)
    data = {"amount": "nonsense", "last_day": "", "answer": "Not this month.", "decision": "deny"}
    assert alice_client.post(url("increase_answer", workspace, wish.uid), data).status_code == 302
    wish.refresh_from_db()
    found.refresh_from_db()
    assert (wish.state, wish.answer, wish.granted_nanos) == ("denied", "Not this month.", None)
    assert (found.raised_nanos, found.raised_until) == (0, None)
    page = bob_client.get(url("limit_list", workspace)).text
    assert "Alice denied $5.00 more." in page
    assert "Not this month." in page
    assert AuditEvent.objects.filter(action="limit_increase.denied").count() == 1


def test_a_wish_is_answered_once(alice_client, workspace, organization, bob):
    wish = ask(limit(workspace, 10), bob)
    address = url("increase_answer", workspace, wish.uid)
    alice_client.post(address, {"decision": "deny"})
    data = {"amount": "5", "last_day": days_ago(organization, -2).isoformat(), "decision": "approve"}
    response = alice_client.post(address, data)
    assert response.status_code == 422
    assert "Somebody has answered this already." in response.text
    assert SpendLimit.objects.get().raised_nanos == 0
    assert "Denied" in words(alice_client.get(address).text)


def test_a_later_grant_takes_the_place_of_an_earlier_one(alice_client, workspace, organization, alice, bob):
    found = limit(workspace, 10)
    soon, later = (timezone.now() + datetime.timedelta(days=days) for days in (1, 5))
    increases.approve_increase(increase=ask(found, bob), amount_nanos=9 * DOLLAR, until=later, actor=alice)
    wish = ask(found, bob)
    assert "It takes the place of the $9.00" in words(
        alice_client.get(url("increase_answer", workspace, wish.uid)).text
    )
    increases.approve_increase(increase=wish, amount_nanos=2 * DOLLAR, until=soon, actor=alice)
    found.refresh_from_db()
    assert (found.raised_nanos, found.raised_until) == (2 * DOLLAR, soon)


def test_members_see_their_own_wishes_alone(bob_client, workspace, organization, alice, bob):
    found = limit(workspace, 10)
    ask(found, alice, reason="hers")
    ask(found, bob, reason="his")
    page = bob_client.get(url("increase_list", workspace)).text
    assert "his" in words(page)
    assert "hers" not in words(page)
    for number in range(3):
        member = factories.make_user()
        factories.make_member(organization, member, Member.Role.DEVELOPER)
        assert "Nobody has asked for more" in signed_in(member).get(url("increase_list", workspace)).text, number


def test_a_refusal_leads_to_asking(bob_client, workspace, organization, alice, bob):
    key = make_api_key(make_workspace(organization=organization, slug="second"))
    for thing, slug in [(organization, "default"), (workspace, "default"), (key, "second"), (bob, "default")]:
        found = limit(thing, 5, organization=organization)
        response = bob_client.get(reverse("usage:limit_link", args=[found.uid]))
        assert response.url == f"/w/{slug}/limits/{found.uid}/ask/"
        assert bob_client.get(response.url).status_code == 200
        bob_client.get(workspace.get_absolute_url())


def test_a_refusal_leads_who_manages_to_the_limit(alice_client, workspace, organization, bob):
    key = make_api_key(make_workspace(organization=organization, slug="second"))
    places = {
        "default/limits/organization": organization,
        "default/limits": workspace,
        f"second/limits/keys/{key.uid}": key,
        f"default/limits/members/{bob.uid}": bob,
    }
    for place, thing in places.items():
        found = limit(thing, 5, organization=organization)
        response = alice_client.get(reverse("usage:limit_link", args=[found.uid]))
        assert response.url == f"/w/{place}/#{found.uid}"
        assert f'id="{found.uid}"' in alice_client.get(response.url).text
        alice_client.get(workspace.get_absolute_url())


@pytest.mark.parametrize("code", ["insufficient_quota", "rate_limit_exceeded"])
def test_a_request_that_a_limit_refused_leads_to_what_limits_it(bob_client, workspace, code):
    key = make_api_key(workspace)

    def page(**fields):
        log = factories.make_request_log(workspace, error_code=code, **fields)
        return bob_client.get(reverse("usage:request_detail", args=[workspace.slug, log.pk])).text

    assert url("limit_key", workspace, key.uid) in page(api_key=key, outcome="refused", status=429)
    assert "What limits it" in page(outcome="refused", status=429)
    assert "What limits it" not in page(api_key=key, outcome="upstream_error", status=429)


# Rates -------------------------------------------------------------------------------------------------------------


def test_rates_are_set_changed_and_removed(alice_client, workspace, organization, alice):
    make_model(make_provider(organization), "gpt-test")
    group = set_model_group(organization=organization, name="Opus", patterns=["claude-opus*"])
    target = limit_queries.Subject.of(workspace).target
    address = url("rate_create", workspace)
    data = {"subject": target, "models": "", "requests_per_minute": "60", "input_tokens_per_minute": "2,000,000"}
    assert alice_client.post(address, data).status_code == 302
    assert alice_client.post(address, data).status_code == 422
    for models in ("model:gpt-test", f"group:{group.uid}"):
        data = {"subject": target, "models": models, "concurrent_requests": "4"}
        assert alice_client.post(address, data).status_code == 302
    every, model, grouped = RateLimit.objects.order_by("pk")
    assert (every.requests_per_minute, every.input_tokens_per_minute, every.concurrent_requests) == (
        60,
        2_000_000,
        None,
    )
    assert (model.model, grouped.group, every.changed_by) == ("gpt-test", group, alice)
    text = words(alice_client.get(url("limit_list", workspace)).text)
    assert f"default Workspace All {used(0, '60')} {used(0, '2,000,000')} no limit no limit" in text

    data = {"requests_per_minute": "30"}
    assert alice_client.post(url("rate_edit", workspace, every.uid), data).status_code == 302
    every.refresh_from_db()
    assert (every.requests_per_minute, every.input_tokens_per_minute) == (30, None)
    assert alice_client.post(url("rate_edit", workspace, every.uid), {"concurrent_requests": ""}).status_code == 422
    assert alice_client.post(url("rate_remove", workspace, every.uid)).status_code == 302
    assert set(RateLimit.objects.all()) == {model, grouped}
    assert AuditEvent.objects.filter(actor=alice, action__startswith="rate_limit.").count() == 5


@pytest.mark.parametrize("wrong", ["many", "-1", "1.5", "10000000000000", "1,00"])
def test_what_is_no_rate_is_said_beside_it(alice_client, workspace, wrong):
    data = {"subject": limit_queries.Subject.of(workspace).target, "models": "", "requests_per_minute": wrong}
    response = alice_client.post(url("rate_create", workspace), data)
    assert response.status_code == 422
    assert 'id="id_requests_per_minute_error"' in response.text
    assert not RateLimit.objects.exists()


def test_a_workspace_can_only_have_less(alice_client, workspace, organization):
    over = set_rate_limit(
        organization=organization, scope="organization", scope_id=organization.pk, requests_per_minute=10
    )
    data = {"subject": limit_queries.Subject.of(workspace).target, "models": "", "requests_per_minute": "11"}
    response = alice_client.post(url("rate_create", workspace), data)
    assert response.status_code == 422
    assert "it can only be tightened" in response.text
    set_rate_limit(organization=organization, scope="workspace", scope_id=workspace.pk, requests_per_minute=9)
    over.requests_per_minute = 5
    over.save()
    assert "A lower one above holds first." in alice_client.get(url("limit_list", workspace)).text


def used(number, limit):
    """How a figure reads: to the eye, and to the ear."""
    return f"{number} / {limit} {limit}, {number} in the last minute"


def rate_cells(client, page):
    """The figures of each row of the table of rates: whose, for which models, and four."""
    table = client.get(page).text.split('class="table table--stack table--rates"')[1].split("</table>")[0]
    cells = re.findall(r"<t[hd][ >].*?</t[hd]>", table.split("<tbody>")[1], re.DOTALL)
    return [[words(cell) for cell in cells[row : row + 6]] for row in range(0, len(cells), 7)]


def test_a_rate_says_what_was_used_in_the_last_minute(alice_client, workspace, organization):
    key, elsewhere = make_api_key(workspace), make_workspace(organization=organization)
    provider = make_provider(organization)
    mini, opus = make_model(provider, "gpt-mini"), make_model(provider, "opus")
    small = set_model_group(organization=organization, name="small", patterns=["*-mini"])
    every = {"requests_per_minute": 10, "input_tokens_per_minute": 5_000, "output_tokens_per_minute": 100}
    for thing in (organization, workspace, key):
        subject = limit_queries.Subject.of(thing)
        where = {"organization": organization, "scope": subject.scope, "scope_id": subject.scope_id}
        set_rate_limit(**where, **every, concurrent_requests=7)
    whole = {"organization": organization, "scope": "organization", "scope_id": organization.pk}
    set_rate_limit(**whole, group=small, output_tokens_per_minute=90)
    set_rate_limit(**whole, model="alias", requests_per_minute=5)
    set_tier_of(organization, [{"requests_per_minute": 20}, {"models": ["op*"], "input_tokens_per_minute": 1_000}])

    def asked(place=workspace, seconds=1, **fields):
        moment = timezone.now() - datetime.timedelta(seconds=seconds)
        factories.make_request_log(place, started_at=moment, **fields)

    asked(api_key=key, provider_model=mini)
    # What is read from a cache is free, what is written to one counts.
    cached = {"cache_read_tokens": 900, "cache_write_tokens": 30, "cache_write_1h_tokens": 4}
    asked(api_key=key, provider_model=opus, requested_model="alias", seconds=55, **cached)
    asked(provider_model=mini, source="playground", input_tokens=None, output_tokens=None, outcome="upstream_error")
    asked(elsewhere, provider_model=opus)
    asked(make_workspace())
    asked(api_key=key, provider_model=mini, seconds=61)
    asked(api_key=key, provider_model=mini, outcome="refused", status=429, attempts=0)

    page = url("limit_key", workspace, key.uid)
    rows = {(row[0], row[1]): row[2:] for row in rate_cells(alice_client, page)}
    name = organization.name
    assert rows[f"{name} Tier First", "All"][0] == used(4, 20)
    assert rows[f"{name} Tier First", "op*"][1] == used(234, "1,000")
    assert rows[f"{name} Organization", "All"] == [used(4, 10), used(334, "5,000"), f"Binds {used(60, 100)}", "7"]
    assert rows[f"{name} Organization", "small"][2] == used(20, 90)
    assert rows[f"{name} Organization", "alias"][0] == used(1, 5)
    assert rows["default Workspace", "All"][:2] == [
        f"{used(3, 10)} A lower one above holds first.",
        f"{used(234, '5,000')} A lower one above holds first.",
    ]
    # The organization's output, 60 of 100, is nearest to its limit.
    assert 'width="60.00%"' in alice_client.get(page).text


def test_what_is_used_of_rates_takes_as_many_queries_however_much_it_is(
    alice_client, workspace, organization, django_assert_num_queries
):
    model = make_model(make_provider(organization))
    set_rate_limit(organization=organization, scope="workspace", scope_id=workspace.pk, requests_per_minute=9)
    page = url("limit_list", workspace)
    alice_client.get(page)
    with CaptureQueriesContext(connection) as queries:
        alice_client.get(page)
    for _ in range(5):
        factories.make_request_log(workspace, api_key=make_api_key(workspace), provider_model=model)
    with django_assert_num_queries(len(queries)):
        assert "5 in the last minute" in alice_client.get(page).text


def test_rates_say_that_each_process_has_its_share(alice_client, workspace, organization, settings):
    said = "This server runs 3 processes without Redis or Valkey."
    set_rate_limit(organization=organization, scope="workspace", scope_id=workspace.pk, requests_per_minute=9)
    for number in range(2):
        GatewayProcess.objects.create(uid=str(number), host="elsewhere", pid=number)
    assert "without Redis or Valkey" in alice_client.get(url("limit_list", workspace)).text
    GatewayProcess.objects.create(uid="third", host="elsewhere", pid=3)
    assert said in alice_client.get(url("limit_list", workspace)).text
    assert said not in alice_client.get(url("limit_member", workspace, alice_uid(organization))).text
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    assert said not in alice_client.get(url("limit_list", workspace)).text
    settings.REDIS_URL = None
    GatewayProcess.objects.update(seen_at=timezone.now() - datetime.timedelta(minutes=3))
    assert "without Redis or Valkey" not in alice_client.get(url("limit_list", workspace)).text
    # As many as this server was told to run, before they have all said that they live.
    settings.WEB_PROCESSES = 3
    assert said in alice_client.get(url("limit_list", workspace)).text


def alice_uid(organization):
    return organization.members.get(user__name="Alice").user.uid


def set_tier_of(organization, rates):
    put_on_tier(
        organization=organization, tier=set_tier(ladder="ours", step=1, slug="first", name="First", rates=rates)
    )


def test_groups_are_named_changed_and_removed(alice_client, workspace, organization):
    address = url("group_create", workspace)
    assert alice_client.post(address, {"name": "Opus", "patterns": "claude-opus*\n\n gpt-5 "}).status_code == 302
    group = ModelGroup.objects.get()
    assert group.patterns == ["claude-opus*", "gpt-5"]
    assert alice_client.post(address, {"name": "Opus", "patterns": "x"}).status_code == 422
    assert "claude-opus*, gpt-5" in alice_client.get(url("limit_list", workspace)).text
    assert alice_client.post(url("group_edit", workspace, group.uid), {"patterns": "x"}).status_code == 302
    group.refresh_from_db()
    assert (group.name, group.patterns) == ("Opus", ["x"])
    set_rate_limit(
        organization=organization, scope="organization", scope_id=organization.pk, group=group, requests_per_minute=1
    )
    assert "1 rate limit that is for it goes with it." in words(
        alice_client.get(url("group_remove", workspace, group.uid)).text
    )
    alice_client.post(url("group_remove", workspace, group.uid))
    assert not RateLimit.objects.exists()


def test_patterns_that_match_no_model_are_named(alice_client, bob_client, workspace, organization):
    make_model(make_provider(organization), "gpt-5-mini")
    said = "No model or route matches claude-9*, gpt-5 yet."
    data = {"name": "small", "patterns": "gpt-*\nclaude-9*\ngpt-5"}
    page = alice_client.post(url("group_create", workspace), data, follow=True).text
    assert f"Group small created. {said}" in page
    assert said in bob_client.get(url("limit_list", workspace)).text
    make_model(make_provider(organization), "gpt-5")
    address = url("group_edit", workspace, ModelGroup.objects.get().uid)
    page = alice_client.post(address, {"patterns": "gpt-*\nclaude-9*"}, follow=True).text
    assert "Group small changed. No model or route matches claude-9* yet." in page
    page = alice_client.post(address, {"patterns": "gpt-*\ngpt-5"}, follow=True).text
    assert "Group small changed<" in page
    assert "No model or route matches" not in page


def test_a_look_at_the_tiers_writes_nothing(alice_client, workspace):
    with CaptureQueriesContext(connection) as queries:
        shown = alice_client.get(url("tier_edit", workspace)).text
    assert "Claude Build" in shown
    writes = ("INSERT", "UPDATE", "DELETE")
    assert [query["sql"] for query in queries if query["sql"].startswith(writes) and "usage_" in query["sql"]] == []
    assert not UsageTier.objects.exists()
    assert alice_client.post(url("tier_edit", workspace), {"tier": "claude-build"}).status_code == 302
    assert TierPlace.objects.get().tier.name == "Claude Build"


def test_an_organization_is_put_on_a_tier_and_taken_off(alice_client, bob_client, workspace, organization, alice):
    assert "Claude Build" in alice_client.get(url("tier_edit", workspace)).text
    rates = [{"models": ["gpt-*"], "requests_per_minute": 77}]
    tier = set_tier(ladder="ours", step=1, slug="first", name="First", rates=rates, monthly_cap_nanos=500 * DOLLAR)
    assert "On no tier." in bob_client.get(url("limit_organization", workspace)).text
    assert alice_client.post(url("tier_edit", workspace), {"tier": "none-such"}).status_code == 422
    assert alice_client.post(url("tier_edit", workspace), {"tier": "first"}).status_code == 302
    assert TierPlace.objects.get().tier == tier
    assert SpendLimit.objects.get().amount_nanos == 500 * DOLLAR
    text = words(bob_client.get(url("limit_organization", workspace)).text)
    assert "Tier First since" in text
    assert "At most $500.00 a month." in text
    assert f"Tier First gpt-* {used(0, 77)} no limit no limit no limit" in text
    assert alice_client.post(url("tier_edit", workspace), {"tier": ""}).status_code == 302
    assert not TierPlace.objects.exists()
    put_on_tier(organization=organization, tier=tier)
    assert "First" in alice_client.get(url("tier_edit", workspace)).text


# As fragments ------------------------------------------------------------------------------------------------------


def test_htmx_gets_the_part_that_changes_and_the_count(alice_client, workspace, bob):
    found = limit(workspace, 10)
    ask(found, bob)
    for name, args in [("limit_list", []), ("limit_ledger", [found.uid]), ("increase_list", [])]:
        page = alice_client.get(url(name, workspace, *args), headers=HTMX).text
        assert "<h1>" not in page
        assert '<span id="waiting-limits" class="nav__count" hx-swap-oob="true"><span class="badge' in page


def test_no_page_holds_inline_code_or_style(alice_client, workspace, organization, bob):
    found = limit(workspace, 10)
    wish = ask(found, bob)
    lost = lease_of(organization, workspace, "orphaned")
    for name, *args in [
        ("limit_list",),
        ("limit_organization",),
        ("limit_create",),
        ("limit_edit", found.uid),
        ("limit_remove", found.uid),
        ("limit_ledger", found.uid),
        ("lease_release", found.uid, lost.pk),
        ("increase_create", found.uid),
        ("increase_list",),
        ("increase_answer", wish.uid),
        ("rate_create",),
        ("group_create",),
        ("tier_edit",),
    ]:
        page = alice_client.get(url(name, workspace, *args)).text
        for forbidden in (" style=", " onclick=", "javascript:", "hx-on", "<script>"):
            assert forbidden not in page, name
