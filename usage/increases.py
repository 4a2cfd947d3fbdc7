"""Asking for a higher limit, and answering: each step is audited."""

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from console import audit
from console.revision import bump_revision
from usage.models import LimitIncrease, SpendLimit
from usage.spend_limits import recall

# What is empty until somebody has answered, or for a wish that was denied.
UNDECIDED = ["requested_by", "decided_by", "decided_at", "granted_nanos", "granted_until"]
ANSWERED = _("Somebody has answered this already.")


@transaction.atomic
def request_increase(*, limit, amount_nanos, until, reason, requested_by) -> LimitIncrease:
    """
    Ask those who manage for ``amount_nanos`` on top of the limit until ``until``.

    A person has one wish for a limit at a time. Raises ``ValidationError``.
    """
    # Whoever asks twice at once waits here for their first wish.
    _hold(limit.pk)
    _check(amount_nanos, until)
    if waiting_increase(limit, requested_by):
        raise ValidationError(_("You have asked for more here already; that waits for an answer."))
    increase = LimitIncrease(
        spend_limit=limit, amount_nanos=amount_nanos, until=until, reason=reason, requested_by=requested_by
    )
    increase.full_clean(exclude=UNDECIDED)
    increase.save()
    audit.record(
        organization=limit.organization,
        actor=requested_by,
        action="limit_increase.requested",
        target=increase,
        limit=limit.uid,
        amount_nanos=amount_nanos,
        until=until.isoformat(),
    )
    return increase


def waiting_increase(limit, person) -> LimitIncrease | None:
    """The wish of a person for a limit that waits for an answer."""
    pending = LimitIncrease.State.PENDING
    return LimitIncrease.objects.filter(spend_limit=limit, requested_by=person, state=pending).first()


@transaction.atomic
def approve_increase(*, increase, amount_nanos, until, answer="", actor) -> SpendLimit:
    """
    Let the limit's scope spend ``amount_nanos`` more until ``until``, whatever was asked for; return the limit.

    One grant at a time: a later one takes the place of an earlier one. Raises ``ValidationError``.
    """
    increase = _pending(increase)
    _check(amount_nanos, until)
    limit = increase.spend_limit
    limit.raised_nanos, limit.raised_until = amount_nanos, until
    limit.save(update_fields=["raised_nanos", "raised_until"])
    recall(limit)
    increase.granted_nanos, increase.granted_until = amount_nanos, until
    _decide(increase, LimitIncrease.State.APPROVED, answer, actor)
    audit.record(
        organization=limit.organization,
        actor=actor,
        action="limit_increase.approved",
        target=increase,
        limit=limit.uid,
        asked_nanos=increase.amount_nanos,
        amount_nanos=amount_nanos,
        until=until.isoformat(),
    )
    bump_revision()
    return limit


@transaction.atomic
def deny_increase(*, increase, answer="", actor):
    """Leave the limit as it is, and say so. Raises ``ValidationError``."""
    increase = _pending(increase)
    _decide(increase, LimitIncrease.State.DENIED, answer, actor)
    audit.record(
        organization=increase.spend_limit.organization,
        actor=actor,
        action="limit_increase.denied",
        target=increase,
        limit=increase.spend_limit.uid,
        asked_nanos=increase.amount_nanos,
    )


def _pending(increase):
    """The wish as it stands, locked; two people cannot answer it."""
    # The limit first, as who removes it does.
    limit = _hold(increase.spend_limit_id)
    increase = LimitIncrease.objects.select_for_update().get(pk=increase.pk)
    increase.spend_limit = limit
    if increase.state != LimitIncrease.State.PENDING:
        raise ValidationError(ANSWERED)
    return increase


def _hold(limit_id):
    """The limit as it is now, which nobody changes or removes before the transaction ends."""
    limit = SpendLimit.objects.select_for_update(of=["self"]).select_related("organization").filter(pk=limit_id).first()
    if limit is None:
        raise ValidationError(_("The limit has been removed meanwhile."))
    return limit


def _check(amount_nanos, until):
    if amount_nanos <= 0:
        raise ValidationError({"amount_nanos": _("More is an amount above zero.")})
    if until <= timezone.now():
        raise ValidationError({"until": _("That moment has passed.")})


def _decide(increase, state, answer, actor):
    increase.state, increase.answer = state, answer
    increase.decided_by, increase.decided_at = actor, timezone.now()
    increase.full_clean(exclude=UNDECIDED)
    increase.save()
