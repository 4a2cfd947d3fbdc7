import ipaddress
import itertools
import socket
import threading

import pytest

from providers.origins import (
    InvalidBaseUrl,
    OwnNames,
    address_verdict,
    connection_verdict,
    is_private_allowed,
    origin_of,
    origin_verdict,
    parse_base_url,
)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("HTTPS://API.OpenAI.com:443/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com.", "https://api.openai.com"),
        ("http://localhost:11434/v1", "http://localhost:11434/v1"),
        ("http://ollama:11434", "http://ollama:11434"),
        ("http://my_service:80/v1", "http://my_service/v1"),
        ("https://bücher.example/v1", "https://xn--bcher-kva.example/v1"),
        ("https://BÜCHER.example", "https://xn--bcher-kva.example"),
        ("https://[2606:4700:0:0:0:0:0:1111]/v1", "https://[2606:4700::1111]/v1"),
        ("https://1.1.1.1/v1", "https://1.1.1.1/v1"),
        ("https://host.example/Path/With.Case_~-", "https://host.example/Path/With.Case_~-"),
    ],
)
def test_one_form_is_stored_and_reading_it_again_changes_nothing(text, stored):
    assert str(parse_base_url(text)) == stored
    assert str(parse_base_url(stored)) == stored


def test_an_origin_always_has_its_port():
    assert origin_of("https://api.openai.com/v1") == "https://api.openai.com:443"
    assert origin_of("http://[::1]:8080/v1") == "http://[::1]:8080"


@pytest.mark.parametrize(
    "text",
    [
        "", "api.openai.com", "//api.openai.com/v1", "ftp://example.org", "file:///etc/passwd", "gopher://example.org/",
        "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun/", "javascript:alert(1)", "https:example.org",
        "https:/example.org", "https:///example.org", "https://", "https:// example.org", "https://exa mple.org",
        "https://example.org\n", "\thttps://example.org", "https://example.org/\r\nHost: evil", "https://exam\tple.org",
        "https://example.org\x00", "https://example.org\\@evil.org", "https:\\\\example.org", "https://evil.org\\.example.org",
        "https://user@example.org", "https://user:pw@example.org", "https://@example.org", "https://example.org@127.0.0.1/",
        "https://example.org?x=1", "https://example.org/v1?x", "https://example.org/#f", "https://example.org#@evil.org",
        "https://example.org:0", "https://example.org:65536", "https://example.org:99999", "https://example.org:port",
        "https://example.org:-1", "https://example.org:+443", "https://example.org:0443", "https://example.org: 443",
        "https://example.org:443:443", "https://example.org:", "https://example.org:４４３",
        "https://[::1", "https://::1]", "https://[::1%25eth0]", "https://[fe80::1%eth0]", "https://[::1]evil.org",
        "https://[127.0.0.1]", "https://[::g]", "https://[]", "https://[v1.x]", "https://::1/",
        "https://example..org", "https://.example.org", "https://example.org..", "https://.", "https://-a.example",
        "https://a-.example", "https://" + "a" * 64 + ".example", "https://" + "a." * 130 + "example",
        "https://ex%61mple.org", "https://%6c%6f%63alhost", "https://example.org/%2e%2e/", "https://example.org/a/../b",
        "https://example.org/./a", "https://example.org//a", "https://example.org/a//b", "https://example.org/a b",
        "https://example.org/a;b", "https://example.org/é", "https://example.org,evil.org", "https://a|b.example",
        "https://exam\u00adple.org\u2044", "https://example.org\u2215path", "https://\u202eexample.org", "https://a\u3000b.example",
        "https://" + "a" * 300,
    ],
)  # fmt: skip
def test_what_parsers_disagree_about_is_refused(text):
    with pytest.raises(InvalidBaseUrl):
        parse_base_url(text)


def spellings(address):
    """Ways in which some resolver or parser reads an IPv4 address, the canonical one left out."""
    a, b, c, d = (int(part) for part in address.split("."))
    whole = (a << 24) | (b << 16) | (c << 8) | d
    yield from (str(whole), hex(whole), f"0{whole:o}", hex(whole).upper().replace("X", "x"), f"0x0{whole:x}")
    yield from (f"{a}.{(b << 16) | (c << 8) | d}", f"{a}.{b}.{(c << 8) | d}", f"0x{a:x}.{(b << 16) | (c << 8) | d}")
    for forms in itertools.product(("{0}", "0x{0:x}", "0{0:o}", "0{0}", "0x0{0:x}"), repeat=4):
        if forms != ("{0}",) * 4:
            text = ".".join(form.format(part) for form, part in zip(forms, (a, b, c, d), strict=True))
            if text != address:
                yield text
    yield from (f"{address}.1", f"{a}.{b}.{c}.256", f"{address}x1", f"{a}.{b}.{c}.", f".{address}", f"{a}..{c}.{d}")
    yield address.translate(str.maketrans("0123456789", "０１２３４５６７８９"))
    yield address.translate(str.maketrans("0123456789.", "⓪①②③④⑤⑥⑦⑧⑨。"))
    yield address.replace(".", "。")


FORBIDDEN = ("127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.0.1", "0.0.0.0")


@pytest.mark.parametrize("address", FORBIDDEN)
def test_no_odd_spelling_of_an_ipv4_address_is_a_base_url_that_could_be_called(address):
    count = 0
    for spelling in spellings(address):
        count += 1
        try:
            origin = parse_base_url(f"https://{spelling}/v1").origin
        except InvalidBaseUrl:
            continue
        if origin.address is None:  # a name such as 127.0.0.1x1: a matter for the resolver
            assert not origin.host.rpartition(".")[2].isdigit()
            continue
        assert origin_verdict(origin, private_allowed=False), spelling
    assert count > 250


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "169.254.1.1", "169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16",
        "192.0.0.192", "192.0.2.1", "198.51.100.1", "203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.255",
        "240.0.0.1", "255.255.255.255", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "100::1", "2001:db8::1",
        "2001::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "3fff::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b::10.0.0.1", "64:ff9b:1::7f00:1", "::127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1",
        "::ffff:0.0.0.0", "fd00:ec2::254", "fd20:ce::254", "5f00::1", "4000::1", "localhost", "", "1.2.3", "0x7f.1",
    ],
)  # fmt: skip
def test_some_addresses_are_refused_whatever_is_approved(address):
    assert address_verdict(address, private_allowed=False)
    assert address_verdict(address, private_allowed=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "::1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
        "198.18.0.1", "fc00::1", "fd12:3456::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:7f00:1",
    ],
)  # fmt: skip
def test_private_addresses_are_reached_by_approval_alone(address):
    assert address_verdict(address, private_allowed=False)
    assert address_verdict(address, private_allowed=True) is None


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"],
)
def test_global_addresses_may_be_reached(address):
    assert address_verdict(address, private_allowed=False) is None


def test_every_address_that_python_knows_to_be_not_global_is_refused():
    edges = itertools.chain.from_iterable(
        (network[0], network[-1])
        for network in (*ipaddress._IPv4Constants._private_networks, *ipaddress._IPv6Constants._private_networks)
    )
    for address in edges:
        assert address_verdict(str(address), private_allowed=False), address


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.org", "https://localhost", "https://a.localhost", "https://127.0.0.1", "https://[::1]",
        "https://192.168.1.1", "https://[::ffff:127.0.0.1]", "https://metadata.google.internal", "https://LOCALHOST./v1",
    ],
)  # fmt: skip
def test_an_origin_that_tells_by_its_text_is_refused_before_it_is_resolved(url):
    assert origin_verdict(parse_base_url(url).origin, private_allowed=False)


def test_an_origin_is_approved_exactly(settings):
    settings.ALLOWED_PRIVATE_ORIGINS = ["http://localhost:11434"]
    settings.LOCAL_MODEL_URL = "http://127.0.0.1:8095/v1"
    for url in ("http://localhost:11434/v1", "HTTP://LOCALHOST:11434", "http://127.0.0.1:8095"):
        assert is_private_allowed(url)
    for url in ("http://localhost:11435", "https://localhost:11434", "http://127.0.0.1:11434", "http://localhost"):
        assert not is_private_allowed(url)
    assert is_private_allowed("http://ollama:11434/v1", "http://ollama:11434")
    assert not is_private_allowed("http://ollama:11434/v1", "http://ollama:1143")
    assert not is_private_allowed("https://api.example.org", "")


def test_an_approved_name_may_not_lead_to_this_machine_unless_it_says_so():
    named, local = parse_base_url("http://ollama:9999").origin, parse_base_url("http://localhost:9999").origin
    assert connection_verdict(named, "10.1.2.3", private_allowed=True) is None
    assert connection_verdict(named, "127.0.0.1", private_allowed=True)
    assert connection_verdict(local, "127.0.0.1", private_allowed=True) is None
    assert connection_verdict(local, "169.254.169.254", private_allowed=True)


def test_the_servers_own_listener_is_refused_whatever_is_approved(settings):
    settings.LISTEN_PORT = 8123
    for url, address in (
        ("http://localhost:8123", "127.0.0.1"),
        ("http://127.0.0.1:8123", "127.0.0.1"),
        ("http://127.9.9.9:8123", "127.9.9.9"),
        ("http://[::1]:8123", "::1"),
        ("http://[::ffff:127.0.0.1]:8123", "::ffff:127.0.0.1"),
    ):
        assert connection_verdict(parse_base_url(url).origin, address, private_allowed=True), url
    other = parse_base_url("http://localhost:8124").origin
    assert connection_verdict(other, "127.0.0.1", private_allowed=True) is None


def test_the_servers_public_address_is_refused(settings):
    settings.PUBLIC_URL = "https://ai.example.org"
    assert origin_verdict(parse_base_url("https://ai.example.org/v1").origin, private_allowed=True)
    assert origin_verdict(parse_base_url("https://AI.example.org./v1").origin, private_allowed=False)
    assert origin_verdict(parse_base_url("https://api.example.org/v1").origin, private_allowed=False) is None


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_the_database_and_the_broker_are_refused(settings):
    settings.DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "5433"}}
    settings.REDIS_URL = "redis://:secret@localhost:6390/0"
    settings.CELERY_BROKER_URL = "amqp://guest@10.9.8.7/"
    for url, address in (
        ("http://127.0.0.1:5433", "127.0.0.1"),
        ("http://localhost:6390", "127.0.0.1"),
        ("http://10.9.8.7:5672", "10.9.8.7"),
    ):
        assert connection_verdict(parse_base_url(url).origin, address, private_allowed=True), url
    assert connection_verdict(parse_base_url("http://10.9.8.8:5672").origin, "10.9.8.8", private_allowed=True) is None


def test_the_name_of_an_own_endpoint_is_looked_up_once_and_later_beside_those_who_ask(monkeypatch):
    names, asked_by, asked_again = OwnNames(), [], threading.Event()

    def answer(host, *arguments, **options):
        asked_by.append(threading.current_thread())
        if len(asked_by) > 1:
            asked_again.set()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{len(asked_by)}", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert [names.addresses_of("database") for _ in range(3)] == [{"10.0.0.1"}] * 3
    assert len(asked_by) == 1
    monkeypatch.setattr(OwnNames, "FRESH_SECONDS", 0)
    names.ask("database")
    asked_again.clear()
    assert names.addresses_of("database") == {"10.0.0.2"}
    assert asked_again.wait(5)
    assert asked_by[2] is not threading.current_thread()


def test_the_name_of_an_own_endpoint_stays_known_while_nobody_answers(monkeypatch):
    names = OwnNames()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("10.0.0.1", 0))])
    names.ask("database")

    def silence(*arguments, **options):
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", silence)
    assert names.ask("database") == names.addresses_of("database") == {"10.0.0.1"}
    assert names.addresses_of("elsewhere") == frozenset()
