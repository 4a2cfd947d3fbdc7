"""Who may read /metrics."""

import httpx
import pytest

from gateway.asgi import gateway


async def status(**headers):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://localhost") as client:
        return (await client.get("/metrics", headers=headers)).status_code


@pytest.mark.anyio
async def test_metrics_are_open_where_no_bearer_is_needed(settings):
    settings.METRICS_TOKEN = ""
    assert await status() == 200


@pytest.mark.anyio
async def test_metrics_are_for_their_bearer_alone(settings):
    settings.METRICS_TOKEN = "s3cret"
    assert await status() == 404
    assert await status(authorization="Bearer s3cre") == 404
    assert await status(authorization="Bearer s3cret") == 200


@pytest.mark.anyio
async def test_metrics_are_closed_on_the_network_without_a_token(settings):
    settings.METRICS_TOKEN = None
    assert await status() == 404
    assert await status(authorization="Bearer ") == 404
