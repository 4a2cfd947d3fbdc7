"""docs/reliability.md: what the scenarios came to, in words and tables, a section each."""

import fcntl
import os

from tests.server import ROOT

PAGE = ROOT / "docs" / "reliability.md"
ORDER = (
    "Overshoot",
    "Kills",
    "Database away",
    "Rate limits",
    "Cut streams",
    "Disk full",
    "Hot path",
    "Revocations",
    "Rolling restarts",
)

INTRODUCTION = """\
# Reliability

`./comptoir bench chaos --write` wrote this page: every figure on it was measured, on the machine and day that its
section names, by a program that anybody can run again. The server is the real one, with several gateway processes, on
PostgreSQL and Valkey; proxies between them refuse, swallow, hold back and cut what is sent; the upstream is a scripted
one that keeps books of what it billed, in tokens and in money. What did not hold is listed, too.

After every scenario a reconciler, which reads the tables with SQL of its own, holds against each other: every row, the
ledger's every interval, every lease, the sums over hours and days, the files of the journal, and the upstream's books.
"Agree" means to the nano, which is 10⁻⁹ of the currency.

What needs no time and no other processes is held by tests instead, whenever they run. More than a thousand reports of
usage that cannot be right go through the pipeline in
[test_absurd_usage.py](../tests/gateway/test_absurd_usage.py): whatever is said, no cost is negative, and the answer
arrives as it was written. Ledger, leases, journal and drainer are played on a made disk and clock, with every
crash that a property-based search thinks of, in [test_simulation.py](../tests/chaos/test_simulation.py).
"""


def write(results, machine, day, arguments):
    """Put the sections of ``results`` into the page; those of scenarios that were not played stay."""
    folder = os.open(PAGE.parent, os.O_RDONLY)
    try:
        # Scenarios that are played beside each other end when they like.
        fcntl.flock(folder, fcntl.LOCK_EX)
        sections = _sections(PAGE.read_text()) if PAGE.exists() else {}
        for result in results:
            sections[result.title] = _section(result, machine, day, arguments)
        titles = sorted(sections, key=lambda title: ORDER.index(title) if title in ORDER else len(ORDER))
        PAGE.write_text("\n".join([INTRODUCTION, *(sections[title] for title in titles)]))
    finally:
        os.close(folder)


def _sections(text):
    """``{title: section}`` of a page."""
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in text.split("\n## ")[1:]}


def _section(result, machine, day, arguments):
    lines = [
        f"## {result.title}",
        "",
        f"{result.what}.",
        "",
        f"Measured on {day:%Y-%m-%d} in {result.seconds:.0f} s; {_seeds(result.seeds)}{machine}; "
        f"`./comptoir bench {' '.join(arguments)}`.",
        "",
        "| What | Measured | Must be |",
        "|---|---|---|",
        *(f"| {name} | {value} | {wanted} |" for name, value, wanted in result.figures),
    ]
    if result.problems:
        lines += ["", f"What did not hold ({len(result.problems)}):", ""]
        lines += [f"- {problem}" for problem in result.problems[:6]]
    return "\n".join([*lines, ""])


def _seeds(seeds):
    if not seeds:
        return ""
    if len(seeds) == 1:
        return f"seed {seeds[0]}; "
    return f"seeds {seeds[0]} to {seeds[-1]}; " if len(seeds) > 2 else f"seeds {seeds[0]} and {seeds[1]}; "
