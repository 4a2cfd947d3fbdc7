"""The page in the docs says what the tests ask, no more and no less."""

from tests.conformance import page
from tests.conformance.matrix import CLIENTS, UPSTREAMS, cells


def test_the_page_names_exactly_the_cells_that_are_tested(tmp_path):
    found, here = page.marks_on(page.PATH.read_text())
    tested = {cell: page.mark(cell) for cell in cells() if not cell.is_here}
    assert found == tested
    assert here == len([cell for cell in cells() if cell.is_here])
    assert set(CLIENTS) == {cell.client for cell in found}
    assert set(UPSTREAMS) == {cell.upstream for cell in found}
    page.write(cells(), tmp_path / "page.md")
    # Versions may differ: it tells those of its run.
    again = [line for line in (tmp_path / "page.md").read_text().splitlines() if not line.startswith("## ")]
    assert again == [line for line in page.PATH.read_text().splitlines() if not line.startswith("## ")]


def test_a_cell_that_is_not_tested_is_noticed():
    text = page.PATH.read_text().replace("| openai |", "| opanei |", 1)
    found, _ = page.marks_on(text)
    assert found != {cell: page.mark(cell) for cell in cells() if not cell.is_here}
