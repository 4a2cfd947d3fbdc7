"""Ids that somebody made up are not found, whatever characters they hold and whatever the database is."""

import pytest
from django.urls import Resolver404, resolve, reverse
from django.utils import timezone

from console.ids import is_uid, new_id
from tests.factories import make_api_key, request_id_at

NUL_ADDRESSES = [
    "/w/default/keys/%00/edit/",
    "/w/default/keys/apikey_%00/revoke/",
    "/o/default/workspaces/%00/edit/",
    "/o/default/providers/%00/",
    "/o/default/providers/prov_0000000000000000000000/models/%00/rename/",
    "/w/default/requests/%00/",
    "/w/default/requests/req_%00/",
    "/w/default/playground/%00/",
    "/w/default/playground/conv_0000000000000000000000/messages/%00/",
]


@pytest.mark.parametrize("address", NUL_ADDRESSES)
def test_a_nul_in_an_address_is_not_found(alice_client, address):
    assert alice_client.get(address).status_code == 404


@pytest.mark.parametrize("name", ["conversation", "edits"])
def test_a_nul_in_a_posted_id_is_not_found_or_not_looked_for(alice_client, name):
    answer = alice_client.post(reverse("playground:send", args=["default"]), {name: "\0", "message": "Hello"})
    assert answer.status_code in {404, 422}


def test_a_nul_among_keys_asked_for_is_passed_over(alice_client, workspace):
    key = make_api_key(workspace)
    answer = alice_client.get(reverse("usage:key_spends", args=["default"]), {"key": ["\0", key.uid]})
    assert answer.status_code == 200
    assert key.uid in answer.text


def test_ids_as_they_are_made_are_found_in_addresses():
    uid = new_id("apikey")
    assert is_uid(uid)
    assert resolve(f"/w/default/keys/{uid}/edit/").kwargs["api_key_uid"] == uid


def test_request_ids_as_they_are_made_are_found_in_addresses():
    request_id = request_id_at(timezone.now())
    assert resolve(f"/w/default/requests/{request_id}/").kwargs["request_id"] == request_id


@pytest.mark.parametrize("uid", ["", "apikey_" + "0" * 21, "_" + "0" * 22, "apikey_" + "0" * 22 + "\n", "é" * 30])
def test_what_is_no_id_is_told_from_one(uid):
    assert not is_uid(uid)
    with pytest.raises(Resolver404):
        resolve(f"/w/default/keys/{uid}/edit/")
