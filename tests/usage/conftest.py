import pytest

from tests.usage.receivers import http_receiver


@pytest.fixture(scope="session")
def running_receiver():
    with http_receiver() as receiver:
        yield receiver


@pytest.fixture
def receiver(running_receiver, settings):
    """What webhooks call: a program on this machine, which is allowed."""
    running_receiver.calls.clear()
    running_receiver.status, running_receiver.headers = 200, {}
    settings.ALLOWED_PRIVATE_ORIGINS = [running_receiver.url]
    return running_receiver
