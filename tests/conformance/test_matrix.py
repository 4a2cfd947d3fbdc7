"""Every cell of the matrix: each is asked once, all of them together, and then looked at one by one."""

import pytest

from tests.conformance.checks import check
from tests.conformance.matrix import cells

# The first of them waits for all answers.
pytestmark = [pytest.mark.sdk, pytest.mark.timeout(900)]


@pytest.mark.parametrize("cell", cells(), ids=lambda cell: cell.id)
def test_cell(cell, seen):
    check(seen[cell])
