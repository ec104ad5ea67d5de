"""Starts vLLM from an environment of its own and lets it decode the same batch; `tests/bench/vllm_worker.py` runs there."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import torch

from tests.bench.flock import written
from tests.bench.loops import Decoded
from tests.support.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.bench.flock import Flock

_ANSWERS = 3


@dataclass(slots=True)
class Vllm:
    """A running vLLM with its adapters."""

    process: subprocess.Popen[str]
    answers: IO[str]

    def run(self, prompts: Sequence[Sequence[int]], new: int) -> Decoded:
        """Decode one batch, row i by adapter i."""
        said = self._ask({"prompts": prompts, "new": new})
        return Decoded(said["tokens_per_s"], said["ids"], [], [len(row) for row in said["ids"]])

    def attach(self, folder: Path) -> float:
        """Load one more adapter and drop it again; seconds of the loading."""
        return float(self._ask({"attach": str(folder)})["seconds"])

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self._said()

    def _said(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            msg = f"vLLM ended with {self.process.wait()}; build/vllm.log says why."
            raise RuntimeError(msg)
        return json.loads(line)


@contextmanager
def running(
    python: str, flock: Flock, bundles: Sequence[dict[str, bytes]], folder: Path, *, rank: int, eager: bool = False
) -> Iterator[Vllm]:
    """Run it while the block runs.

    Args:
        python: The interpreter of its environment (docs/benchmarks.md says how to make one).
        flock: Whose base model it loads.
        bundles: The adapters, in order.
        folder: Where they are written for it.
        rank: The highest of them.
        eager: Compile nothing.
    """
    paths = [str(written(files, folder / f"adapter-{number}")) for number, files in enumerate(bundles)]
    told = {
        "model": str(flock.base.folder),
        "adapters": paths,
        "rank": max(8, rank),
        "dtype": flock.base.dtype,
        "eager": eager,
    }
    cores = sorted(os.sched_getaffinity(0))[: torch.get_num_threads()]
    environment = os.environ | {
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    environment.pop("PYTHONPATH", None)
    environment.pop("OMP_NUM_THREADS", None)
    reading, writing = os.pipe()
    # The shell puts the pipe at descriptor 3; whatever vLLM prints goes to a file.
    command = ["sh", "-c", f'exec "$@" {_ANSWERS}>&{writing}', "sh", python, str(ROOT / "tests/bench/vllm_worker.py")]
    with (ROOT / "build" / "vllm.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, env=environment, pass_fds=(writing,)
        )
    os.close(writing)
    with os.fdopen(reading) as answers:
        rival = Vllm(process, answers)
        try:
            process.stdin.write(json.dumps(told) + "\n")
            process.stdin.flush()
            rival._said()
            yield rival
        finally:
            process.stdin.close()
            process.terminate()
            process.wait(60)
