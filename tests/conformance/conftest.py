import pytest

from tests.conformance.matrix import SDK
from tests.conformance.run import run


@pytest.fixture(scope="session")
def seen(request, tmp_path_factory):
    """What became of every cell that is tested in this run; they are asked all at once."""
    if not SDK.is_dir():
        pytest.skip(f"{SDK} is missing: `./comptoir test` makes it")
    wanted = [
        cell
        for item in request.session.items
        if "together" in getattr(item, "fixturenames", ())
        for cell in item.callspec.params["together"]
    ]
    return run(wanted, tmp_path_factory.mktemp("conformance"))
