"""
The reconciler: holds rows, ledger, rollups, journal and the upstream's books against each other, and says where not.

It reads the tables with SQL of its own and reckons with the product's code nowhere, so that both cannot be wrong alike.
"""

import bisect
import datetime
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field

KINDS = ("input", "cache_read", "cache_write", "output")
# What is read of a row: there may be hundreds of thousands.
COLUMNS = (
    "id", "organization_id", "workspace_id", "api_key_id", "user_id", "outcome", "cost_nanos", "started_at", "attempts",
    "upstream_request_id", "cache_write_1h_tokens", *(f"{kind}_tokens" for kind in KINDS),
)  # fmt: skip
SCOPES = {
    "organization": "organization_id", "workspace": "workspace_id", "api_key": "api_key_id", "member": "user_id",
}  # fmt: skip


@dataclass
class Accounts:
    """What was found; ``problems`` is empty where everything agrees. Amounts in nanos."""

    rows: int = 0
    outcomes: Counter = field(default_factory=Counter)
    cost: int = 0
    billed: int = 0  # by the upstream, for what it answered whole
    held: int = 0  # by leases
    over: int = 0  # the most that a hard limit was passed by, with what is held
    used: dict = field(default_factory=dict)  # what part of each hard limit was spent, by scope and its id
    problems: list[str] = field(default_factory=list)

    def insist(self, agrees, problem):
        if not agrees:
            self.problems.append(problem)


def reconcile(
    server, upstream=None, *, organization=None, answered=(), begun=(), is_stopped=False, exact_leases=True
) -> Accounts:
    """
    Compare all that ``server`` has written, once it has nothing more to write.

    ``organization`` is the id of the one to look at, of which ``upstream`` then has the books alone. ``answered`` are
    pairs of a request's id and its marker in the prompt, of answers that a client has had whole, ``begun`` the ids of
    those of which it has had the beginning. ``is_stopped`` says that no process of it runs: then no journal is left,
    and nothing is held.
    """
    accounts = Accounts()
    own = "" if organization is None else f" WHERE organization_id = {int(organization)}"
    rows = server.query(f"SELECT {', '.join(COLUMNS)} FROM usage_requestlog{own} ORDER BY id")
    accounts.rows = len(rows)
    accounts.outcomes = Counter(row["outcome"] for row in rows)
    accounts.cost = sum(row["cost_nanos"] or 0 for row in rows)
    for row in rows:
        accounts.insist((row["cost_nanos"] or 0) >= 0, f"{row['id']} costs {row['cost_nanos']}")
    _ledger(accounts, server, rows, own)
    _leases(accounts, server, own)
    _rollups(accounts, server, rows, own)
    if upstream is not None:
        _books(accounts, rows, upstream, answered)
    known = {row["id"] for row in rows} if begun else ()
    accounts.problems += [f"{each} was begun and has no row" for each in begun if each not in known]
    if is_stopped:
        _leftovers(accounts, server, exact_leases)
    return accounts


def _ledger(accounts, server, rows, own):
    """Every interval is the sum of its rows, and every row is in one interval of each kind of each of its scopes."""
    spent = defaultdict(list)
    for row in rows:
        if row["cost_nanos"]:
            for scope, column in SCOPES.items():
                if row[column] is not None:
                    key = (row["organization_id"], scope, row[column])
                    spent[key].append((moment(row["started_at"]), row["cost_nanos"]))
    for found in spent.values():
        found.sort()
    limits = {
        (limit["organization_id"], limit["scope"], limit["scope_id"], limit["period"]): limit
        for limit in server.query(f"SELECT * FROM usage_spendlimit{own}")
        if limit["is_hard"]
    }
    booked = defaultdict(list)
    for interval in server.query(f"SELECT * FROM usage_ledgerperiod{own} ORDER BY start"):
        key = (interval["organization_id"], interval["scope"], interval["scope_id"])
        name = f"{interval['scope']} {interval['scope_id']}, {interval['period']} of {interval['start']}"
        start, end = moment(interval["start"]), moment(interval["end"])
        costs = spent.get(key, [])
        due = sum(cost for _, cost in costs[bisect.bisect_left(costs, (start,)) : bisect.bisect_left(costs, (end,))])
        settled, leased = interval["settled_nanos"], interval["leased_nanos"]
        accounts.insist(settled == due, f"The ledger of {name} says {settled}, its rows {due}")
        booked[*key, interval["period"]].append((start, end, settled))
        accounts.held += leased
        limit = limits.get((*key, interval["period"]))
        if limit is not None:
            amount = limit["amount_nanos"]
            over = settled + leased - amount
            accounts.over = max(accounts.over, over)
            accounts.insist(over <= 0, f"The limit of {name} is passed by {over}: {settled} spent, {leased} held")
            accounts.used[interval["scope"], interval["scope_id"]] = settled / amount if amount else 1.0
    for (*key, period), intervals in booked.items():
        for (_, end, _), (start, _, _) in itertools.pairwise(intervals):
            accounts.insist(end <= start, f"Two intervals of {key}, {period}, overlap at {start}")
    for key, costs in spent.items():
        total = sum(cost for _, cost in costs)
        for period in ("day", "week", "month"):
            settled = sum(found[2] for found in booked[*key, period])
            accounts.insist(settled == total, f"All {period}s of {key} come to {settled}, all its rows to {total}")


def _leases(accounts, server, own):
    """An interval holds what its leases do, and no lease more than it was granted."""
    held = Counter()
    within = f" WHERE ledger_period_id IN (SELECT id FROM usage_ledgerperiod{own})" if own else ""
    for lease in server.query(f"SELECT * FROM usage_spendlease{within}"):
        rest = lease["granted_nanos"] - lease["settled_nanos"] - lease["released_nanos"]
        name = f"Lease {lease['id']} of {lease['process_id']}"
        accounts.insist(lease["remaining_nanos"] == rest, f"{name} holds {lease['remaining_nanos']} instead of {rest}")
        accounts.insist(rest >= 0, f"{name} has spent {-rest} more than it was granted")
        accounts.insist(lease["state"] != "closed" or not rest, f"{name} is closed and holds {rest}")
        held[lease["ledger_period_id"]] += lease["remaining_nanos"]
    for interval in server.query(f"SELECT id, leased_nanos FROM usage_ledgerperiod{own}"):
        leased, due = interval["leased_nanos"], held[interval["id"]]
        accounts.insist(leased == due, f"Interval {interval['id']} says that {leased} are held, its leases {due}")


def _rollups(accounts, server, rows, own):
    """The sums over hours and over days are those of the rows, by outcome."""
    counters = [*(f"{kind}_tokens" for kind in KINDS), "cost_nanos"]
    expected = defaultdict(lambda: [0] * (len(counters) + 1))
    for row in rows:
        sums = expected[row["outcome"]]
        sums[0] += 1
        for place, name in enumerate(counters, 1):
            sums[place] += row[name] or 0
    columns = ", ".join(f"SUM({name}) AS {name}" for name in ("requests", *counters))
    where = f"{own} AND width = ?" if own else " WHERE width = ?"
    for width in ("hour", "day"):
        found = {
            row["outcome"]: [int(row[name]) for name in ("requests", *counters)]
            for row in server.query(f"SELECT outcome, {columns} FROM usage_usagerollup{where} GROUP BY outcome", width)
        }
        for outcome in expected.keys() | found.keys():
            due, sums = expected.get(outcome), found.get(outcome)
            accounts.insist(due == sums, f"The {width}s of what is {outcome} sum up to {sums}, the rows to {due}")


def _books(accounts, rows, upstream, answered):
    """What the upstream has billed whole is in a row of its own, token by token; what it has not is in a row too."""
    entries = {entry.call_id: entry for entry in list(upstream.books)}
    accounts.billed = sum(entry.nanos for entry in entries.values() if entry.is_whole)
    by_call = defaultdict(list)
    for row in rows:
        if row["upstream_request_id"]:
            by_call[row["upstream_request_id"]].append(row)
    for call_id, found in by_call.items():
        accounts.insist(len(found) == 1, f"{call_id} has {len(found)} rows: {[row['id'] for row in found]}")
        entry = entries.get(call_id)
        for row in found:
            if row["outcome"] != "completed":
                continue
            accounts.insist(entry is not None, f"{row['id']} is complete, and the upstream knows no {call_id}")
            if entry is not None:
                told = (*tokens_of(row), row["cost_nanos"])
                due = (*(getattr(entry.bill, f"{kind}_tokens") for kind in KINDS), entry.nanos)
                accounts.insist(told == due, f"{row['id']} says {told}, the upstream billed {due}")
    # A process that dies does not come to say whom it asked: its rows have no call's id.
    nameless = sum(1 for row in rows if row["attempts"] and not row["upstream_request_id"])
    without = [call_id for call_id in entries if call_id not in by_call]
    accounts.insist(
        len(without) <= nameless,
        f"{len(without)} calls were billed and are in no row; {nameless} rows could be some: {without[:5]}",
    )
    by_id = {row["id"]: row for row in rows}
    markers = {entry.call_id: entry.marker for entry in entries.values()}
    seen = Counter()
    for request_id, marker in answered:
        row = by_id.get(request_id)
        seen[request_id] += 1
        if row is None:
            accounts.problems.append(f"{marker} was answered and has no row: {request_id}")
        else:
            accounts.insist(row["outcome"] == "completed", f"{marker} was answered, and its row says {row['outcome']}")
            of_row = markers.get(row["upstream_request_id"])
            accounts.insist(of_row == marker, f"The row of {marker} is one of {of_row}: {request_id}")
    accounts.problems += [
        f"{request_id} was given to {count} answers" for request_id, count in seen.items() if count > 1
    ]


def _leftovers(accounts, server, exact_leases):
    left = sorted(path.name for path in (server.folder / "journal").glob("*.journal"))
    accounts.insist(not left, f"{len(left)} files of the journal are not drained: {left[:5]}")
    if exact_leases:
        accounts.insist(not accounts.held, f"{accounts.held} nanos are held, and nobody is there to spend them")


def tokens_of(row):
    """The disjoint counters of a row, in the order of ``KINDS``."""
    counts = [row[f"{kind}_tokens"] or 0 for kind in KINDS]
    counts[2] += row["cache_write_1h_tokens"] or 0
    return tuple(counts)


def moment(value):
    """A time as the database gave it: SQLite has none of its own."""
    if isinstance(value, str):
        return datetime.datetime.fromisoformat(value).replace(tzinfo=datetime.UTC)
    return value
