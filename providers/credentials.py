"""Seal and open providers' credentials: each is bound to its provider's row and origin (``console.sealing``)."""

from console import sealing
from console.sealing import Secret, is_on_newest_key, known_key_ids, newest_key_id, wrapping_key_id
from providers.origins import origin_of

__all__ = [
    "VOID",
    "CredentialUnreadable",
    "Secret",
    "is_on_newest_key",
    "known_key_ids",
    "newest_key_id",
    "rewrap",
    "seal",
    "unseal",
    "wrapping_key_id",
]

# Stands in the place of a credential that a change of origin has voided: one is needed, none can be opened.
VOID = b""


class CredentialUnreadable(Exception):
    """A sealed credential that cannot be opened here: another key, row or origin, or damaged."""


def seal(secret: Secret | str, *, provider) -> bytes:
    """``secret`` sealed for ``provider`` and the origin of its base URL; the provider must have both ids."""
    return sealing.seal(secret, owner=_owned_by(provider), bound=_bound_to(provider))


def unseal(provider) -> Secret | None:
    """The credential of ``provider``, ``None`` where it has none; raises ``CredentialUnreadable``."""
    if provider.sealed_credential is None:
        return None
    try:
        return sealing.unseal(provider.sealed_credential, owner=_owned_by(provider), bound=_bound_to(provider))
    except sealing.Unreadable:
        raise _unreadable(provider) from None


def rewrap(provider) -> bytes:
    """The sealed credential with its data key under the newest key of the ring; raises ``CredentialUnreadable``."""
    try:
        return sealing.rewrap(provider.sealed_credential, owner=_owned_by(provider))
    except sealing.Unreadable:
        raise _unreadable(provider) from None


def _unreadable(provider):
    return CredentialUnreadable(f"The credential of {provider.uid} cannot be opened.")


def _owned_by(provider):
    return "\n".join([f"comptoir credential {sealing.VERSION}", provider.organization.uid, provider.uid]).encode()


def _bound_to(provider):
    return _owned_by(provider) + b"\n" + origin_of(provider.base_url).encode()
