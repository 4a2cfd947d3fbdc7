"""
Where a provider may stand: one strict parser of base URLs, and what may be connected to.

The same parser serves the form, the sealing of credentials and the clients, so no two of them can read one text
differently. Names are judged by the addresses they have at the moment of connecting (providers.client).
"""

import ipaddress
import re
import socket
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import idna
from django.conf import settings
from django.utils.translation import gettext_lazy as _

DEFAULT_PORTS = {"http": 80, "https": 443}

BASE_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?:\[(?P<ipv6>[0-9a-f:.]{2,45})\]|(?P<name>[^\s/\[\]:@?#\\%&=+$,;<>\"'|^`{}()!*~]{1,253}))"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/[a-z0-9._~-]+)*)/?",
    re.ASCII | re.IGNORECASE,
)
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)

# Cloud metadata services: what they give away is the machine's own identity.
METADATA_NAMES = frozenset({
    "metadata", "metadata.google.internal", "metadata.goog", "metadata.azure.internal", "metadata.tencentyun.com",
    "metadata.packet.net", "metadata.platformequinix.com", "instance-data", "instance-data.ec2.internal",
})  # fmt: skip
METADATA_ADDRESSES = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.169.123", "169.254.0.23", "100.100.100.200",
        "192.0.0.192", "168.63.129.16", "fd00:ec2::254", "fd00:ec2::23", "fd00:ec2::253", "fd20:ce::254",
    )
)  # fmt: skip


def _networks(*texts):
    return tuple(ipaddress.ip_network(text) for text in texts)


LOOPBACK = _networks("127.0.0.0/8", "::1/128")
# An operator may approve an origin that has such an address.
PRIVATE = _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "fc00::/7")
# Beyond what ipaddress itself knows to be not global, or knows only in some versions.
NEVER = _networks(
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/3", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "fe80::/10", "fec0::/10",
)  # fmt: skip
GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class InvalidBaseUrl(ValueError):
    """A text that is no base URL; its message is for the person who typed it."""


class ForbiddenAddress(OSError):
    """
    A connection that must not be made.

    An OSError, so that whoever connects handles it as an unreachable host and tells its user no more than that.
    """


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host in lower-case ASCII (an IPv6 address without brackets) and port."""

    scheme: str
    host: str
    port: int

    def __str__(self):
        return f"{self.scheme}://{self.netloc}:{self.port}"

    @property
    def netloc(self):
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def address(self):
        """The address that the host is, or ``None`` where it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_loopback(self):
        """Whether the host says that it is this machine."""
        address = self.address
        if address is None:
            return self.host == "localhost" or self.host.endswith(".localhost")
        return classify(address) == "loopback"


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """An origin and a path without a slash at its end; its text is the only form that is stored and requested."""

    origin: Origin
    path: str

    def __str__(self):
        origin = self.origin
        port = "" if origin.port == DEFAULT_PORTS[origin.scheme] else f":{origin.port}"
        return f"{origin.scheme}://{origin.netloc}{port}{self.path}"


def parse_base_url(text: str) -> BaseUrl:
    """
    Read an http or https URL of plain host, port and path, or raise ``InvalidBaseUrl``.

    Refuses whatever parsers are known to disagree about: user names, backslashes, queries, fragments, escapes, zone
    ids, and IPv4 addresses in any spelling but four decimal numbers.
    """
    if not isinstance(text, str) or len(text) > 300:
        raise InvalidBaseUrl(_("The address is too long."))
    match = BASE_URL.fullmatch(text)
    if not match:
        raise InvalidBaseUrl(
            _("Write the address as https://host/path: no user name, query, fragment, space or backslash.")
        )
    scheme, path = match["scheme"].lower(), match["path"]
    if any(segment in {".", ".."} for segment in path.split("/")):
        raise InvalidBaseUrl(_("The path must not hold “.” or “..”."))
    port = int(match["port"]) if match["port"] else DEFAULT_PORTS[scheme]
    if port > 65_535:
        raise InvalidBaseUrl(_("The port must lie between 1 and 65535."))
    host = _ipv6_host(match["ipv6"]) if match["ipv6"] else _named_host(match["name"])
    return BaseUrl(Origin(scheme, host, port), path)


def origin_of(url: str) -> str:
    """``scheme://host:port`` of a base URL, always with its port; raises ``InvalidBaseUrl``."""
    return str(parse_base_url(url).origin)


def _ipv6_host(text):
    try:
        return ipaddress.IPv6Address(text).compressed
    except ValueError:
        raise InvalidBaseUrl(_("The host is no IPv6 address.")) from None


def _named_host(text):
    host = text
    if not text.isascii():
        try:
            host = idna.encode(text, uts46=True, std3_rules=True).decode()
        except (idna.IDNAError, UnicodeError):
            raise InvalidBaseUrl(_("The host is no valid name.")) from None
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if not all(LABEL.fullmatch(label) for label in labels):
        raise InvalidBaseUrl(_("The host is no valid name."))
    if NUMBER.fullmatch(labels[-1]):
        try:
            address = ipaddress.IPv4Address(host)
        except ValueError:
            address = None
        if address is None or not text.isascii():
            raise InvalidBaseUrl(_("Write an IPv4 address as four decimal numbers, like 192.0.2.1."))
    return host


def classify(address) -> str:
    """``global``, ``private``, ``loopback`` or ``never``: what may be done with an address, whatever its spelling."""
    if address.version == 6:
        if getattr(address, "scope_id", None):
            return "never"
        if address.ipv4_mapped:
            return classify(address.ipv4_mapped)
        if address in NAT64:
            inner = classify(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
            return "global" if inner == "global" else "never"
    if address in METADATA_ADDRESSES or _in(address, NEVER):
        return "never"
    if _in(address, LOOPBACK):
        return "loopback"
    if _in(address, PRIVATE):
        return "private"
    if address.version == 6 and address not in GLOBAL_IPV6:
        return "never"
    return "global" if address.is_global and not address.is_multicast and not address.is_reserved else "never"


def _in(address, networks):
    return any(address.version == network.version and address in network for network in networks)


def address_verdict(address: str, *, private_allowed: bool) -> str | None:
    """
    Why ``address`` must not be connected to, or ``None`` where it may.

    ``private_allowed`` speaks of loopback and private networks; metadata services, link-local, unspecified, reserved
    and tunnelled addresses are refused always.
    """
    try:
        kind = classify(ipaddress.ip_address(address))
    except ValueError:
        return "not an address"
    if kind == "global" or (private_allowed and kind in {"private", "loopback"}):
        return None
    return "never allowed" if kind == "never" else f"a {kind} address"


def is_private_allowed(base_url: str, approved_private_origin: str = "") -> bool:
    """
    Whether the operator lets this exact origin be private or plain http.

    By ``COMPTOIR_ALLOWED_PRIVATE_ORIGINS``, by the command line's word stored with the provider, or because it is
    this machine's own model.
    """
    origin = origin_of(base_url)
    local = settings.LOCAL_MODEL_URL
    return (
        origin == approved_private_origin
        or origin in _origins_of(tuple(settings.ALLOWED_PRIVATE_ORIGINS))
        or bool(local and origin == origin_of(local))
    )


@lru_cache(maxsize=8)
def _origins_of(texts):
    return frozenset(origin_of(text) for text in texts)


def origin_verdict(origin: Origin, *, private_allowed: bool) -> str | None:
    """Why no connection to ``origin`` may be tried, as far as its text tells, or ``None``."""
    if origin.host in METADATA_NAMES or is_own_origin(origin):
        return "never allowed"
    if origin.scheme != "https" and not private_allowed:
        return "not https"
    if origin.address is not None:
        return connection_verdict(origin, origin.host, private_allowed=private_allowed)
    if origin.is_loopback and not private_allowed:
        return "a loopback address"
    return None


def connection_verdict(origin: Origin, address: str, *, private_allowed: bool) -> str | None:
    """
    Why ``origin`` must not be reached at ``address``, one of the answers for its name, or ``None``.

    An approved name may be anywhere in the operator's networks, but only a host that says so may be this machine.
    """
    if verdict := address_verdict(address, private_allowed=private_allowed):
        return verdict
    parsed = ipaddress.ip_address(address)
    if classify(parsed) == "loopback" and not origin.is_loopback:
        return "a loopback address"
    if is_own_endpoint(parsed, origin.port):
        return "this server's own"
    return None


def is_own_origin(origin: Origin) -> bool:
    """Whether ``origin`` is the public address of this very server: a request there would come back for ever."""
    if not settings.PUBLIC_URL:
        return False
    public = urlsplit(settings.PUBLIC_URL)
    port = public.port or DEFAULT_PORTS[public.scheme]
    return origin.host == (public.hostname or "").rstrip(".") and origin.port == port


def is_own_endpoint(address, port: int) -> bool:
    """Whether this server, its database or its broker listens there."""
    address = getattr(address, "ipv4_mapped", None) or address
    for host, own_port in own_endpoints():
        if own_port != port:
            continue
        # Only here, where the ports agree, is it worth asking the machine.
        if host in {"", "localhost"} and is_this_machine(address):
            return True
        if host and str(address) in _own_names.addresses_of(host):
            return True
    return False


def own_endpoints() -> list[tuple[str, int]]:
    """Host and port of the listener (``""``: any address of this machine), the database and the broker."""
    endpoints = [("", settings.LISTEN_PORT)]
    database = settings.DATABASES["default"]
    if not database["ENGINE"].endswith("sqlite3"):
        host = database.get("HOST") or ""
        endpoints.append(("" if host.startswith("/") else host, int(database.get("PORT") or 5432)))
    for url in (settings.REDIS_URL, settings.CELERY_BROKER_URL):
        parts = urlsplit(url or "")
        if parts.hostname:
            endpoints.append((parts.hostname, parts.port or {"amqp": 5672, "amqps": 5671}.get(parts.scheme, 6379)))
    return endpoints


def is_this_machine(address) -> bool:
    """Whether ``address`` belongs to an interface of this machine."""
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True


class OwnNames:
    """
    The addresses of the names in this server's own settings.

    Only the first question for a name waits; later ones are answered at once, and asked again beside it when old.
    """

    FRESH_SECONDS = 60
    RETRY_SECONDS = 5

    def __init__(self):
        self._known = {}
        self._lock = threading.Lock()

    def addresses_of(self, host: str) -> frozenset[str]:
        """What ``host`` is known to resolve to; nothing where it has never resolved."""
        with self._lock:
            addresses, due_at = self._known.get(host, (None, 0))
            is_due = addresses is not None and time.monotonic() >= due_at
            if is_due:
                # Whoever comes meanwhile starts no second thread.
                self._known[host] = addresses, float("inf")
        if addresses is None:
            return self.ask(host)
        if is_due:
            threading.Thread(target=self.ask, args=[host], name="own-names", daemon=True).start()
        return addresses

    def ask(self, host: str) -> frozenset[str]:
        """Resolve ``host`` and wait for it; what was known of it stands where nothing answers."""
        try:
            found = frozenset(answer[4][0] for answer in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
            seconds = self.FRESH_SECONDS
        except OSError:
            found, seconds = self._known.get(host, (frozenset(), 0))[0], self.RETRY_SECONDS
        with self._lock:
            self._known[host] = found, time.monotonic() + seconds
        return found


_own_names = OwnNames()


def resolve_own_endpoints() -> None:
    """Look the names of database and broker up, so that no event loop ever waits for them."""
    for host, _port in own_endpoints():
        if host:
            _own_names.ask(host)
