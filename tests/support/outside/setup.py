"""Sets up the ledger's outside readers under `.tools/outside`, once; tests use them through `readers()`.

    python tests/support/outside/setup.py

Go's reader is built from `reader.go` with Debian's golang-go and golang-golang-x-mod-dev, without any download. `aics-tlog` comes
from PyPI into an environment of its own. It declares Python 3.12 or newer: such a Python is used where there is one, else the one
that runs this (3.11 on Debian 12) with that declaration set aside. That is sound only because its answers are checked: it must
accept and refuse, in `tests/means/test_ledger_outside.py`, what Go's reader accepts and refuses, or the suite fails.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TOOLS = ROOT / ".tools" / "outside"
GO_SOURCES = Path("/usr/share/gocode")
AICS = "aics-tlog==0.2.1"
AICS_WANTS = ("python3.12", "python3.13", "python3.14")


class OutsideReaderMissing(Exception):
    """A reader could not be set up; the message says which package is missing. Tests fail on it, they do not skip."""


@dataclass(frozen=True)
class Outcome:
    """What an outside reader said."""

    accepted: bool
    text: str


@dataclass(frozen=True)
class Reader:
    """One outside reader, ready to run."""

    name: str
    command: tuple[str, ...]

    def __call__(self, *arguments: str | Path) -> Outcome:
        """Run it; anything but a clear yes is a no."""
        done = subprocess.run([*self.command, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
        text = (done.stdout + done.stderr).strip()
        refused = done.returncode == 1 and done.stderr.startswith("refused:")
        if not refused and not (done.returncode == 0 and done.stdout.startswith("ok ")):
            raise AssertionError(f"{self.name} neither accepted nor refused: exit status {done.returncode}\n{text}")
        return Outcome(not refused, text)


def readers() -> list[Reader]:
    """Set up what is not there yet, and return both readers.

    Raises:
        OutsideReaderMissing: Go or its library is not installed, or the package could not be had.
    """
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:  # test processes run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        return [Reader("go", (str(_go()),)), Reader("aics", (str(_aics()), "-W", "error", str(HERE / "read_with_aics.py")))]


def _go() -> Path:
    source = HERE / "reader.go"
    built = TOOLS / f"reader-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if built.exists():
        return built
    if not shutil.which("go") or not (GO_SOURCES / "src/golang.org/x/mod/sumdb").is_dir():
        raise OutsideReaderMissing("Go or its sumdb library is missing: apt-get install golang-go golang-golang-x-mod-dev")
    settings = {"GO111MODULE": "off", "GOPATH": str(GO_SOURCES), "GOFLAGS": "", "GOCACHE": str(TOOLS / "go-cache")}
    partial = built.with_suffix(".partial")
    _run(["go", "build", "-o", str(partial), str(source)], settings)
    partial.rename(built)
    return built


def _aics() -> Path:
    environment = TOOLS / "aics"
    python = environment / "bin" / "python"
    stamp = environment / AICS
    if stamp.exists():
        return python
    shutil.rmtree(environment, ignore_errors=True)
    chosen = next((found for name in AICS_WANTS if (found := _works(name))), sys.executable)
    _run([chosen, "-m", "venv", str(environment)], {})
    declared = [] if chosen != sys.executable or sys.version_info >= (3, 12) else ["--ignore-requires-python"]
    pip = [str(python), "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check", "install", "--retries", "10"]
    _run([*pip, *declared, "-c", str(ROOT / "constraints.txt"), AICS], {})
    stamp.touch()
    return python


def _works(name: str) -> str | None:
    """Find a Python that runs and can make environments; a name on PATH may be a shim for nothing."""
    found = shutil.which(name)
    if found and subprocess.run([found, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0:
        return found
    return None


def _run(command: list[str], settings: dict[str, str]) -> None:
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OutsideReaderMissing(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    print("\n".join(f"{reader.name}: {' '.join(reader.command)}" for reader in readers()))
