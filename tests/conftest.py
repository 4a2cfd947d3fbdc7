"""The cast and its world: Alice owns the organization, Bob is a developer in it, Charlie is a stranger."""

import os

import pytest
from django.test import Client

from console.models import Member
from tests import factories

# Django is set up by now; servers that tests start as child processes must take the product's own settings.
os.environ.pop("DJANGO_SETTINGS_MODULE", None)

DATABASE_FIXTURES = {"db", "transactional_db", "django_db_serialized_rollback", "live_server"}


def pytest_collection_modifyitems(items):
    """Mark every test that touches the database of this process, so that they run again on PostgreSQL."""
    for item in items:
        if item.get_closest_marker("django_db") or DATABASE_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("database")


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
