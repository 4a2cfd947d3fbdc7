"""The audit log: one event a change, in the change's own transaction."""

from console.models import AuditEvent


def record(*, organization, actor, action, target, **details):
    """
    Write that ``actor`` (a User, or None for the command line) did ``action`` to ``target``.

    ``action`` is a noun and a past verb such as ``api_key.created``; ``details`` must hold no secret.
    """
    return AuditEvent.objects.create(
        organization=organization,
        actor=actor,
        actor_label=actor.email if actor else "command line",
        action=action,
        target_uid=getattr(target, "uid", ""),
        target_label=str(target)[:200],
        details=details,
    )
