"""The cast and its world: Alice owns the organization, Bob is a developer in it, Charlie is a stranger."""

import os
import signal

import hypothesis
import pytest
from django.test import Client, TransactionTestCase

from console.models import Member
from tests import emptying, factories, schedule
from tests.server import Prepared, Server, closed_port
from tests.upstream import Upstream

# Django is set up by now; servers that tests start as child processes must take the product's own settings.
os.environ.pop("DJANGO_SETTINGS_MODULE", None)
# They are some hundred processes, and each would spend a quarter of its start on compiling the same modules.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Nothing that tests ask has a certificate, and a client reads those of the machine for longer than it asks.
os.environ |= {"SSL_CERT_FILE": "", "SSL_CERT_DIR": os.path.dirname(__file__)}

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("comptoir", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("comptoir")

# Django's own flush takes as long as such a test itself.
TransactionTestCase._fixture_teardown = emptying.empty_database

DATABASE_FIXTURES = {"db", "transactional_db", "django_db_serialized_rollback", "live_server"}
DATABASE_FILES = pytest.StashKey()


def pytest_configure():
    """End a run that is told to end as one that is interrupted, with the servers that it started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Mark every test that touches the database of this process, so that they run again on PostgreSQL."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: schedule.place(item.nodeid)[0])
    for item in items:
        if item.get_closest_marker("django_db") or DATABASE_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("database")
    config.stash[DATABASE_FILES] = {item.path for item in items if item.get_closest_marker("database")}


def pytest_xdist_auto_num_workers(config):
    """Several processes for the whole suite, none for a part of it or where somebody looks on or steps in."""
    is_part = config.args_source is not config.ArgsSource.TESTPATHS or config.getoption("keyword")
    is_watched = config.getoption("capture") == "no" or any(
        config.getoption(name, False) for name in ("usepdb", "trace", "lf", "failedfirst", "stepwise")
    )
    # More than half of the time of a test is waiting for servers: five on two cores.
    return 0 if is_part or is_watched else min(os.cpu_count() + 3, 5)


def pytest_xdist_make_scheduler(config, log):
    return schedule.Scheduler(config, log)


@pytest.fixture(scope="session")
def database_files(pytestconfig):
    """The files with tests that use the database of this process, of those that this run was asked for."""
    return pytestconfig.stash[DATABASE_FILES]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def alice(db):
    return factories.make_user("alice@example.org", name="Alice")


@pytest.fixture
def bob(db):
    return factories.make_user("bob@example.org", name="Bob")


@pytest.fixture
def charlie(db):
    """A stranger, at home in an organization and workspace of his own: ``charlie.last_workspace``."""
    charlie = factories.make_user("charlie@example.org", name="Charlie")
    charlie.last_workspace = factories.make_workspace(charlie, name="Elsewhere", slug="elsewhere")
    charlie.save()
    return charlie


@pytest.fixture
def organization(alice, bob):
    organization = factories.make_organization(alice, name="Default", slug="default")
    factories.make_member(organization, bob, Member.Role.DEVELOPER)
    return organization


@pytest.fixture
def workspace(organization):
    return factories.make_workspace(organization=organization, name="default", slug="default")


@pytest.fixture
def alice_client(alice, workspace):
    return signed_in(alice)


@pytest.fixture
def bob_client(bob, workspace):
    return signed_in(bob)


@pytest.fixture
def charlie_client(charlie):
    return signed_in(charlie)


def signed_in(user):
    """A browser's session of ``user``, without JavaScript."""
    client = Client()
    client.force_login(user)
    return client


# The real server over sockets --------------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def prepared(request, tmp_path_factory):
    """Let servers begin with what the first of them has prepared, in this process of the run or another."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if hasattr(request.config, "workerinput") else folder
    # A run that a test starts finds it too.
    Server.prepared = Prepared(os.environ.setdefault("TEST_PREPARED", str(shared / "prepared")))


@pytest.fixture(scope="session")
def running_upstream():
    with Upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(running_upstream):
    """The scripted upstream, with nothing asked and nothing played yet."""
    running_upstream.forget()
    yield running_upstream
    assert not running_upstream.mistakes


@pytest.fixture(scope="session")
def shared_server(running_upstream, tmp_path_factory):
    """
    One real server for all tests that leave it running: its key is ``api_key``.

    Its models: ``gpt-test`` and ``m-…`` of an OpenAI-shaped upstream, ``claude-test`` of an Anthropic-shaped one,
    ``gpt-nowhere`` and ``claude-nowhere`` of providers that do not listen.
    """
    with Server(tmp_path_factory.mktemp("server")) as server, closed_port() as port:
        server.api_key = server.create_api_key("test")
        server.add_provider(running_upstream.url, "gpt-test", "m-200-20", kind="openai")
        server.add_provider(running_upstream.url, "claude-test", kind="anthropic")
        nowhere = f"http://127.0.0.1:{port}/v1"
        server.add_provider(nowhere, "gpt-nowhere", kind="openai", name="nowhere (OpenAI)")
        server.add_provider(nowhere, "claude-nowhere", kind="anthropic", name="nowhere (Anthropic)")
        yield server


@pytest.fixture
def server(shared_server, upstream):
    return shared_server


@pytest.fixture(scope="session")
def site(running_upstream, tmp_path_factory):
    """A server as a new user has it, with the language model of this machine, and one provider more."""
    with Server(tmp_path_factory.mktemp("site"), local_model=True) as site:
        site.api_key = site.create_api_key("first program")
        site.add_provider(running_upstream.url, "gpt-test")
        yield site
