"""The command that scripts compare their own accounts with."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from tests.factories import make_api_key, make_request_log, make_workspace
from usage.models import Outcome, UsageRollup
from usage.rollups import rebuild_rollups

pytestmark = pytest.mark.django_db


def usage_total(*arguments):
    out = io.StringIO()
    call_command("usage_total", *arguments, stdout=out)
    return out.getvalue()


def test_it_prints_one_object(workspace):
    make_request_log(workspace, cache_read_tokens=7, cache_write_tokens=2, cache_write_1h_tokens=3)
    make_request_log(workspace, outcome=Outcome.REFUSED, input_tokens=None, output_tokens=None, cost_nanos=None)
    rebuild_rollups()

    assert json.loads(usage_total("--json")) == {
        "rows": 2,
        "outcomes": {"completed": 1, "refused": 1},
        "tokens": {"input": 100, "cache_read": 7, "cache_write": 5, "output": 20},
        "cost_nanos": {"rows": 600_000, "rollups": 600_000, "ledger": None},
        "agree": True,
    }


def test_it_narrows_to_a_workspace_and_a_key(workspace, organization):
    api_key = make_api_key(workspace, name="ci")
    make_request_log(workspace, api_key=api_key)
    make_request_log(workspace)
    make_request_log(make_workspace(organization=organization))
    rebuild_rollups()

    assert json.loads(usage_total("--json"))["rows"] == 3
    assert json.loads(usage_total("--workspace", "default", "--json"))["rows"] == 2
    assert json.loads(usage_total("--workspace", "default", "--key", "ci", "--json"))["rows"] == 1


def test_it_tells_when_rows_and_rollups_differ(workspace):
    make_request_log(workspace)
    rebuild_rollups()
    UsageRollup.objects.filter(width="day").update(output_tokens=21)

    assert json.loads(usage_total("--json"))["agree"] is False


def test_nothing_at_all_agrees():
    assert json.loads(usage_total("--json"))["agree"] is True


def test_without_json_it_is_a_line(workspace):
    make_request_log(workspace)
    rebuild_rollups()

    assert usage_total().startswith("1 requests; tokens: 100 input, 0 cache read, 0 cache write, 20 output")


@pytest.mark.parametrize("arguments", [("--workspace", "nowhere"), ("--key", "nobody")])
def test_what_does_not_exist_is_an_error(arguments):
    with pytest.raises(CommandError):
        usage_total(*arguments)
