"""
What one process tells all others of at once, where the database passes it on: that is PostgreSQL.

Elsewhere, and to whom is not connected at that moment, nothing is told: whoever listens must also look by themselves.
"""

from django.db import connection

CHANNEL = "comptoir"
# Keys, providers, models, prices or limits have changed; and somebody asks for what lies idle of a spend limit.
REVISION, LEDGER = "revision", "ledger"


def announce(topic):
    """Tell every process that listens, when the transaction commits and only then; twice in one is once."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, topic])
