"""What an API key looks like, and its keyed digest: pure functions, shared with the gateway."""

import hmac
import secrets
import zlib

from console.ids import base62

PREFIX = "sk-comptoir-"
SECRET_LENGTH, CHECK_LENGTH = 34, 6


def new_secret():
    """A key of 202 random bits with a checksum, so that junk is refused without a look-up."""
    body = base62(secrets.randbits(202), SECRET_LENGTH)
    return PREFIX + body + _check(body)


def is_well_formed(secret):
    """Whether ``secret`` could be a key of ours: prefix, length and checksum agree."""
    if not secret.startswith(PREFIX) or len(secret) != len(PREFIX) + SECRET_LENGTH + CHECK_LENGTH:
        return False
    return secret[-CHECK_LENGTH:] == _check(secret[len(PREFIX) : -CHECK_LENGTH])


def digest(secret, pepper):
    """HMAC-SHA-256 of the key under the server's pepper: 32 bytes."""
    return hmac.digest(pepper, secret.encode(), "sha256")


def _check(body):
    return base62(zlib.crc32(body.encode()), CHECK_LENGTH)
