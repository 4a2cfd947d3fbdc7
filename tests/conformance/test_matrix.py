"""Every cell of the matrix: all are asked, and then looked at, those of one client and one upstream together."""

from collections import defaultdict

import pytest

from tests.conformance.checks import check
from tests.conformance.matrix import cells

# The first of them waits for all answers.
pytestmark = [pytest.mark.sdk, pytest.mark.timeout(900)]

TOGETHER = defaultdict(list)
for cell in cells():
    TOGETHER[f"{cell.client}.{cell.upstream}"].append(cell)


@pytest.mark.parametrize("together", TOGETHER.values(), ids=TOGETHER)
def test_every_cell_is_as_it_must_be(together, seen):
    failures = []
    for cell in together:
        try:
            check(seen[cell])
        except Exception as error:
            error.add_note(cell.id)
            failures.append(error)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(together)} cells are not as they must be", failures)
