"""The reconciler finds what is wrong: every figure about losses rests on it."""

from types import SimpleNamespace

import pytest
from django.db import connection
from django.utils import timezone

from tests.factories import make_api_key
from tests.gateway.records import closed, opened
from tests.reconcile import reconcile
from tests.upstream import Bill, Entry
from usage import ledger
from usage.calendar import calendar_of
from usage.models import LedgerPeriod, RequestLog, SpendLease, UsageRollup
from usage.records import Record, write_batch
from usage.spend_limits import set_spend_limit


class Here:
    """This process's database, asked as a server's."""

    def __init__(self, folder):
        self.folder = folder

    def query(self, sql, *values):
        with connection.cursor() as cursor:
            cursor.execute(sql.replace("?", "%s"), values)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@pytest.fixture
def world(workspace, tmp_path):
    """Three requests, the last of which has died, and the upstream's books of them; a lease holds what is left."""
    key = make_api_key(workspace)
    set_spend_limit(
        organization=workspace.organization,
        scope="workspace",
        scope_id=workspace.pk,
        period="day",
        amount_nanos=1_000_000,
    )
    ledger.register(uid="one", host="here", pid=1)
    interval = interval_of(workspace)
    _, grants = ledger.draw("one", [ledger.Want((interval,), 600_000)], {interval: ledger.Ahead(0, 0, 600_000)})
    lease_id = grants[interval].lease_id
    records = []
    for number in range(3):
        _, first = opened(workspace, api_key_id=key.pk, user_id=key.created_by_id, leases=(lease_id,))
        ends = {"upstream_request_id": f"call-{number}"} if number < 2 else {"outcome": "interrupted"}
        records.append(Record(first, closed(**ends)))
    write_batch(records)
    bill = Bill(12, output_tokens=8)
    books = [Entry(f"call-{number}", f"m{number}", "m", bill, number < 2, 156_000) for number in range(3)]
    answered = [(record.opened.id, f"m{number}") for number, record in enumerate(records[:2])]
    (tmp_path / "journal").mkdir()
    upstream = SimpleNamespace(books=books)
    return SimpleNamespace(server=Here(tmp_path), upstream=upstream, answered=answered, workspace_id=workspace.pk)


def interval_of(workspace):
    start, end = calendar_of(workspace.organization.time_zone).interval("day", timezone.now())
    return ledger.Key(workspace.organization_id, "workspace", workspace.pk, "day", start, end)


def found(world, **options):
    return reconcile(world.server, world.upstream, answered=world.answered, **options)


def test_what_agrees_has_no_problems(world):
    accounts = found(world)
    assert accounts.problems == []
    assert (accounts.rows, accounts.cost, accounts.billed) == (3, 468_000, 312_000)
    assert (accounts.held, accounts.over) == (132_000, 0)
    assert accounts.used == {("workspace", world.workspace_id): 0.468}


def spoil_a_cost(world):
    RequestLog.objects.filter(upstream_request_id="call-0").update(cost_nanos=155_999)


def spoil_the_ledger(world):
    LedgerPeriod.objects.filter(scope="member", period="week").update(settled_nanos=1)


def spoil_a_lease(world):
    SpendLease.objects.update(remaining_nanos=1)


def spoil_a_rollup(world):
    UsageRollup.objects.filter(width="hour").update(output_tokens=0)


def lose_a_row(world):
    RequestLog.objects.filter(outcome="interrupted").delete()


def double_a_row(world):
    RequestLog.objects.filter(upstream_request_id="call-1").update(upstream_request_id="call-0")


def answer_without_a_row(world):
    world.answered.append(("req_none", "m9"))


def answer_twice(world):
    world.answered.append(world.answered[0])


def pass_the_limit(world):
    world.server.query("UPDATE usage_spendlimit SET amount_nanos = 500000 RETURNING id")


def leave_a_journal(world):
    (world.server.folder / "journal" / "one.journal").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_a_cost, "the upstream billed"),
        (spoil_the_ledger, "The ledger of member"),
        (spoil_a_lease, "instead of"),
        (spoil_a_rollup, "sum up to"),
        (lose_a_row, "billed and are in no row"),
        (double_a_row, "has 2 rows"),
        (answer_without_a_row, "has no row"),
        (answer_twice, "was given to 2 answers"),
        (pass_the_limit, "is passed by"),
        (leave_a_journal, "not drained"),
    ],
)
def test_what_does_not_agree_is_named(world, spoil, says):
    spoil(world)
    assert any(says in problem for problem in found(world, is_stopped=True).problems)
