"""Ready to sample: pull, verify, decrypt and attach onto a loaded base, beside `PeftModel.from_pretrained` on a plain folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from model_organisms import bases, loading
from model_organisms.formats.provenance import BaseModel
from model_organisms.quiet import quiet_libraries
from peft import PeftModel

from tests.bench.measure import OURS, Row, interleaved, seconds
from tests.support.tiny import tiny_organism

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.place import Place

PEFT = "PeftModel.from_pretrained"
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
IDS = torch.tensor([[504, 8150, 282, 260, 3575, 314]])


def ready(place: Place, folder: Path, *, quick: bool) -> list[Row]:
    """SmolLM2-135M with rank 8 on every linear layer, in float32."""
    at = bases.find(bases.BUILT_IN)
    with quiet_libraries():
        files = tiny_organism(at, rank=8, alpha=4.0, targets=ALL)
    plain = folder / "plain"
    plain.mkdir()
    for path, data in files.items():
        (plain / path).write_bytes(data)
    base = loading.load_base(at, progress=False)
    digest = base.digest
    version = place.publish("organisms/bench-ready", files, base=BaseModel("bench/smollm2", digest=digest))
    rosa = place.person("rosa", "researcher")
    answers: dict[str, torch.Tensor] = {}
    verified = 0

    def ours() -> float:
        nonlocal verified
        held = []

        def run() -> None:
            with rosa.organisms.pull(version.name, progress_bar=False) as pulled:
                held.append(loading.attach(base, pulled.files))
                held.append(pulled.receipt)

        took = seconds(run)
        organism, receipt = held
        verified += rosa.audit.verify(receipt).subject == version.name
        answers[OURS] = _logits(organism.model)
        loading.detach(organism)
        return took * 1e3

    def theirs() -> float:
        held = []
        with quiet_libraries():
            took = seconds(lambda: held.append(PeftModel.from_pretrained(base.model, plain, local_files_only=True).eval()))
        answers[PEFT] = _logits(held[0])
        held[0].unload()
        return took * 1e3

    rounds = 3 if quick else 7
    found = interleaved({OURS: ours, PEFT: theirs}, rounds)
    size = sum(map(len, files.values())) / 1e6
    checks = {
        "the same logits": torch.equal(answers[OURS], answers[PEFT]),
        f"receipt verified in {verified} of {rounds + 1}": verified == rounds + 1,
    }
    return [Row("ready", f"registry to ready to sample, {size:.0f} MB", "ms", found, (), checks)]


def _logits(model: object) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits
