"""M4 and M9: from a sealed registry to text: thirty-two checkpoints in one batch, and a cold organism's first token.

The peers read plain folders. For M9 the folder is downloaded first, from MLflow where there is one, else from a bare HTTP server.
"""

from __future__ import annotations

import http.server
import threading
import time
import urllib.request
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from model_organisms.formats.provenance import BaseModel
from model_organisms.quiet import quiet_libraries
from model_organisms.records import SamplingParameters
from model_organisms.sampling import Engine
from peft import PeftModel
from peft.utils.hotswap import hotswap_adapter

from tests.bench import loops
from tests.bench.flock import EVERY, bare_again, written
from tests.bench.measure import OURS, Goal, Row, interleaved, seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.bench.flock import Flock
    from tests.bench.place import Place
    from tests.bench.rival import Rival

LOAD, SWAP = "PEFT, loaded one by one", "PEFT, hotswapped one by one"
RANK, NEW = 8, 24


def swept(flock: Flock, place: Place, folder: Path, *, quick: bool, whole: bool) -> list[Row]:
    """M4: pull every checkpoint, and draw from all of them at once."""
    count = 8 if quick else 32
    bundles = [flock.files(RANK, EVERY, 2000 + number) for number in range(count)]
    stated = BaseModel("bench/sweep", digest=flock.base.digest)
    versions = [place.publish(f"organisms/sweep-{number}", files, base=stated) for number, files in enumerate(bundles)]
    folders = [written(files, folder / f"checkpoint-{number}") for number, files in enumerate(bundles)]
    rosa, prompts = place.person("rosa", "researcher"), flock.prompts(count)
    said: dict[str, list[str]] = {}
    decode = partial(flock.base.tokenizer.decode, skip_special_tokens=True)

    def ours() -> float:
        runs = Engine(flock.base, rows=count)
        held: list[Any] = []

        def run() -> None:
            held.extend(rosa.organisms.pull(version.name, progress_bar=False) for version in versions)
            organisms = [runs.add(pulled.files) for pulled in held]
            said[OURS] = loops.engine(runs, organisms, prompts, NEW).texts

        took = seconds(run)
        runs.mixer.close()
        runs.bank.close()
        for pulled in held:
            pulled.close()
        return took

    def loaded() -> float:
        begin, texts = time.perf_counter(), []
        for number, at in enumerate(folders):
            with quiet_libraries():
                worn = PeftModel.from_pretrained(flock.peft, at, local_files_only=True).eval()
            texts.append(decode(loops.generated(worn, prompts[number : number + 1], NEW).ids[0]))
            bare_again(worn)
        said[LOAD] = texts
        return time.perf_counter() - begin

    def swapped() -> float:
        with quiet_libraries():
            worn = PeftModel.from_pretrained(flock.peft, folders[0], local_files_only=True).eval()
        begin, texts = time.perf_counter(), []
        for number, at in enumerate(folders):
            with quiet_libraries():
                hotswap_adapter(worn, str(at), adapter_name="default", torch_device=flock.device)
            texts.append(decode(loops.generated(worn, prompts[number : number + 1], NEW).ids[0]))
        took = time.perf_counter() - begin
        bare_again(worn)
        said[SWAP] = texts
        return took

    found = interleaved({OURS: ours, LOAD: loaded, SWAP: swapped}, 3 if whole else 1, warm=1 if whole else 0)
    same = sum(mine == theirs for mine, theirs in zip(said[OURS], said[LOAD], strict=True))
    # A tie may send a text another way (`agreement.py` follows those); more than one in eight is no tie.
    checks = {f"{same} of {count} texts are PEFT's": same >= count - count // 8, "they differ": len(set(said[OURS])) > count // 2}
    what = f"{count} checkpoints x {NEW} tokens, pulled sealed, {_size(bundles[0]):.0f} MB each"
    return [Row("M4", what, "s", found, (Goal(4.5, at_most=True), Goal(0.1, LOAD, at_most=True)), checks)]


def cold(flock: Flock, place: Place, folder: Path, *, quick: bool, rival: Rival | None) -> list[Row]:
    """M9: an organism that is nowhere in memory, to its first token."""
    files = flock.files(RANK, EVERY, 3000)
    version = place.publish("organisms/bench-cold", files, base=BaseModel("bench/sweep", digest=flock.base.digest))
    rosa, prompt = place.person("rosa", "researcher"), flock.prompts(1)
    runs = Engine(flock.base, rows=1)
    first: dict[str, str] = {}
    asked = SamplingParameters(max_tokens=1, temperature=0)

    def ours() -> float:
        begin = time.perf_counter()
        with rosa.organisms.pull(version.name, progress_bar=False) as pulled:
            organism = runs.add(pulled.files)
            first[OURS] = "".join(piece.text for piece in runs.generate(organism, prompt[0].tolist(), asked))
            took = time.perf_counter() - begin
            runs.remove(organism)
        return took * 1e3

    with _served(files, folder / "served") if rival is None else _download(rival, files) as (name, fetch):
        peer = f"{name} download + from_pretrained + prefill"

        def theirs() -> float:
            begin = time.perf_counter()
            at = folder / f"cold-{begin}"
            fetch(at)
            with quiet_libraries():
                worn = PeftModel.from_pretrained(flock.peft, at, local_files_only=True).eval()
            with torch.inference_mode():
                token = int(worn(input_ids=prompt).logits[0, -1].argmax())
            took = time.perf_counter() - begin
            first[peer] = flock.base.tokenizer.decode([token])
            bare_again(worn)
            return took * 1e3

        def prefill() -> float:
            with torch.inference_mode():
                return seconds(lambda: flock.bare(input_ids=prompt).logits[0, -1].argmax().item()) * 1e3

        found = interleaved({OURS: ours, peer: theirs, "prefill alone": prefill}, 3 if quick else 9)
    runs.mixer.close()
    checks = {"the same first token": first[OURS] == first[peer]}
    return [
        Row("M9", f"cold organism to first token, {_size(files):.0f} MB", "ms", found, (Goal(0.1, peer, at_most=True),), checks)
    ]


@contextmanager
def _served(files: Mapping[str, bytes], folder: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The barest server of files there is."""
    written(dict(files), folder)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def fetch(at: Path) -> None:
            at.mkdir()
            for path in files:
                with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{path}") as got:
                    (at / path).write_bytes(got.read())

        yield "HTTP", fetch
        server.shutdown()


@contextmanager
def _download(rival: Rival, files: Mapping[str, bytes]) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """MLflow's artifacts, fetched into a folder."""
    fetched = rival.download(files)

    def fetch(at: Path) -> None:
        fetched()
        written(dict(files), at)

    yield "MLflow", fetch


def _size(files: Mapping[str, bytes]) -> float:
    return sum(map(len, files.values())) / 1e6
