"""The shell script `./comptoir`, in a project whose Python only writes down what it was asked."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.server import ROOT

LOCKS = ["requirements.lock", "requirements-dev.lock", "model.lock", "node.lock", "package-lock.json"]
# What would be the environment's Python: it prints its arguments, and the variables that some tests ask for.
ECHO = """#!/bin/sh
printf '%s\\n' "$*"
printf 'COMPTOIR_DATA=%s\\nDATABASE_URL=%s\\n' "${COMPTOIR_DATA:-}" "${DATABASE_URL:-}"
"""
INSTALL = "import sys; print('set up', *sys.argv[1:]); print('with', *sys.version_info[:2])"


class Project:
    def __init__(self, folder):
        self.folder = folder
        (folder / "config").mkdir(parents=True)
        (folder / "sdk").mkdir()
        shutil.copy(ROOT / "comptoir", folder)
        for lock in LOCKS:
            (folder / lock).write_text(f"{lock}\n")
        (folder / "sdk/old.lock").write_text("old\n")
        (folder / "config/install.py").write_text(INSTALL)
        self.bin = folder / "path"
        self.bin.mkdir()
        for program in ("sh", "cat", "cmp", "dirname", "rm"):
            (self.bin / program).symlink_to(shutil.which(program))

    def make_ready(self, *profiles):
        script(self.folder / ".venv/bin/python", ECHO)
        (self.folder / "static/vendor").mkdir(parents=True, exist_ok=True)
        (self.folder / "static/vendor/.stamp").touch()
        inputs = [
            self.folder / "config/install.py",
            *(self.folder / lock for lock in LOCKS),
            self.folder / "sdk/old.lock",
        ]
        for profile in profiles:
            (self.folder / f".venv/.ready-{profile}").write_bytes(b"".join(path.read_bytes() for path in inputs))

    def run(self, *arguments, cwd=None, **environment):
        return subprocess.run(
            [self.folder / "comptoir", *arguments],
            cwd=cwd or self.folder,
            env={"PATH": str(self.bin), "HOME": str(self.folder / "home")} | environment,
            capture_output=True,
            text=True,
            timeout=30,
        )


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def real_python(path):
    return script(path, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "a project")


def test_help_says_what_there_is(project):
    done = project.run("help")
    assert done.returncode == 0
    assert all(f"./comptoir {command}" in done.stdout for command in ("up", "test", "bench", "manage"))


def test_an_unknown_command_is_named_and_the_others_are_listed(project):
    done = project.run("serve")
    assert done.returncode == 2
    assert "'serve'" in done.stderr.splitlines()[0]
    assert "./comptoir up" in done.stderr


def test_when_all_is_there_it_goes_straight_to_the_command(project):
    project.make_ready("serve", "up", "test")
    assert project.run("up", "--port", "9000").stdout.startswith("-m config.up --port 9000\n")
    assert project.run("test", "-k", "two words").stdout.startswith("-m pytest -k two words\n")
    assert project.run("bench", "--quick").stdout.startswith("-m bench --quick\n")
    assert project.run("manage", "check").stdout.startswith("manage.py check\n")


def test_a_warm_start_costs_less_than_a_tenth_of_a_second(project):
    project.make_ready("up")
    for lock in LOCKS:
        shutil.copy(ROOT / lock, project.folder)
    project.make_ready("up")

    def seconds():
        began = time.perf_counter()
        assert project.run("up").stdout.startswith("-m config.up")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(10)) < 0.1


@pytest.mark.parametrize("lock", [*LOCKS, "sdk/old.lock"])
def test_a_changed_lock_sets_up_again(project, lock):
    project.make_ready("up")
    real_python(project.bin / "python3.13")
    (project.folder / lock).write_text("changed")
    assert "set up up --uv" in project.run("up").stdout


def test_a_changed_translation_sets_up_again(project):
    project.make_ready("up")
    real_python(project.bin / "python3.13")
    catalog = project.folder / "locale/fr/LC_MESSAGES/django.po"
    catalog.parent.mkdir(parents=True)
    catalog.touch()
    assert "set up up" in project.run("up").stdout
    compiled = catalog.with_suffix(".mo")
    compiled.touch()
    os.utime(catalog, (1, 1))
    assert "set up" not in project.run("up").stdout


def test_without_the_model_it_does_not_wait_for_the_model(project):
    project.make_ready("serve")
    real_python(project.bin / "python3.13")
    assert "set up" not in project.run("up", "--no-model").stdout
    assert "set up up" in project.run("up").stdout


@pytest.mark.parametrize("extras", ["bedrock", "bedrock,vertex", " vertex, bedrock "])
def test_a_library_that_was_asked_for_is_fetched_once(project, extras):
    project.make_ready("serve", "up")
    real_python(project.bin / "python3.13")
    (project.folder / "extras").mkdir()
    for name in ("bedrock", "vertex"):
        (project.folder / f"extras/{name}.lock").write_text(name)
    assert "set up up" in project.run("up", COMPTOIR_EXTRAS=extras).stdout
    (project.folder / ".env").write_text(f"COMPTOIR_EXTRAS='{extras}'\n")
    assert "set up serve" in project.run("manage", "check").stdout
    for name in ("bedrock", "vertex"):
        (project.folder / f".venv/.extra-{name}").write_text(name)
    assert "set up" not in project.run("up").stdout
    assert "set up" not in project.run("manage", "check").stdout
    (project.folder / "extras/bedrock.lock").write_text("another")
    assert "set up up" in project.run("up").stdout


def test_without_any_python_one_line_says_what_to_do(project):
    done = project.run("up")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Python 3.12 or newer, or uv" in done.stderr


def test_an_older_python_first_on_the_path_does_not_hide_one_under_pyenv(project):
    script(project.bin / "python3", "#!/bin/sh\nexit 1\n")
    script(project.bin / "python3.13", "#!/bin/sh\necho pyenv: python3.13: command not found >&2\nexit 127\n")
    real_python(project.folder / "home/.pyenv/versions/3.13.0/bin/python3")
    done = project.run("up")
    assert "set up up" in done.stdout
    assert f"with {sys.version_info[0]} {sys.version_info[1]}" in done.stdout
    assert "command not found" not in done.stderr


def test_a_shim_of_uv_that_leads_nowhere_is_passed_over(project):
    real_python(project.bin / "python3.13")
    script(project.bin / "uv", "#!/bin/sh\necho pyenv: uv: command not found >&2\nexit 127\n")
    assert project.run("up").stdout.splitlines()[0] == "set up up --uv "
    uv = script(project.folder / "home/.pyenv/versions/3.11.7/bin/uv", "#!/bin/sh\necho uv 0.13\n")
    assert project.run("up").stdout.splitlines()[0] == f"set up up --uv {uv}"


def test_with_uv_alone_the_python_that_uv_brings_is_used(project):
    text = f"""#!/bin/sh
        case $1 in
          --version) echo uv 0.13 ;;
          venv) {shutil.which("mkdir")} -p .venv/bin && {shutil.which("ln")} -sf "{sys.executable}" .venv/bin/python ;;
        esac
    """
    uv = script(project.bin / "uv", text)
    done = project.run("manage", "check")
    assert f"set up serve --uv {uv}" in done.stdout


def test_uv_that_cannot_fetch_python_ends_in_one_line_that_says_so(project):
    script(project.bin / "uv", "#!/bin/sh\n[ $1 = --version ]\n")
    done = project.run("up")
    assert done.returncode == 1
    assert "uv could not fetch Python" in done.stderr.splitlines()[-1]


def test_a_python_that_was_asked_for_and_is_too_old_is_refused_by_name(project):
    real_python(project.bin / "python3.13")
    done = project.run("up", PYTHON="/bin/false")
    assert done.returncode == 1
    assert done.stderr.strip() == "PYTHON names /bin/false, which is not Python 3.12, 3.13 or 3.14."


def test_a_file_of_variables_fills_in_what_the_environment_leaves_open(project):
    project.make_ready("serve", "up")
    (project.folder / ".env").write_text(
        "# a comment\nDATABASE_URL='postgres://u:p@h/d?a=$b&c'\nCOMPTOIR_DATA=/from/file\nnot a variable\nA-B=1\n"
    )
    output = project.run("up").stdout
    assert "DATABASE_URL=postgres://u:p@h/d?a=$b&c\n" in output
    assert "COMPTOIR_DATA=/from/file\n" in output
    assert "COMPTOIR_DATA=/given\n" in project.run("up", COMPTOIR_DATA="/given").stdout


def test_tests_do_not_read_the_file_of_variables(project):
    project.make_ready("test")
    (project.folder / ".env").write_text("DATABASE_URL=postgres://production/")
    assert "DATABASE_URL=\n" in project.run("test").stdout


def test_a_relative_data_folder_is_meant_from_where_the_caller_stands(project, tmp_path):
    project.make_ready("up")
    output = project.run("up", cwd=tmp_path, COMPTOIR_DATA="here").stdout
    assert f"COMPTOIR_DATA={tmp_path}/here\n" in output


def test_the_script_and_the_set_up_agree_on_what_a_profile_is_made_from():
    from config import install

    text = (ROOT / "comptoir").read_text()
    names = [path.relative_to(ROOT).as_posix() for path in install.input_files() if path.parent.name != "sdk"]
    assert f"cat {' '.join(names)} sdk/*.lock |" in text


def test_no_committed_lock_names_a_registry():
    for lock in [
        *(ROOT / name for name in LOCKS),
        *Path(ROOT, "sdk").glob("*.lock"),
        *Path(ROOT, "extras").glob("*.lock"),
    ]:
        text = lock.read_text()
        assert "://" not in text.replace("https://github.com/sponsors", "") or lock.name == "package-lock.json"
        assert "resolved" not in text


def test_extras_are_what_the_server_lacks_as_the_tests_have_it():
    def packages(lock):
        return {line.split(" ")[0] for line in (ROOT / lock).read_text().splitlines() if "==" in line}

    server, tests = packages("requirements.lock"), packages("requirements-dev.lock")
    for lock in ROOT.glob("extras/*.lock"):
        assert packages(lock)
        assert not packages(lock) & server
        assert packages(lock) <= tests
