"""M14: from starting `mo-registry serve` to its first answer to a client, and what `import model_organisms` costs."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from model_organisms.client.client import connect
from model_organisms.errors import RegistryUnreachable

from tests.bench import peers, place
from tests.bench.measure import OURS, Goal, Row, interleaved, seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BARE_SERVER, BARE_PYTHON, CONNECT = "bare gRPC server", "python -c pass", "with mo.connect, which brings gRPC"
_PATIENCE_S = 60.0


def cold(folder: Path, *, quick: bool) -> list[Row]:
    """M14."""
    rounds = 3 if quick else 7
    with place.running(folder) as running:
        config, entries = running.config, running.admin.audit.checkpoint().size
    starts = _Starts(config, folder)
    found = interleaved({OURS: starts, BARE_SERVER: lambda: _bare(folder)}, rounds)
    checks = {
        f"the first answer is right, {starts.right} of {starts.count}": starts.right == starts.count,
        "every start is in the ledger": starts.entries >= entries + starts.count,
        "fsck clean": running.fsck(),
    }
    served = Row("M14", "serve to its first answer", "s", found, (Goal(1.5, at_most=True),), checks)
    sides = {
        OURS: _python("import model_organisms as mo"),
        CONNECT: _python("import model_organisms as mo; mo.connect"),
        BARE_PYTHON: _python("pass"),
    }
    code = "import model_organisms as mo, sys; mo.connect; sys.exit('torch' in sys.modules)"
    light = subprocess.run([sys.executable, "-c", code], check=False).returncode
    imports = interleaved(sides, 5 if quick else 15)
    goals = (Goal(150, at_most=True),)
    return [served, Row("M14", "import model_organisms", "ms", imports, goals, {"torch stays out": light == 0})]


class _Starts:
    """Starts a registry, asks it who is asking, and stops it."""

    def __init__(self, config: place.Config, folder: Path) -> None:
        self._config, self._folder = config, folder
        self.count = self.right = self.entries = 0

    def __call__(self) -> float:
        begin = time.perf_counter()
        process = place.serve(self._config)
        try:
            port = int(self._config.listen.rpartition(":")[2])
            peers.reached(port, until=begin + _PATIENCE_S)
            with connect(self._folder / "admin.json") as client:
                answer = _first(client.users.me, until=begin + _PATIENCE_S)
                took = time.perf_counter() - begin
                self.count += 1
                self.right += answer.name == client.identity.user
                self.entries = client.audit.checkpoint().size
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)
        return took


def _first(ask: Callable[[], object], *, until: float) -> object:
    while True:
        try:
            return ask()
        except RegistryUnreachable:
            if time.perf_counter() > until:
                raise
            time.sleep(0.005)


def _bare(folder: Path) -> float:
    own = folder / f"peer{time.monotonic_ns()}"
    begin = time.perf_counter()
    with peers.running(own) as bare:
        bare.echo()()
        return time.perf_counter() - begin


def _python(code: str) -> Callable[[], float]:
    return lambda: seconds(lambda: subprocess.run([sys.executable, "-c", code], env=place.environment(), check=True)) * 1e3
