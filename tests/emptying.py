"""The end of a test that commits: only what it filled is emptied, and nothing that was there before is made anew."""

import functools

from django.db import connection, transaction

# What migrating itself has written. Django's own flush would empty these too, and write them again after every test.
KEPT = {"django_content_type", "auth_permission"}


def empty_database(_test_case=None):
    """Delete every row that a test can have written; takes the place of ``TransactionTestCase._fixture_teardown``."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_which_are_filled())
        # Foreign keys are checked at the end of the transaction, so that no order matters.
        for (table,) in cursor.fetchall():
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")


@functools.cache
def _which_are_filled():
    """The query for the names of all tables that have rows."""
    tables = sorted(set(connection.introspection.django_table_names(include_views=False)) - KEPT)
    quote = connection.ops.quote_name
    return " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {quote(table)})" for table in tables)
