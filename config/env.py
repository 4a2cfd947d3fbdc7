"""The environment, typed at the edge: a value that cannot be used stops the start with one clear line."""

import os
import secrets
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

TRUE, FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


def env_str(name, default=""):
    """The variable's text without surrounding space, or ``default`` where it is unset."""
    return os.environ.get(name, default).strip()


def env_bool(name, default=False):
    """``1/true/yes/on`` or ``0/false/no/off``; anything else stops the start."""
    value = os.environ.get(name)
    if value is None:
        return default
    value = value.strip().lower()
    if value in TRUE | FALSE:
        return value in TRUE
    raise ImproperlyConfigured(f"{name} must be true or false, not {value!r}.")


def env_int(name, default, *, least=None, most=None):
    """A whole number within the given bounds."""
    value = os.environ.get(name, "").strip()
    if not value:
        return default
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number, not {value!r}.") from None
    if (least is not None and number < least) or (most is not None and number > most):
        raise ImproperlyConfigured(f"{name} must lie between {least} and {most}, not {number}.")
    return number


def env_list(name):
    """A comma-separated list; empty entries are dropped."""
    return [part.strip() for part in os.environ.get(name, "").split(",") if part.strip()]


def env_secret(name):
    """The secret in ``NAME``, or in the file that ``NAME_FILE`` names; ``None`` where neither is set."""
    if path := os.environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE cannot be read: {error}.") from None
    return os.environ.get(name) or None


# How a mail server is spoken to, by the scheme of its address: plainly, turning to TLS, or in TLS from the start.
MAIL_SCHEMES = {"smtp": {}, "smtp+starttls": {"use_tls": True}, "smtps": {"use_ssl": True}}
MAIL_SECONDS = 10


def env_mailers(name):
    """Django's ``MAILERS`` for the mail server in ``NAME``, such as smtp+starttls://user:password@host:587."""
    url = env_secret(name)
    if not url:
        return {}
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = parts = None
    if not host or parts.scheme not in MAIL_SCHEMES or parts.path.strip("/") or parts.query or parts.fragment:
        # Without the text, which holds a password.
        raise ImproperlyConfigured(f"{name} must look like smtp+starttls://user:password@mail.example.org:587.")
    options = {"host": host, "timeout": MAIL_SECONDS} | MAIL_SCHEMES[parts.scheme]
    options |= {"port": port} if port else {}
    if parts.username:
        options |= {"username": unquote(parts.username), "password": unquote(parts.password or "")}
    return {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}}


def make_folder(path):
    """Make the folder ``path`` where there is none."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"The folder {path} cannot be made: {error.strerror}.") from None


def stored_secret(folder, name):
    """
    The secret ``name`` kept in ``folder``, made on first use.

    Readable by the owner alone. Two processes that start together agree on one value: the first link wins.
    """
    path = Path(folder) / name
    try:
        return path.read_text()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ImproperlyConfigured(f"The secret {path} cannot be read: {error.strerror}.") from None
    draft = path.with_name(f".{name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(48))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        raise ImproperlyConfigured(f"The data folder {path.parent} cannot be written: {error.strerror}.") from None
    return path.read_text()
