"""MLflow as a peer, where its command is at hand: its own server and defaults, called over plain HTTP by a bare client."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.bench.peers import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_API = "/api/2.0/mlflow/registered-models"
_FILES = "/api/2.0/mlflow-artifacts/artifacts"
_numbers = itertools.count()


@dataclass(slots=True)
class Rival:
    """One running MLflow server."""

    name: str
    port: int
    folder: Path
    filled: bool = False
    """Whether there are models enough for a page."""

    def caller(self, verb: str, page: int) -> Callable[[], object]:
        """Make one client on a connection of its own.

        Args:
            verb: `create`, `get` or `list`.
            page: Models of one page of `list`.
        """
        ask = self._connection()
        if verb == "create":
            return lambda: ask("POST", f"{_API}/create", {"name": f"model-{next(_numbers)}"})
        if verb == "get":
            name = f"model-{next(_numbers)}"
            ask("POST", f"{_API}/create", {"name": name})
            return lambda: ask("GET", f"{_API}/get?name={name}")
        while not self.filled:
            ask("POST", f"{_API}/create", {"name": f"model-{next(_numbers)}"})
            self.filled = len(ask("GET", f"{_API}/search?max_results={page}")["registered_models"]) == page
        return lambda: _full(ask("GET", f"{_API}/search?max_results={page}"), page)

    def download(self, files: Mapping[str, bytes]) -> Callable[[], object]:
        """Make one client: each call lists a folder of artifacts, where there are several, and fetches every file."""
        where = f"run-{next(_numbers)}"
        (self.folder / "artifacts" / where).mkdir(parents=True)
        for path, data in files.items():
            (self.folder / "artifacts" / where / path).write_bytes(data)
        ask = self._connection()

        def fetch() -> int:
            if len(files) > 1:
                ask("GET", f"{_FILES}?path={quote(where)}")
            return sum(len(ask("GET", f"{_FILES}/{where}/{path}", raw=True)) for path in files)

        return fetch

    def _connection(self) -> Callable[..., Any]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        headers = {"Content-Type": "application/json"}

        def ask(method: str, path: str, body: dict[str, Any] | None = None, *, raw: bool = False) -> Any:
            content = None if body is None else json.dumps(body)
            try:
                connection.request(method, path, content, headers)
                response = connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionError):  # it hangs up on whoever says nothing for 5 s
                connection.close()
                connection.request(method, path, content, headers)
                response = connection.getresponse()
            data = response.read()
            if response.status != http.client.OK:
                msg = f"MLflow answered {response.status} to {path}: {data[:300]!r}"
                raise RuntimeError(msg)
            return data if raw else json.loads(data)

        return ask


@contextmanager
def running(command: str, folder: Path, workers: int) -> Iterator[Rival]:
    """Run `mlflow server` with so many workers while the block runs."""
    folder.mkdir()
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    arguments = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
    arguments += ["--host", HOST, "--port", str(port), "--workers", str(workers)]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([command, "server", *arguments], cwd=folder, env=quiet, stdout=log, stderr=log)
    try:
        _wait(port, process, folder / "log")
        yield Rival(f"MLflow, {workers} worker{'s' * (workers > 1)}", port, folder)
    finally:
        process.terminate()
        process.wait(30)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            connection = http.client.HTTPConnection(HOST, port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > until:
            msg = f"MLflow did not start:\n{log.read_text()[-2000:]}"
            raise RuntimeError(msg)
        time.sleep(0.1)


def _full(answer: dict[str, Any], page: int) -> None:
    if len(answer["registered_models"]) != page:
        msg = f"MLflow listed {len(answer['registered_models'])} models, not {page}."
        raise RuntimeError(msg)
