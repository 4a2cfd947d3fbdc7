import pytest

from tests.api import ANTHROPIC, OPENAI, Api


@pytest.fixture(params=[OPENAI, ANTHROPIC], ids=lambda dialect: dialect.name)
def api(request, server):
    """A caller in each dialect in turn."""
    api = Api(server, server.api_key, request.param)
    yield api
    api.close()


@pytest.fixture(params=["gpt-test", "claude-test"])
def model(request):
    """A model behind each kind of upstream in turn: with ``api``, both translations and both passes through."""
    return request.param
