"""The same calls once more with older majors of the libraries, each in a process that has only that one."""

import os
import subprocess
import sys

import pytest

from tests.server import ROOT

# The folders that `./comptoir test` fills from the lock files in sdk/.
OLDER = {
    "openai-1": ("openai==1.109.1", "test_openai.py", "test_embeddings.py"),
    "anthropic-0": ("anthropic==0.125.0", "test_anthropic.py"),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("folder", OLDER)
def test_an_older_major_works_unchanged(folder):
    version, *tests = OLDER[folder]
    packages = ROOT / ".sdk" / folder
    if not packages.is_dir():
        pytest.skip(f"{packages} is missing: `./comptoir test` installs it")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no", "--tb=short"]
    done = subprocess.run(
        [*command, *(f"tests/sdk/{name}" for name in tests)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(packages), "TEST_SDK_VERSION": version},
        capture_output=True,
        text=True,
    )
    print(done.stdout[-20_000:], done.stderr[-4000:])
    assert done.returncode == 0, done.stdout.splitlines()[-1]
