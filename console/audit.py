"""The audit log: one event a change, in the change's own transaction."""

from console.models import AuditEvent


def record(*, organization, actor, action, target, is_unattended=False, **details):
    """
    Write that ``actor`` did ``action`` to ``target``: a User, or None for the command line, or for the server itself
    where nobody asked for it.

    ``action`` is a noun and a past verb such as ``api_key.created``; ``details`` must hold no secret.
    """
    return AuditEvent.objects.create(
        organization=organization,
        actor=actor,
        actor_label=actor.email if actor else "server" if is_unattended else "command line",
        action=action,
        target_uid=getattr(target, "uid", ""),
        target_label=str(target)[:200],
        details=details,
    )
