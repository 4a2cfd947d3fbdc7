"""What the books say of the ledger alone."""

from usage import books


def ledger_differences():
    """Where an interval is not what its rows cost, or does not hold what its leases do; empty when all is right."""
    return [each for each in books.total()["differences"] if each["account"] != "rollups"]
