"""Setting what may be spent: each change is audited, known to every process within a second, and safe to repeat."""

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console import audit
from console.announcements import LEDGER, announce
from console.formatting import money
from console.revision import bump_revision
from usage import limit_alerts
from usage.models import LedgerPeriod, Scope, SpendLimit, SpendPeriod, TierPlace
from usage.turns import take_turn

DEFAULT_THRESHOLDS = [80, 100]
LEAST_PERCENT, MOST_PERCENT = 1, 1000


@transaction.atomic
def set_spend_limit(
    *,
    organization,
    scope,
    scope_id,
    period,
    amount_nanos,
    is_hard=True,
    allows_unpriced=False,
    thresholds=None,
    actor=None,
    is_unattended=False,
) -> SpendLimit:
    """
    Let a scope spend ``amount_nanos`` in each of its periods, whatever it was before.

    ``thresholds`` are the percentages at which somebody is told; those of before, or the usual ones, without them.
    ``is_unattended`` says that the server does it by itself.
    Raises ``ValidationError`` for what is no limit, and for one that the organization's tier does not allow.
    """
    take_turn(organization)
    _require_below_cap(organization, scope, period, amount_nanos, is_hard)
    limit = SpendLimit.objects.select_for_update().filter(
        organization=organization, scope=scope, scope_id=scope_id, period=period
    ).first()  # fmt: skip
    action = "spend_limit.changed" if limit else "spend_limit.set"
    before = _told(limit) if limit else None
    if limit is None:
        limit = SpendLimit(organization=organization, scope=scope, scope_id=scope_id, period=period)
    limit.amount_nanos, limit.is_hard, limit.allows_unpriced = amount_nanos, is_hard, allows_unpriced
    limit.thresholds = sorted(set(thresholds)) if thresholds is not None else limit.thresholds or DEFAULT_THRESHOLDS
    limit.changed_at, limit.changed_by = timezone.now(), actor
    limit.full_clean()
    limit.save()
    recall(limit)
    audit.record(
        organization=organization,
        actor=actor,
        action=action,
        target=limit,
        is_unattended=is_unattended,
        **limit_alerts.of(limit),
        period=limit.period,
        before=before,
        after=_told(limit),
    )
    bump_revision()
    return limit


@transaction.atomic
def remove_spend_limit(*, limit, actor=None):
    """
    Let the limit's scope spend without it; what the organization's tier has as a cap a month takes its place.

    Removing it twice changes nothing.
    """
    take_turn(limit.organization)
    # Held, so that nobody raises an alert of it, or asks for more of it, meanwhile.
    if not SpendLimit.objects.select_for_update().filter(pk=limit.pk).first():
        return
    cap = cap_of(limit.organization, limit.scope, limit.period)
    if cap is not None:
        set_spend_limit(
            organization=limit.organization,
            scope=limit.scope,
            scope_id=limit.scope_id,
            period=limit.period,
            amount_nanos=cap,
            actor=actor,
        )
        return
    audit.record(
        organization=limit.organization,
        actor=actor,
        action="spend_limit.removed",
        target=limit,
        **limit_alerts.of(limit),
        period=limit.period,
        before=_told(limit),
    )
    limit_alerts.close(limit)
    SpendLimit.objects.filter(pk=limit.pk).delete()
    bump_revision()


def _told(limit):
    """What the audit log says of a limit."""
    return {name: getattr(limit, name) for name in ("amount_nanos", "is_hard", "allows_unpriced", "thresholds")}


def cap_of(organization, scope, period):
    """What the organization's tier lets it spend in a month, in nanos; ``None`` where that is no cap of this limit."""
    if scope != Scope.ORGANIZATION or period != SpendPeriod.MONTH:
        return None
    return TierPlace.objects.filter(organization=organization).values_list("tier__monthly_cap_nanos", flat=True).first()


def _require_below_cap(organization, scope, period, amount_nanos, is_hard):
    cap = cap_of(organization, scope, period)
    if cap is None or (amount_nanos <= cap and is_hard):
        return
    message = _("The organization’s tier caps a month at %(cap)s: its own limit can be lower, and must be hard too.")
    raise ValidationError({"amount_nanos": ValidationError(message, params={"cap": money(cap, organization.currency)})})


def recall(limit):
    """Have every process return what lies idle there: a limit that was lowered must not be spent from old slices."""
    LedgerPeriod.objects.filter(
        organization=limit.organization,
        scope=limit.scope,
        scope_id=limit.scope_id,
        period=limit.period,
        end__gt=timezone.now(),
    ).update(recalled_at=timezone.now())
    announce(LEDGER)
