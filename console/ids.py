"""Unguessable public ids: a prefix that says what it is, and 22 characters of 128 random bits."""

import re
import secrets

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
UID = "[A-Za-z]+_[0-9A-Za-z]{22}"


def base62(number, width):
    """``number`` in base 62, left-padded to ``width`` characters."""
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def new_id(prefix):
    """Such as ``apikey_3fQ…``."""
    return f"{prefix}_{base62(secrets.randbits(128), 22)}"


def is_uid(text):
    """Whether ``text``, which somebody sent, has the form of a public id."""
    return re.fullmatch(UID, text) is not None


def new_user_id():
    return new_id("user")


def new_organization_id():
    return new_id("org")


def new_workspace_id():
    return new_id("wrkspc")


def new_api_key_id():
    return new_id("apikey")
