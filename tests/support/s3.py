"""Two S3 servers of other people's making, on loopback, and the stores that the blob contract is run against.

- `rclone serve s3`: overwrites in spite of `If-None-Match`, and answers ranges with the wrong status, as some servers do.
- `moto_server`: keeps conditional writes and ranges as Amazon's own service does.

A missing program fails the tests that need it. It never skips them.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from model_organisms_registry.storage.blobs import Blobs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NUMBERS = itertools.count(1)
_KEY, SECRET = "AKIDEXAMPLE", "not a secret at all"
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class S3Server:
    """A running server with one bucket."""

    endpoint: str

    def url(self) -> str:
        """Print the address of a place of its own for one test."""
        return f"s3://bucket/test/{next(_NUMBERS)}?endpoint={self.endpoint}&access_key_id={_KEY}"


def _serve(name: str, arguments: list[str], folder: Path) -> Iterator[str]:
    """Run a server of this environment until the test run ends, and give the address that it prints."""
    program = Path(sys.executable).parent / name
    if not program.exists():
        pytest.fail(f"{program} is missing; run `make test`, which installs it.", pytrace=False)
    log = folder / "log"
    with log.open("wb") as output:
        command = ["setpriv", "--pdeathsig", "KILL", str(program), *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := re.search(r"http://127\.0\.0\.1:[1-9][0-9]*", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{name} did not start:\n{log.read_text()}", pytrace=False)
            time.sleep(0.05)
        yield found.group()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """`rclone serve s3` over an empty folder; a folder in it is a bucket."""
    folder = tmp_path_factory.mktemp("rclone")
    (folder / "buckets" / "bucket").mkdir(parents=True)
    arguments = ["serve", "s3", "--addr", "127.0.0.1:0", "--auth-key", f"{_KEY},{SECRET}", "--config", str(folder / "none")]
    for endpoint in _serve("rclone", [*arguments, str(folder / "buckets")], folder):
        yield S3Server(endpoint)


@pytest.fixture(scope="session")
def moto_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """`moto_server`, holding its bucket in memory."""
    for endpoint in _serve("moto_server", ["-H", "127.0.0.1", "-p", "0"], tmp_path_factory.mktemp("moto")):
        urlopen(Request(f"{endpoint}/bucket", method="PUT")).close()  # noqa: S310 - an http address of our own
        yield S3Server(endpoint)


@pytest.fixture(params=["folder", "moto", "rclone"])
def open_blobs(request: pytest.FixtureRequest) -> Callable[[], Blobs]:
    """Give a way to open one empty store, as often as wanted; the test runs on each kind of store."""
    options: dict[str, Any] = {}
    if request.param == "folder":
        url = f"file://{request.getfixturevalue('tmp_path')}/blobs"
    else:
        url = request.getfixturevalue(f"{request.param}_s3").url()
        options = {"secret_access_key": SECRET, "one_writer": request.param == "rclone"}
    return lambda: Blobs(url, **options)


@pytest.fixture
def blobs(open_blobs: Callable[[], Blobs]) -> Blobs:
    """One empty store, of each kind."""
    return open_blobs()


@pytest.fixture
def folder_blobs(tmp_path: Path) -> Blobs:
    """One empty store in a folder, for tests of what lies above the stores."""
    return Blobs(f"file://{tmp_path}/blobs")
