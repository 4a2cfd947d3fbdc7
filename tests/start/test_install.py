"""What `./comptoir` sets up, without fetching anything: packages come from wheels that are made here."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from config import install
from tests.server import ROOT

CATALOG = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\nmsgid "Key"\nmsgstr "Clé"\n'


@pytest.fixture
def project(tmp_path):
    """A project whose packages are one small wheel, whose browser files are there already."""
    folder = tmp_path / "project"
    (folder / "config").mkdir(parents=True)
    (folder / "sdk").mkdir()
    shutil.copy(ROOT / "config/install.py", folder / "config")
    for name in ("requirements-dev.lock", "model.lock", "node.lock", "package-lock.json"):
        (folder / name).write_text("")
    (folder / "requirements.lock").write_text(wheel(tmp_path / "wheels", "greeting"))
    (folder / "static/vendor").mkdir(parents=True)
    (folder / "static/vendor/.stamp").write_bytes(repr(install.VENDORED).encode())
    return folder


def wheel(folder, name):
    """Make the wheel of a package that holds nothing; the line of a lock that asks for it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def command(project, profile="serve", uv=""):
    # The Python below this test's environment has a pip of its own, as a machine's has.
    return [
        getattr(sys, "_base_executable", sys.executable),
        "-I",
        str(project / "config/install.py"),
        profile,
        "--uv",
        uv,
    ]


def environment(project):
    return os.environ | {
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": str(project.parent / "wheels"),
    }


def run(project, *arguments):
    return subprocess.run(
        command(project, *arguments), env=environment(project), capture_output=True, text=True, timeout=100
    )


def test_it_sets_up_once_and_then_has_nothing_to_do(project):
    first = run(project)
    assert first.returncode == 0, first.stderr
    assert "Python packages" in first.stderr
    code = "import greeting"
    assert subprocess.run([project / ".venv/bin/python", "-c", code]).returncode == 0
    assert (project / ".venv/.ready-serve").exists()
    assert not (project / ".venv/.ready-up").exists()
    again = run(project)
    assert again.returncode == 0
    assert "Python" not in again.stderr


def test_a_failed_download_is_one_line_and_leaves_what_was_done(project):
    with open(project / "requirements.lock", "a") as lock:
        lock.write(f"nothing-like-this==1.0 --hash=sha256:{'0' * 64}\n")
    failed = run(project)
    assert failed.returncode == 1
    last = failed.stderr.splitlines()[-1]
    assert last.startswith("The Python packages could not be fetched: ")
    assert "nothing-like-this" in last
    assert "Traceback" not in failed.stderr
    assert not (project / ".venv/.ready-serve").exists()
    (project / "requirements.lock").write_text((project / "requirements.lock").read_text().splitlines()[0] + "\n")
    again = run(project)
    assert again.returncode == 0, again.stderr
    assert "Python environment" not in again.stderr


def test_without_its_model_it_starts_all_the_same(project):
    (project / "model.lock").write_text(f"no-such-model==1.0 --hash=sha256:{'0' * 64}\n")
    done = run(project, "up")
    assert done.returncode == 0, done.stderr
    assert "The language model of this machine could not be fetched" in done.stderr
    assert (project / ".venv/.ready-serve").exists()
    # The next start tries again.
    assert not (project / ".venv/.ready-up").exists()


def test_libraries_are_fetched_where_they_are_asked_for(project, monkeypatch):
    (project / "extras").mkdir()
    (project / "extras/bedrock.lock").write_text(wheel(project.parent / "wheels", "farewell"))
    assert run(project).returncode == 0
    code = [project / ".venv/bin/python", "-c", "import farewell"]
    assert subprocess.run(code, capture_output=True).returncode == 1
    monkeypatch.setenv("COMPTOIR_EXTRAS", "bedrock")
    assert "Libraries for bedrock" in run(project).stderr
    assert subprocess.run(code).returncode == 0
    assert "Libraries" not in run(project).stderr
    monkeypatch.setenv("COMPTOIR_EXTRAS", "bedrok")
    wrong = run(project)
    assert wrong.returncode == 1
    assert wrong.stderr.splitlines()[-1] == "COMPTOIR_EXTRAS names “bedrok”, and there are only: bedrock."


def test_an_interrupted_set_up_goes_on_the_next_time(project):
    # It makes the environment, and would then fetch packages for longer than anybody waits.
    uv = project.parent / "uv"
    uv.write_text(f"""#!/bin/sh
        command=$1
        for folder; do :; done
        [ "$command" != venv ] || exec "{command(project)[0]}" -m venv --without-pip "$folder"
        exec sleep 60 >/dev/null 2>&1
    """)
    uv.chmod(0o755)
    interrupted = command(project, uv=str(uv))
    with subprocess.Popen(
        interrupted,
        env=environment(project),
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores it, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        until = time.monotonic() + 30
        while not (project / ".venv/pyvenv.cfg").exists() and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode
    assert "Traceback" not in errors
    assert not (project / ".venv/.ready-serve").exists()
    assert run(project).returncode == 0
    assert (project / ".venv/.ready-serve").exists()


def test_half_an_environment_is_made_again(project):
    (project / ".venv/bin").mkdir(parents=True)
    # What is installed with this Python would go elsewhere.
    (project / ".venv/bin/python").symlink_to(os.path.realpath(sys.executable))
    assert not install.is_environment(project / ".venv/bin/python")
    assert run(project).returncode == 0
    assert install.is_environment(project / ".venv/bin/python")


def test_translations_are_compiled_without_any_tool_of_the_system(project, monkeypatch):
    catalog = project / "locale/fr/LC_MESSAGES/django.po"
    catalog.parent.mkdir(parents=True)
    catalog.write_text(CATALOG)
    (project / ".tools").mkdir()
    monkeypatch.setattr(install, "ROOT", project)
    monkeypatch.setattr(install, "LOG", project / ".tools/setup.log")
    monkeypatch.setattr(install, "PYTHON", sys.executable)
    install.Setup("serve", "").catalogs()
    assert "Clé".encode() in catalog.with_suffix(".mo").read_bytes()
    assert [path.name for path in catalog.parent.iterdir() if path.suffix == ".new"] == []


def test_each_client_of_the_tests_has_a_folder_for_itself(project, monkeypatch):
    (project / "sdk/greeting-1.lock").write_text((project / "requirements.lock").read_text())
    (project / ".tools").mkdir()
    monkeypatch.setattr(install, "ROOT", project)
    monkeypatch.setattr(install, "SDK", project / ".sdk")
    monkeypatch.setattr(install, "LOG", project / ".tools/setup.log")
    monkeypatch.setattr(install, "PYTHON", sys.executable)
    for name, value in environment(project).items():
        monkeypatch.setenv(name, value)
    setup = install.Setup("test", "")
    setup.environment_made.set()
    setup.clients()
    folder = project / ".sdk/greeting-1"
    assert (folder / "greeting.py").exists()
    # The second time there is nothing to do.
    (folder / "greeting.py").unlink()
    setup.clients()
    assert not (folder / "greeting.py").exists()


def test_a_source_map_that_is_not_taken_over_is_not_named():
    assert install.without_source_map(b"a()\n//# sourceMappingURL=a.js.map\n") == b"a()\n"
    assert install.without_source_map(b"a('//# sourceMappingURL=')\nb()") == b"a('//# sourceMappingURL=')\nb()"


def test_the_last_word_of_a_failed_command_is_its_error():
    assert install.last_words("ERROR: no route\nnote: see above\n") == "ERROR: no route"
    assert install.last_words("\n") == "it said nothing"
