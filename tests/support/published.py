"""Tasks that others published (`inspect_evals`, from PyPI), set up under `.tools/inspect-evals`, once: to run on our providers.

    python tests/support/published.py

Its dependencies stay out, and so does its entry point, which would import all of its tasks at every start of Inspect: what tests
run are tasks that need neither those nor a network.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "inspect-evals"
WANTED = "inspect-evals==0.20.0"


def folder() -> Path:
    """Set it up if it is not there yet, and give the folder to import from.

    Raises:
        CalledProcessError: It could not be had; tests fail on that, they do not skip.
    """
    TOOLS.mkdir(parents=True, exist_ok=True)
    place = TOOLS / WANTED
    with (TOOLS / "lock").open("w") as lock:  # test processes run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            draft = TOOLS / "draft"
            shutil.rmtree(draft, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--no-compile"]
            subprocess.run([*pip, "--target", str(draft), WANTED], check=True, stdin=subprocess.DEVNULL)
            for metadata in draft.glob("*.dist-info"):
                shutil.rmtree(metadata)
            draft.rename(place)
    return place


@contextmanager
def importable() -> Iterator[None]:
    """Let its tasks be imported while the block runs."""
    path = str(folder())
    sys.path.append(path)
    try:
        yield
    finally:
        sys.path.remove(path)


if __name__ == "__main__":
    print(folder())
