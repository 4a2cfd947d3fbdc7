"""Over real sockets: whatever a URL, a resolver or a server says, no connection goes where none may go."""

import asyncio
import datetime
import gzip
import ipaddress
import itertools
import socket
import ssl
import sys
import time

import aiohttp
import httpx
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from providers import client
from providers.client import Guard, GuardedTransport, Session, Upstream, admin_client, fetch
from providers.origins import ForbiddenAddress, parse_base_url
from tests.providers.servers import model_list, serving
from tests.providers.test_origins import spellings

pytestmark = pytest.mark.anyio

PUBLIC = Guard()
REFUSED = (aiohttp.ClientError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError)

_watchers = []


def _hook(event, arguments):
    if event == "socket.connect" and _watchers and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
        _watchers[-1](arguments[1])


sys.addaudithook(_hook)


@pytest.fixture
def connects():
    """Every address that this process connects to, seen at the socket itself."""
    seen = []
    _watchers.append(seen.append)
    yield seen
    _watchers.pop()


@pytest.fixture
def sentinel(connects):
    """As ``connects``, and nothing leaves the process."""

    def refuse(address):
        connects.append(address)
        raise OSError("stopped by the sentinel")

    _watchers.append(refuse)
    yield connects
    _watchers.pop()


@pytest.fixture
def answers_of_resolver(monkeypatch):
    """A resolver of our own: names to lists of addresses, or to callables that make them."""
    names, real = {}, socket.getaddrinfo

    def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
        host = host.decode() if isinstance(host, bytes) else host
        if host in names:
            addresses = names[host]() if callable(names[host]) else names[host]
            return [
                (
                    socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "",
                    (address, port, 0, 0) if ":" in address else (address, port),
                )
                for address in addresses
            ]  # fmt: skip
        # As the system reads numbers in all their spellings; nothing is asked of the network.
        return real(host, port, family, type, proto, socket.AI_NUMERICHOST)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return names


def forbidden_urls():
    """More than five hundred ways to write a URL that leads to this machine, its network or its cloud."""
    hosts = []
    for address in ("127.0.0.1", "169.254.169.254", "10.0.0.1"):
        hosts += itertools.islice(spellings(address), 0, None, 4)
        mapped = ipaddress.IPv6Address(f"::ffff:{address}")
        nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(ipaddress.IPv4Address(address)))
        hosts += [
            address, f"{address}.", f"[::ffff:{address}]", f"[{mapped.exploded}]", f"[::{address}]", f"[{nat64}]",
            f"[::ffff:0:{address}]", f"[2002:{mapped.exploded[-9:]}::1]", f"user@{address}", f"user:pw@{address}",
            f"example.org@{address}", f"{address}#@example.org", f"{address}?@example.org", f"{address}\\@example.org",
            f"example.org\\@{address}", f"{address}/@example.org", f"rebind.test@{address}",
        ]  # fmt: skip
    hosts += [
        "localhost", "LOCALHOST", "localhost.", "a.localhost", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::1%25lo]",
        "[fe80::1]", "[fe80::1%25eth0]", "[fd00:ec2::254]", "[fc00::1]", "[fec0::1]", "[ff02::1]", "0", "0.0.0.0",
        "0x0", "00000", "127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0x7f.1", "192.168.1.1",
        "172.16.0.1", "100.64.0.1", "100.100.100.200", "metadata.google.internal", "metadata", "168.63.129.16",
        "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "ⓛocalhost", "localhost。",
        "①②⑦.⓪.⓪.①", "private.test", "mapped.test", "linklocal.test", "mixed.test", "mixed6.test", "nat64.test",
    ]  # fmt: skip
    for scheme, port in (("https", ""), ("https", ":8443"), ("http", ":80")):
        for host in hosts:
            yield f"{scheme}://{host}{port}/v1/models"


NAMES = {
    "localhost": ["127.0.0.1"], "localhost.": ["127.0.0.1"], "a.localhost": ["::1"],
    "metadata.google.internal": ["169.254.169.254"], "metadata": ["169.254.169.254"],
    "private.test": ["192.168.3.4"], "mapped.test": ["::ffff:127.0.0.1"], "linklocal.test": ["fe80::1"],
    "mixed.test": ["93.184.215.14", "127.0.0.1"], "mixed6.test": ["2606:4700::1111", "fd00::1"],
    "nat64.test": ["64:ff9b::a00:1"], "example.org": ["10.1.1.1"],
}  # fmt: skip


async def test_the_gateways_client_connects_to_no_forbidden_address_in_any_spelling(sentinel, answers_of_resolver):
    answers_of_resolver.update(NAMES)
    urls = list(forbidden_urls())
    assert len(urls) >= 500
    session = Session(PUBLIC)
    for url in urls:
        with pytest.raises(REFUSED):
            await session.post(URL(url))
    await session.close()
    assert sentinel == []


def test_the_guard_holds_on_the_loop_that_the_server_runs_on(connects):
    async def call():
        session = Session(PUBLIC)
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.post(URL(f"https://{host}:{server.port}/"))
        await session.close()
        session = Session(Guard(parse_base_url(server.origin).origin))
        async with await session.post(URL(f"{server.origin}/")) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post(URL(f"http://localhost:{server.port}/"))
        await session.close()

    with serving({"/": model_list()}) as server, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(call())
    assert server.accepted == 1
    assert connects == [("127.0.0.1", server.port)]


def test_the_consoles_client_connects_to_no_forbidden_address_in_any_spelling(sentinel, answers_of_resolver):
    answers_of_resolver.update(NAMES)
    with httpx.Client(transport=GuardedTransport(PUBLIC, time.monotonic() + 100), trust_env=False) as http:
        for url in forbidden_urls():
            with pytest.raises(REFUSED):
                fetch(http, url, {})
    assert sentinel == []


def test_no_client_is_made_for_a_base_url_that_is_forbidden_by_its_text(sentinel, answers_of_resolver):
    answers_of_resolver.update(NAMES)
    for url in forbidden_urls():
        with pytest.raises(REFUSED), admin_client(url, private_allowed=False) as http:
            fetch(http, url, {})
    assert sentinel == []


async def test_a_name_that_turns_private_is_never_followed(sentinel, answers_of_resolver):
    turn = itertools.count()
    public, private = "93.184.215.14", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "fd00::1"]
    answers_of_resolver["rebind.test"] = lambda: [private[next(turn) % 5] if next(turn) % 4 else public]
    session = Session(PUBLIC)
    for _ in range(500):
        with pytest.raises(REFUSED):
            await session.post(URL("https://rebind.test/v1/models"))
        session.connector.clear_dns_cache()
    await session.close()
    with httpx.Client(transport=GuardedTransport(PUBLIC, time.monotonic() + 100)) as http:
        for _ in range(500):
            with pytest.raises(REFUSED):
                fetch(http, "https://rebind.test/v1/models", {})
    assert sentinel
    assert {address[0] for address in sentinel} == {public}


async def test_one_forbidden_answer_of_several_refuses_the_name(sentinel, answers_of_resolver):
    answers_of_resolver["mixed.test"] = ["93.184.215.14", "93.184.215.15", "10.0.0.1"]
    session = Session(PUBLIC)
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.post(URL("https://mixed.test/"))
    await session.close()
    assert sentinel == []


async def test_the_name_is_resolved_once_and_its_checked_address_is_dialled(sentinel, answers_of_resolver):
    asked = []
    answers_of_resolver["once.test"] = lambda: asked.append(1) or ["93.184.215.14"]
    with pytest.raises(httpx.ConnectError), admin_client("https://once.test", private_allowed=False) as http:
        fetch(http, "https://once.test/models", {})
    session = Session(PUBLIC)
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.post(URL("https://once.test/models"))
    await session.close()
    assert len(asked) == 2
    assert sentinel == [("93.184.215.14", 443)] * 2


async def test_an_approved_origin_opens_that_origin_alone(connects):
    with serving({"/v1/models": model_list("m")}) as server, serving() as other:
        upstream = Upstream()
        session = upstream.session_for(f"{server.origin}/v1", True)
        async with await session.post(URL(f"{server.origin}/v1/models")) as response:
            assert response.status == 200
        for url in (
            other.origin,
            f"http://localhost:{server.port}",
            f"https://127.0.0.1:{server.port}",
            f"http://127.0.0.2:{server.port}",
            "https://1.1.1.1",
        ):
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.post(URL(url))
        await upstream.close()
        with admin_client(f"{server.origin}/v1", private_allowed=True) as http:
            assert fetch(http, f"{server.origin}/v1/models", {}).status == 200
            with pytest.raises(httpx.ConnectError):
                fetch(http, other.origin, {})
    assert other.accepted == 0
    assert set(connects) == {("127.0.0.1", server.port)}


async def test_an_approved_name_is_not_followed_to_metadata_or_to_this_machine(sentinel, answers_of_resolver):
    session = Session(Guard(parse_base_url("http://ollama:11434").origin))
    for address in ("169.254.169.254", "127.0.0.1", "::1", "0.0.0.0"):
        answers_of_resolver["ollama"] = [address]
        session.connector.clear_dns_cache()
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post(URL("http://ollama:11434/v1/models"))
    assert sentinel == []
    answers_of_resolver["ollama"] = ["172.18.0.3"]
    session.connector.clear_dns_cache()
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.post(URL("http://ollama:11434/v1/models"))
    await session.close()
    assert sentinel == [("172.18.0.3", 11434)]


async def test_plain_http_is_for_approved_origins_alone(sentinel):
    upstream = Upstream()
    with pytest.raises(ForbiddenAddress):
        upstream.session_for("http://93.184.215.14/v1", False)
    with pytest.raises(aiohttp.ClientConnectorError):
        await upstream.session_for("https://93.184.215.14/v1", False).post(URL("http://93.184.215.14/v1"))
    await upstream.close()
    assert sentinel == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status):
    with serving() as target, serving() as server:
        server.answers["/v1/x"] = (status, {"Location": f"{target.origin}/stolen"}, b"")
        session = Session(Guard(parse_base_url(server.origin).origin))
        async with await session.post(URL(f"{server.origin}/v1/x"), headers={"x-api-key": "k"}) as response:
            assert response.status == status
        await session.close()
        with admin_client(server.origin, private_allowed=True) as http:
            assert fetch(http, f"{server.origin}/v1/x", {}).status == status
    assert len(server.requests) == 2
    assert target.accepted == 0


async def test_no_proxy_of_the_environment_is_used(monkeypatch):
    with serving() as proxy, serving({"/": model_list()}) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.origin)
            monkeypatch.setenv(name.lower(), proxy.origin)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        session = Session(Guard(parse_base_url(server.origin).origin))
        async with await session.post(URL(f"{server.origin}/")) as response:
            assert response.status == 200
        await session.close()
        with admin_client(server.origin, private_allowed=True) as http:
            assert fetch(http, f"{server.origin}/", {}).status == 200
    assert proxy.accepted == 0
    assert server.accepted == 2


async def test_cookies_are_not_kept():
    with serving({"/": (200, {"Set-Cookie": "a=b; Path=/"}, b"{}")}) as server:
        session = Session(Guard(parse_base_url(server.origin).origin))
        for _ in range(2):
            async with await session.post(URL(f"{server.origin}/")) as response:
                await response.read()
        await session.close()
    assert all("cookie" not in headers for _, _, headers in server.requests)


async def test_a_connection_is_checked_once_and_then_kept(connects):
    with serving({"/": model_list()}) as server:
        session = Session(Guard(parse_base_url(server.origin).origin))
        for _ in range(50):
            async with await session.post(URL(f"{server.origin}/")) as response:
                await response.read()
        await session.close()
    assert len(server.requests) == 50
    assert len(connects) == 1


async def test_a_compressed_answer_arrives_as_it_was_sent():
    packed = gzip.compress(b"0" * 1_000_000)
    with serving({"/": (200, {"Content-Encoding": "gzip"}, packed)}) as server:
        session = Session(Guard(parse_base_url(server.origin).origin))
        async with await session.post(URL(f"{server.origin}/")) as response:
            assert await response.read() == packed
        await session.close()
        with pytest.raises(client.AnswerTooLarge), admin_client(server.origin, private_allowed=True) as http:
            fetch(http, f"{server.origin}/", {})
    assert server.requests[0][2]["accept-encoding"] == "identity"


def test_the_console_reads_four_megabytes_and_no_more():
    answers = {"/fits": (200, {}, b"x" * client.ANSWER_LIMIT), "/large": (200, {}, b"x" * (client.ANSWER_LIMIT + 1))}
    with serving(answers) as server, admin_client(server.origin, private_allowed=True) as http:
        assert len(fetch(http, f"{server.origin}/fits", {}).body) == client.ANSWER_LIMIT
        with pytest.raises(client.AnswerTooLarge):
            fetch(http, f"{server.origin}/large", {})


@pytest.mark.parametrize(
    "drip", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", b""]
)
def test_a_slow_drip_of_bytes_does_not_stretch_the_consoles_patience(drip):
    def slow(handler):
        handler.wfile.write(drip)
        for _ in range(50):
            handler.wfile.flush()
            time.sleep(0.05)
            handler.wfile.write(b"x")

    with serving({"/": slow}) as server:
        began = time.monotonic()
        with (
            pytest.raises(httpx.TimeoutException),
            admin_client(server.origin, private_allowed=True, seconds=0.4) as http,
        ):
            fetch(http, f"{server.origin}/", {})
        assert time.monotonic() - began < 1.5


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate for models.localhost and nothing else, its file, and a context that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "models.localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("models.localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


async def test_the_certificate_must_be_that_of_the_name_whatever_address_is_dialled(
    authority, answers_of_resolver, monkeypatch
):
    answers_of_resolver.update({"models.localhost": ["127.0.0.1"], "other.localhost": ["127.0.0.1"]})
    trusting = ssl.create_default_context(cafile=authority)
    monkeypatch.setattr(client, "tls_context", lambda: trusting)
    serves = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serves.load_cert_chain(authority)
    named = []
    serves.sni_callback = lambda connection, name, context: named.append(name)
    with serving({"/models": model_list("m")}, tls=serves) as server:
        good, bad = (f"https://{name}.localhost:{server.port}" for name in ("models", "other"))
        with admin_client(good, private_allowed=True) as http:
            assert fetch(http, f"{good}/models", {}).status == 200
        with pytest.raises(httpx.ConnectError), admin_client(bad, private_allowed=True) as http:
            fetch(http, f"{bad}/models", {})
        upstream = Upstream()
        async with await upstream.session_for(good, True).post(URL(f"{good}/models")) as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await upstream.session_for(bad, True).post(URL(f"{bad}/models"))
        await upstream.close()
    assert named == ["models.localhost", "other.localhost"] * 2


async def test_one_session_serves_all_public_providers_and_each_approved_origin_has_its_own():
    upstream = Upstream()
    one = upstream.session_for("https://api.example.org/v1", False)
    assert upstream.session_for("https://api.example.com", False) is one
    local = upstream.session_for("http://localhost:9001/v1", True)
    assert upstream.session_for("http://localhost:9001/v2", True) is local
    assert upstream.session_for("http://localhost:9002/v1", True) is not local is not one
    await upstream.close()
