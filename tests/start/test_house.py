"""What must be true of the sources as a whole."""

import os
import sqlite3
import subprocess
import sys

from config.env import stored_secret
from tests import schedule
from tests.server import OWN_VARIABLES, ROOT

PRODUCTION = {
    "COMPTOIR_PUBLIC_URL": "https://ai.example.org",
    "SECRET_KEY": "a production server has a long secret" + "0123456789" * 3,
    "API_KEY_PEPPER": "p" * 40,
    "CREDENTIAL_KEYS": "c" * 40,
}


def run(*command, **environment):
    done = finished(*command, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def command(*arguments, **environment):
    return finished(sys.executable, "manage.py", *arguments, **environment)


def finished(*command, **environment):
    clean = {name: value for name, value in os.environ.items() if not OWN_VARIABLES.match(name)}
    return subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=100)


def test_ruff_has_nothing_to_say():
    run(sys.executable, "-m", "ruff", "check", "--no-cache")
    run(sys.executable, "-m", "ruff", "format", "--check", "--no-cache")


def test_what_the_schedule_names_is_there():
    named = [*schedule.EARLIER, *(path for paths in schedule.TOGETHER for path in paths)]
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_change_of_a_model_has_its_migration(tmp_path):
    run(sys.executable, "manage.py", "makemigrations", "--check", "--dry-run", COMPTOIR_DATA=str(tmp_path))


def test_the_production_profile_passes_the_deployment_checks(tmp_path):
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    output = run(*command, COMPTOIR_DATA=str(tmp_path), **PRODUCTION)
    assert "no issues" in output


def test_names_below_the_public_one_are_bound_to_https_only_where_that_is_asked_for(tmp_path):
    code = "from django.conf import settings as s; print(s.SECURE_HSTS_INCLUDE_SUBDOMAINS, s.SECURE_HSTS_PRELOAD)"
    command = [sys.executable, "manage.py", "shell", "--no-imports", "-c", code]
    assert run(*command, COMPTOIR_DATA=str(tmp_path), **PRODUCTION).strip() == "False False"
    asked = PRODUCTION | {"COMPTOIR_HSTS_SUBDOMAINS": "true"}
    assert run(*command, COMPTOIR_DATA=str(tmp_path), **asked).strip() == "True True"


def test_a_secret_is_made_although_a_killed_start_of_the_same_process_id_left_its_draft(tmp_path):
    (tmp_path / f".secret_key.{os.getpid()}").touch()
    secret = stored_secret(tmp_path, "secret_key")
    assert len(secret) >= 32
    assert stored_secret(tmp_path, "secret_key") == secret


def test_a_command_on_a_folder_that_is_not_prepared_says_what_to_do(tmp_path):
    done = command("create_api_key", "--workspace", "default", "--name", "ci", COMPTOIR_DATA=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == (
        f"The database of {tmp_path} has not been prepared: start ./comptoir up and wait until it is ready, or set "
        "COMPTOIR_DATA to the folder that is meant.\n"
    )


def test_the_checks_of_a_command_pass_while_the_server_writes_to_the_database(tmp_path):
    with sqlite3.connect(tmp_path / "comptoir.sqlite3", isolation_level=None) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("BEGIN IMMEDIATE")
        done = command("check", "--database", "default", COMPTOIR_DATA=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_commands_are_called_what_people_type(tmp_path):
    done = command("set_rate_limit", "--nonsense", COMPTOIR_DATA=str(tmp_path))
    assert "usage: comptoir manage set_rate_limit" in done.stderr
    assert "manage.py" not in done.stderr


def test_secrets_may_come_from_files(tmp_path):
    files = {}
    for name in ("SECRET_KEY", "API_KEY_PEPPER", "CREDENTIAL_KEYS"):
        (tmp_path / name).write_text(PRODUCTION[name] + "\n")
        files[f"{name}_FILE"] = str(tmp_path / name)
    data = tmp_path / "data"
    run(sys.executable, "manage.py", "check", COMPTOIR_DATA=str(data), COMPTOIR_PUBLIC_URL="https://x.example", **files)
    assert not (data / "secrets").exists()


def test_the_shell_scripts_are_posix():
    for script in ("comptoir", ".ci/run"):
        run("sh", "-n", script)
