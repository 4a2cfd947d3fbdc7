"""
Spend alerts: thresholds of limits that were passed, and limits that refuse; told once a period, and again when it ends.

What is told is written with the alert, as rows that ``usage.deliveries`` sends: to webhooks, and by mail to those who
manage the organization and to whom the limit is of. An alert is resolved when its period ends, when the amount is
raised above what is spent, or when the limit is removed; passed again after that, it is told again.
"""

from collections import defaultdict
from decimal import Decimal
from typing import NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import F, OuterRef, Q, Subquery
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from console import audit, formatting
from console.models import ApiKey, Member, Organization, User, Workspace
from usage import deliveries, webhooks
from usage.models import LedgerPeriod, LimitAlert, MailDelivery, Scope, SpendLimit

FULL = 100
PASSED, REFUSING, RESOLVED = "spend_limit.threshold_passed", "spend_limit.refusing", "spend_limit.resolved"
PERIOD_ENDED, RAISED, REMOVED = "period_ended", "amount_raised", "limit_removed"
ALL_SPENT, TOO_LITTLE_LEFT = "all_spent", "too_little_left"


class Subject(NamedTuple):
    """Whom a limit is of: its public id, its name, the name of a key's workspace, and the person to tell beside."""

    uid: str
    name: str
    workspace: str = ""
    user_id: int | None = None


class News(NamedTuple):
    """What is told of one limit: which event, of which interval, and how much was spent of how much."""

    event: str
    limit: SpendLimit
    interval: LedgerPeriod
    threshold: int
    spent_nanos: int
    amount_nanos: int
    because: str = ""

    @property
    def is_short(self):
        """Whether a request was refused although not all is spent: it may cost more than is left."""
        return self.event == REFUSING and self.spent_nanos < self.amount_nanos

    @property
    def reason(self):
        """Why it is told, where that is not just a threshold."""
        if self.event == REFUSING:
            return TOO_LITTLE_LEFT if self.is_short else ALL_SPENT
        return self.because


# Noticing --------------------------------------------------------------------------------------------------------


def evaluate(now=None) -> int:
    """Raise and resolve alerts by what the ledger says now; return how many limits there was something to tell of."""
    now = now or timezone.now()
    by_organization = defaultdict(lambda: ([], []))
    for limit, book_id, spent in _passed(now):
        by_organization[limit.organization_id][0].append((limit, book_id, spent))
    open_alerts = LimitAlert.objects.filter(resolved_at=None).select_related("spend_limit", "ledger_period")
    for alert in open_alerts.order_by("pk"):
        if _resolved_because(alert, alert.spend_limit, now):
            by_organization[alert.spend_limit.organization_id][1].append(alert)
    told = 0
    for organization_id, (passed, over) in by_organization.items():
        with transaction.atomic():
            limits = _held({limit.pk for limit, *_book in passed} | {alert.spend_limit_id for alert in over})
            news = [*_resolve(_still_over(over, limits, now), now), *_raise(_still_passed(passed, limits), now)]
            _tell(organization_id, news)
            told += len(news)
    return told


def _held(ids):
    """The limits as they are now, by id; none is changed or removed before the transaction ends."""
    found = SpendLimit.objects.select_for_update(no_key=True).filter(pk__in=ids).order_by("pk")
    return {limit.pk: limit for limit in found}


def _still_passed(passed, limits):
    return [(limits[limit.pk], *book) for limit, *book in passed if limit.pk in limits]


def _still_over(over, limits, now):
    for alert in over:
        limit = limits.get(alert.spend_limit_id)
        if limit is not None and (because := _resolved_because(alert, limit, now)):
            alert.spend_limit = limit
            yield alert, because


@transaction.atomic
def note_refusal(key) -> bool:
    """
    Raise the alert of a hard limit that refused a request in the interval ``key`` of the ledger; whether it is new.

    What is left may be too little for a request although nothing was spent beyond the limit.
    """
    found = SpendLimit.objects.filter(
        organization=key.organization_id, scope=key.scope, scope_id=key.scope_id, period=key.period, is_hard=True
    )
    limit = found.select_for_update(no_key=True).first()
    if limit is None:
        return False
    book, _made = LedgerPeriod.objects.get_or_create(
        organization_id=key.organization_id,
        scope=key.scope,
        scope_id=key.scope_id,
        period=key.period,
        start=key.start,
        defaults={"end": key.end},
    )
    now = timezone.now()
    if book.end <= now:
        return False
    amount = limit.amount_at(now)
    if not _open(limit, book.pk, FULL, book.settled_nanos, amount, now):
        return False
    _tell(key.organization_id, [News(REFUSING, limit, book, FULL, book.settled_nanos, amount)])
    return True


def close(limit):
    """Resolve what is open of a limit, which must be held, before it is removed; its alerts go with it."""
    alerts = limit.alerts.filter(resolved_at=None).select_related("spend_limit", "ledger_period")
    news = _resolve([(alert, REMOVED) for alert in alerts], timezone.now())
    _tell(limit.organization_id, news)


def thresholds_of(limit) -> list[int]:
    """The percentages at which somebody is told; of a hard limit the full amount too, since it then refuses."""
    return sorted({*limit.thresholds, *([FULL] if limit.is_hard else [])})


def _passed(now):
    """Limits of which a threshold is passed in the interval of ``now``, with that interval's id and its spending."""
    book = LedgerPeriod.objects.filter(
        organization=OuterRef("organization"),
        scope=OuterRef("scope"),
        scope_id=OuterRef("scope_id"),
        period=OuterRef("period"),
        start__lte=now,
        end__gt=now,
    )
    limits = SpendLimit.objects.annotate(
        book_id=Subquery(book.values("pk")[:1]), spent=Subquery(book.values("settled_nanos")[:1])
    ).filter(spent__gt=0)
    for limit in limits.order_by("pk").iterator():
        thresholds = thresholds_of(limit)
        if thresholds and _is_passed(limit.spent, limit.amount_at(now), thresholds[0]):
            yield limit, limit.book_id, limit.spent


def _is_passed(spent, amount, threshold):
    return spent > 0 and spent * 100 >= amount * threshold


def _raise(passed, now):
    """Alerts for what was passed and is not known; one piece of news a limit, of its highest threshold."""
    known = LimitAlert.objects.filter(
        ledger_period__in=[book_id for _limit, book_id, _spent in passed], resolved_at=None
    )
    is_open = set(known.values_list("spend_limit_id", "ledger_period_id", "threshold"))
    # These have refused a request that was too large for what was left; now nothing is left.
    too_little = set(
        known.filter(threshold=FULL, spent_nanos__lt=F("amount_nanos")).values_list(
            "spend_limit_id", "ledger_period_id"
        )
    )
    for limit, book_id, spent in passed:
        amount = limit.amount_at(now)
        new = [
            threshold
            for threshold in thresholds_of(limit)
            if _is_passed(spent, amount, threshold)
            and (limit.pk, book_id, threshold) not in is_open
            and _open(limit, book_id, threshold, spent, amount, now)
        ]
        if (limit.pk, book_id, FULL) in is_open and (limit.pk, book_id) not in too_little:
            # Whoever knows that it is used up need not be told that it nearly is.
            new = [threshold for threshold in new if threshold > FULL]
        if spent >= amount and (limit.pk, book_id) in too_little and _fill(limit, book_id, spent, amount):
            new.append(FULL)
        if new:
            event = REFUSING if limit.is_hard and spent >= amount else PASSED
            yield News(event, limit, LedgerPeriod.objects.get(pk=book_id), max(new), spent, amount)


def _open(limit, book_id, threshold, spent, amount, now):
    """Open an alert that is not open; whether this process did."""
    values = {"spent_nanos": spent, "amount_nanos": amount, "raised_at": now, "resolved_at": None}
    alert, made = LimitAlert.objects.get_or_create(
        spend_limit=limit, ledger_period_id=book_id, threshold=threshold, defaults=values
    )
    if made:
        return True
    return bool(LimitAlert.objects.filter(pk=alert.pk, resolved_at__isnull=False).update(**values))


def _fill(limit, book_id, spent, amount):
    """Say of an open alert that nothing is left any more; whether this process did."""
    alert = LimitAlert.objects.filter(
        spend_limit=limit, ledger_period=book_id, threshold=FULL, resolved_at=None, spent_nanos__lt=F("amount_nanos")
    )
    return bool(alert.update(spent_nanos=spent, amount_nanos=amount))


def _resolved_because(alert, limit, now):
    book = alert.ledger_period
    if book.end <= now:
        return PERIOD_ENDED
    amount = limit.amount_at(now)
    if _is_passed(book.settled_nanos, amount, alert.threshold):
        return ""
    # One that refuses has more left than nothing: it is over only where that grew, or where it refuses no more.
    return RAISED if amount > alert.amount_nanos or not limit.is_hard else ""


def _resolve(over, now):
    """Close alerts; one piece of news a limit and reason, of its highest threshold."""
    highest = {}
    for alert, because in over:
        if LimitAlert.objects.filter(pk=alert.pk, resolved_at=None).update(resolved_at=now):
            key = alert.spend_limit_id, because
            if key not in highest or highest[key].threshold < alert.threshold:
                limit, book = alert.spend_limit, alert.ledger_period
                amount = limit.amount_at(now)
                highest[key] = News(RESOLVED, limit, book, alert.threshold, book.settled_nanos, amount, because)
    return list(highest.values())


# Showing ---------------------------------------------------------------------------------------------------------


def alerts_for_list(organization):
    """Every alert of an organization, the open ones first, then the latest."""
    alerts = LimitAlert.objects.filter(spend_limit__organization=organization)
    return alerts.select_related("spend_limit", "ledger_period").order_by(
        F("resolved_at").desc(nulls_first=True), "-raised_at", "-pk"
    )


def open_alerts(member, workspace):
    """
    The highest open alert of each limit that ``member`` should know of on the pages of ``workspace``.

    Everybody sees those of the workspace, of keys of their own and of themselves; who manages, also all others.
    """
    alerts = LimitAlert.objects.filter(spend_limit__organization=workspace.organization, resolved_at=None)
    if not member.may(Member.Role.ADMIN):
        own_keys = ApiKey.objects.filter(workspace=workspace, created_by=member.user_id).values("pk")
        alerts = alerts.filter(
            Q(spend_limit__scope=Scope.WORKSPACE, spend_limit__scope_id=workspace.pk)
            | Q(spend_limit__scope=Scope.MEMBER, spend_limit__scope_id=member.user_id)
            | Q(spend_limit__scope=Scope.API_KEY, spend_limit__scope_id__in=own_keys)
        )
    highest = {}
    for alert in alerts.select_related("spend_limit", "ledger_period").order_by("threshold", "pk"):
        highest[alert.spend_limit_id] = alert
    return sorted(highest.values(), key=lambda alert: (not refuses(alert), -alert.threshold, -alert.pk))


def refuses(alert) -> bool:
    """Whether an alert says that its limit refuses requests."""
    return alert.spend_limit.is_hard and alert.threshold >= FULL


def subjects_of(limits) -> dict[tuple[str, int], Subject]:
    """Whom limits are of, by scope and id, in a query a scope."""
    ids = defaultdict(set)
    for limit in limits:
        ids[limit.scope].add(limit.scope_id)
    found = {}
    for row in Organization.objects.filter(pk__in=ids[Scope.ORGANIZATION]) if ids[Scope.ORGANIZATION] else ():
        found[Scope.ORGANIZATION.value, row.pk] = Subject(row.uid, row.name)
    for row in Workspace.objects.filter(pk__in=ids[Scope.WORKSPACE]) if ids[Scope.WORKSPACE] else ():
        found[Scope.WORKSPACE.value, row.pk] = Subject(row.uid, row.name)
    keys = ApiKey.objects.select_related("workspace")
    for row in keys.filter(pk__in=ids[Scope.API_KEY]) if ids[Scope.API_KEY] else ():
        found[Scope.API_KEY.value, row.pk] = Subject(row.uid, row.name, row.workspace.name, row.created_by_id)
    for row in User.objects.filter(pk__in=ids[Scope.MEMBER]) if ids[Scope.MEMBER] else ():
        found[Scope.MEMBER.value, row.pk] = Subject(row.uid, str(row), "", row.pk)
    return found


def of(limit) -> dict:
    """Whom a limit is of, for the audit log, which outlives it; one query."""
    subject = subjects_of([limit]).get((limit.scope, limit.scope_id))
    return {
        "scope": str(limit.scope),
        "of_uid": subject.uid if subject else None,
        "of_name": subject.name if subject else None,
    }


def who(limit, subject) -> str:
    """Whom a limit is of, in the reader's language: Workspace default."""
    if subject is None:
        return limit.get_scope_display()
    if limit.scope == Scope.ORGANIZATION:
        return _("Organization %(name)s") % {"name": subject.name}
    if limit.scope == Scope.WORKSPACE:
        return _("Workspace %(name)s") % {"name": subject.name}
    if limit.scope == Scope.API_KEY:
        return _("Key %(name)s of workspace %(workspace)s") % {"name": subject.name, "workspace": subject.workspace}
    return _("Member %(name)s") % {"name": subject.name}


def written(nanos, amount_nanos, currency) -> str:
    """A sum beside a limit of ``amount_nanos``: as finely as single requests where that is below one unit."""
    if 0 < amount_nanos < formatting.NANOS:
        return formatting.money(nanos, currency, extra_digits=2)
    return formatting.money_total(nanos, currency)


def rate(amount_nanos, period, currency) -> str:
    """An amount with its period, in the reader's language: €5.00 a month."""
    amount = written(amount_nanos, amount_nanos, currency)
    if period == "day":
        return _("%(amount)s a day") % {"amount": amount}
    if period == "week":
        return _("%(amount)s a week") % {"amount": amount}
    return _("%(amount)s a month") % {"amount": amount}


def percent(threshold) -> str:
    """A threshold in the reader's language: 80%."""
    space = "" if formatting.reader_locale().language == "en" else formatting.THIN
    return f"{threshold}{space}%"


def headline(news, subject, currency) -> str:
    """What happened, in one sentence without a full stop, in the reader's language."""
    values = {
        "who": who(news.limit, subject),
        "limit": rate(news.amount_nanos, news.limit.period, currency),
        "percent": percent(news.threshold),
    }
    if news.is_short:
        return _("%(who)s was refused a request: it may cost more than is left of %(limit)s") % values
    if news.event == REFUSING:
        return _("%(who)s has used up %(limit)s: requests are refused") % values
    if news.event == PASSED:
        return _("%(who)s has spent %(percent)s of %(limit)s") % values
    if news.because == PERIOD_ENDED:
        return _("%(who)s has %(limit)s again: a new period has begun") % values
    if news.because == REMOVED:
        return _("%(who)s: the limit of %(limit)s was removed") % values
    return _("%(who)s may go on: the limit is %(limit)s now") % values


# Telling ---------------------------------------------------------------------------------------------------------


def _tell(organization_id, news):
    """Write what goes out, in the transaction that changed the alerts."""
    news = list(news)
    if not news:
        return
    organization = Organization.objects.get(pk=organization_id)
    subjects = subjects_of([each.limit for each in news])
    for each in news:
        _audit(each, organization, subjects.get((each.limit.scope, each.limit.scope_id)))
    for webhook in webhooks.held(organization.webhooks.filter(disabled_at=None)):
        webhook.organization = organization
        for each in news:
            webhooks.enqueue(webhook, each.event, _data(each, organization, subjects))
    if deliveries.can_mail():
        MailDelivery.objects.bulk_create(
            MailDelivery(organization=organization, user=user, **_mail(user, organization, mine, subjects))
            for user, mine in _recipients(organization, news, subjects)
        )


def _audit(news, organization, subject):
    audit.record(
        organization=organization,
        actor=None,
        is_unattended=True,
        action="spend_alert.resolved" if news.event == RESOLVED else "spend_alert.raised",
        target=news.limit,
        scope=news.limit.scope,
        of_uid=subject.uid if subject else None,
        of_name=subject.name if subject else None,
        period=news.limit.period,
        event=news.event,
        because=news.reason,
        threshold_percent=None if news.is_short else news.threshold,
        spent_nanos=news.spent_nanos,
        amount_nanos=news.amount_nanos,
    )


def _data(news, organization, subjects):
    limit, book = news.limit, news.interval
    subject = subjects.get((limit.scope, limit.scope_id))
    data = {
        "limit": {
            "id": limit.uid,
            "scope": limit.scope,
            "scope_id": subject.uid if subject else None,
            "scope_name": subject.name if subject else None,
            "period": limit.period,
            "hard": limit.is_hard,
        },
        "period_start": _instant(book.start),
        "period_end": _instant(book.end),
        "threshold_percent": None if news.is_short else news.threshold,
        "currency": organization.currency,
        "spent": _decimal(news.spent_nanos),
        "amount": _decimal(news.amount_nanos),
        "spent_nanos": news.spent_nanos,
        "amount_nanos": news.amount_nanos,
    }
    return data | ({"because": news.reason} if news.reason else {})


def _instant(moment):
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _decimal(nanos):
    """An amount as a text of nine decimals, which every language reads exactly."""
    return f"{Decimal(nanos).scaleb(-9):.9f}"


def _recipients(organization, news, subjects):
    """Who is told of what: those who manage all of it, whoever a limit is of what is theirs."""
    members = organization.members.filter(user__is_active=True).select_related("user").order_by("pk")
    for member in members:
        mine = [
            each
            for each in news
            if member.may(Member.Role.ADMIN) or _is_of(subjects.get((each.limit.scope, each.limit.scope_id)), member)
        ]
        if mine:
            yield member.user, mine


def _is_of(subject, member):
    return subject is not None and subject.user_id == member.user_id


def _mail(user, organization, news, subjects):
    """Subject and body of one mail, in the language and by the clock that its reader has."""
    with translation.override(user.language or settings.LANGUAGE_CODE), timezone.override(organization.time_zone):
        headlines = [
            headline(each, subjects.get((each.limit.scope, each.limit.scope_id)), organization.currency)
            for each in news
        ]
        subject = headlines[0]
        if len(news) > 1:
            subject = ngettext("%(number)s spend alert of %(name)s", "%(number)s spend alerts of %(name)s", len(news))
            subject %= {"number": formatting.integer(len(news)), "name": organization.name}
        parts = [
            "\n".join([f"{line}.", *_facts(each, organization)]) for line, each in zip(headlines, news, strict=True)
        ]
        if settings.PUBLIC_URL:
            parts.append(settings.PUBLIC_URL + reverse("usage:alert_list", args=[organization.slug]))
        parts.append(_("Sent by Comptoir to you as a member of %(name)s.") % {"name": organization.name})
    # A name may hold what no header may.
    return {"subject": " ".join(subject.splitlines())[:200], "body": "\n\n".join(parts) + "\n"}


def _facts(news, organization):
    money = {
        "spent": written(news.spent_nanos, news.amount_nanos, organization.currency),
        "amount": written(news.amount_nanos, news.amount_nanos, organization.currency),
    }
    interval = {
        "start": formatting.moment(news.interval.start),
        "end": formatting.moment(news.interval.end),
        "zone": organization.time_zone,
    }
    lines = [
        _("Spent: %(spent)s of %(amount)s.") % money,
        _("Period: %(start)s to %(end)s, %(zone)s.") % interval,
    ]
    if news.event != RESOLVED:
        lines.append(
            _("The limit is hard: a request that could pass it is refused.")
            if news.limit.is_hard
            else _("The limit is soft: requests pass, and you are told.")
        )
    return lines
