"""
Seal and open texts that the database must not give away: AES-256-GCM under a data key of their own, bound to a row.

The data key is wrapped by one key of the ring ``settings.CREDENTIAL_KEYS``; rotating the ring rewraps data keys and
never touches what they seal. A sealed text is:

    version 1 | id of the wrapping key 8 | nonce 12 | wrapped data key 48 | nonce 12 | text and tag

``owner`` names the row whose text it is, and ``bound`` all that must not change without the text being given again.
"""

import hmac
import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

VERSION = 1
KEY_ID, NONCE, WRAPPED = 8, 12, 48
HEAD = 1 + KEY_ID + NONCE + WRAPPED


class Unreadable(Exception):
    """A sealed text that cannot be opened here: another key, row or binding, or damaged."""


class Secret:
    """A text that shows itself as ``***`` wherever it is printed, logged, copied out or pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str):
        self._text = text

    def reveal(self) -> str:
        """The text itself; call it where the header is made and nowhere else."""
        return self._text

    def __repr__(self):
        return "***"

    __str__ = __repr__

    def __format__(self, spec):
        return "***"

    def __eq__(self, other):
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self):
        return hash(self._text)

    def __bool__(self):
        return bool(self._text)

    def __reduce__(self):
        return Secret, ("***",)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


def seal(secret: Secret | str, *, owner: bytes, bound: bytes) -> bytes:
    """``secret`` as only the same owner and binding open it."""
    text = secret.reveal() if isinstance(secret, Secret) else secret
    data_key, nonce = AESGCM.generate_key(256), os.urandom(NONCE)
    return _wrap(data_key, owner) + nonce + AESGCM(data_key).encrypt(nonce, text.encode(), bound)


def unseal(sealed: bytes, *, owner: bytes, bound: bytes) -> Secret:
    """What was sealed; raises ``Unreadable``."""
    envelope = bytes(sealed)
    data_key = _unwrap(envelope, owner)
    try:
        text = AESGCM(data_key).decrypt(envelope[HEAD : HEAD + NONCE], envelope[HEAD + NONCE :], bound)
    except (InvalidTag, ValueError):
        raise Unreadable from None
    return Secret(text.decode())


def rewrap(sealed: bytes, *, owner: bytes) -> bytes:
    """The sealed text with its data key under the newest key of the ring; raises ``Unreadable``."""
    envelope = bytes(sealed)
    return _wrap(_unwrap(envelope, owner), owner) + envelope[HEAD:]


def wrapping_key_id(sealed: bytes) -> str:
    """Which key of the ring a sealed text needs, as 16 hexadecimal digits."""
    return bytes(sealed)[1 : 1 + KEY_ID].hex()


def newest_key_id() -> str:
    """The id of the key that seals now."""
    return _derived(settings.CREDENTIAL_KEYS[0])[0].hex()


def known_key_ids() -> set[str]:
    """The ids of all keys in the ring."""
    return {_derived(key)[0].hex() for key in settings.CREDENTIAL_KEYS}


def is_on_newest_key(sealed: bytes) -> bool:
    return wrapping_key_id(sealed) == newest_key_id()


def _wrap(data_key, owner):
    key_id, key = _derived(settings.CREDENTIAL_KEYS[0])
    nonce = os.urandom(NONCE)
    return bytes([VERSION]) + key_id + nonce + AESGCM(key).encrypt(nonce, data_key, owner)


def _unwrap(envelope, owner):
    """The data key; it is bound to the row alone, so that a rewrap needs no more than the ring."""
    key_id, nonce, wrapped = (
        envelope[1 : 1 + KEY_ID],
        envelope[1 + KEY_ID : HEAD - WRAPPED],
        envelope[HEAD - WRAPPED : HEAD],
    )
    if envelope[:1] == bytes([VERSION]) and len(envelope) > HEAD + NONCE:
        for ring_id, key in map(_derived, settings.CREDENTIAL_KEYS):
            if ring_id == key_id:
                try:
                    return AESGCM(key).decrypt(nonce, wrapped, owner)
                except InvalidTag:
                    break
    raise Unreadable


@lru_cache(maxsize=32)
def _derived(text):
    """Id and 32-byte key of one text of the ring."""
    material = HKDF(hashes.SHA256(), KEY_ID + 32, salt=None, info=b"comptoir credential wrapping key").derive(
        text.encode()
    )
    return material[:KEY_ID], material[KEY_ID:]
