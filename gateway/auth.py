"""Headers to a caller: one extractor for every spelling of a key, and one answer for every wrong one."""

import time

from django.conf import settings

from console.api_keys import digest, is_well_formed
from gateway import errors
from gateway.snapshot import CURRENT_SECONDS, USABLE_SECONDS


def key_of(headers):
    """The API key in ``headers``, a list of name and value; raises ``GatewayError`` for none or two."""
    found = set()
    for name, value in headers:
        if name == b"authorization":
            scheme, _, secret = value.partition(b" ")
            if scheme.lower() == b"bearer":
                found.add(secret.strip())
        elif name == b"x-api-key":
            found.add(value.strip())
    found.discard(b"")
    if not found:
        raise errors.no_key()
    if len(found) > 1:
        raise errors.two_keys()
    return found.pop().decode("latin-1")


async def authenticate(headers, keeper):
    """
    The ``Caller`` whose key stands in ``headers``.

    Junk is refused by its checksum, without a look-up. A well-formed key that is not known is asked for once more,
    since it may be a moment old; while the database does not answer it is neither right nor wrong: 503.
    """
    secret = key_of(headers)
    known_as = digest(secret, settings.API_KEY_PEPPER)
    key = keeper.current.keys.get(known_as)
    if key is None and not is_well_formed(secret):
        raise errors.wrong_key()
    if keeper.age > USABLE_SECONDS:
        raise errors.not_ready()
    if key is None:
        await keeper.refresh()
        key = keeper.current.keys.get(known_as)
        if key is None:
            raise errors.wrong_key() if keeper.age <= CURRENT_SECONDS else errors.not_ready()
    if key.is_disabled:
        raise errors.disabled_key()
    if key.expires_at is not None and key.expires_at <= time.time():
        raise errors.expired_key()
    return key.caller
