"""While the database is away, responses are answered all the same; what is stored is neither there nor gone."""

import time

import httpx

from tests.faults.test_database_outages import frozen, halted, prepared


class Client:
    def __init__(self, api):
        headers = {"authorization": f"Bearer {api.key}"}
        self.http = httpx.Client(base_url=api.server.base_url, headers=headers, timeout=20)

    def create(self, **fields):
        return self.http.post("/v1/responses", json={"model": "gpt-test", "input": "Hello"} | fields)

    def get(self, id):
        return self.http.get(f"/v1/responses/{id}")


def test_stored_responses_outlive_an_outage(postgres_server, postgres, upstream):
    client = Client(prepared(postgres_server, upstream))
    stored = client.create().json()
    assert stored["store"] is True
    assert client.get(stored["id"]).json() == stored
    for outage in (halted, frozen):
        with outage(postgres):
            began = time.monotonic()
            unstored = client.create()
            assert time.monotonic() - began < 5
            assert (unstored.status_code, unstored.json()["store"]) == (200, False)
            refused = client.create(previous_response_id=stored["id"])
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
            assert refused.headers["retry-after"]
            if outage is halted:
                assert client.get(stored["id"]).content == refused.content
        until = time.monotonic() + 20
        while client.get(stored["id"]).status_code == 503 and time.monotonic() < until:
            time.sleep(0.2)
        assert client.get(stored["id"]).json() == stored
        again = client.create(previous_response_id=stored["id"])
        assert again.json()["previous_response_id"] == stored["id"]
        named = client.create(input=[{"type": "item_reference", "id": stored["output"][0]["id"]}])
        assert named.status_code == 200, named.text
