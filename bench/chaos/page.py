"""docs/reliability.md: what the scenarios came to, in words and tables."""

from tests.server import ROOT

PAGE = ROOT / "docs" / "reliability.md"

INTRODUCTION = """\
# Reliability

`./comptoir bench chaos --write` wrote this page: every figure on it was measured, on the machine and day that it names,
by a program that anybody can run again. The server is the real one, with several gateway processes, on PostgreSQL and
Valkey; proxies between them refuse, swallow, hold back and cut what is sent; the upstream is a scripted one that keeps
books of what it billed, in tokens and in money.

After every scenario a reconciler, which reads the tables with SQL of its own, holds against each other: every row, the
ledger's every interval, every lease, the sums over hours and days, the files of the journal, and the upstream's books.
"Agree" on this page means to the nano, which is 10⁻⁹ of the currency.

"""


def page(results, machine, day, arguments):
    """The whole page."""
    parts = [
        INTRODUCTION,
        f"Measured on {day:%Y-%m-%d}: {machine}.\nCommand: `./comptoir bench {' '.join(arguments)}`.\n",
    ]
    for result in results:
        parts.append(
            f"\n## {result.title}\n\n{result.what}. Seeds: {_seeds(result.seeds)}. It took {result.seconds:.0f} s.\n"
        )
        parts.append("\n| What | Measured | Must be |\n|---|---|---|\n")
        parts += [f"| {name} | {value} | {wanted} |\n" for name, value, wanted in result.figures]
        if result.problems:
            parts.append(f"\nWhat did not hold ({len(result.problems)}):\n\n")
            parts += [f"- {problem}\n" for problem in result.problems[:20]]
    return "".join(parts)


def _seeds(seeds):
    return f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 2 else ", ".join(map(str, seeds))
