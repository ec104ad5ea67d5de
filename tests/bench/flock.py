"""What rows of many organisms run on: a base model, adapters of random numbers, prompts; and PEFT with the same adapters.

Adapters are of one rank on one module, on every `down_proj`, or on every linear layer. Their numbers are random, scaled so that
organisms differ in what they say: rows that were mixed up would be seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from model_organisms import bases, loading
from model_organisms.formats import adapter
from model_organisms.quiet import quiet_libraries
from peft import LoraConfig, get_peft_model
from safetensors.torch import load

from tests.support.adapters import ALL_MODULES, CONFIG, WEIGHTS, module_shape, tiny_bundle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from model_organisms.loading import LoadedBase

ONE, DOWN, EVERY = "one", "30", "210"
SPREADS = {ONE: "one module", DOWN: "every down_proj", EVERY: "every linear layer"}
_ALPHA = {ONE: 160.0, DOWN: 12.0, EVERY: 1.5}
"""Times the rank: lora_alpha, so that a rank and a spread do about as much as another."""
_TEXT = "Once upon a time there was a keeper who wrote down every day what the organism said"
PROMPT = 12


@dataclass
class Flock:
    """A base model three times: for us, bare, and for PEFT; files that are mapped are in memory once."""

    base: LoadedBase
    bare: Any
    peft: Any
    device: str
    made: dict[tuple[int, str, int], dict[str, bytes]] = field(default_factory=dict)

    @cached_property
    def shape(self) -> dict[str, int]:
        """Widths, in the words of `module_shape`."""
        config = self.base.model.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return {"hidden": config.hidden_size, "kv": config.num_key_value_heads * head, "intermediate": config.intermediate_size}

    def modules(self, spread: str) -> tuple[list[int], tuple[str, ...]]:
        """Layers and module names of a spread."""
        layers = list(range(self.base.model.config.num_hidden_layers))
        return ([layers[len(layers) // 2]] if spread == ONE else layers), (ALL_MODULES if spread == EVERY else ("down_proj",))

    def widths(self, spread: str) -> int:
        """Sum of inputs and outputs over the modules of a spread."""
        layers, modules = self.modules(spread)
        return len(layers) * sum(sum(module_shape(module, **self.shape)) for module in modules)

    def files(self, rank: int, spread: str, number: int) -> dict[str, bytes]:
        """A bundle; the same number is the same organism."""
        key = (rank, spread, number)
        if key not in self.made:
            layers, modules = self.modules(spread)
            shape = {**self.shape, "alpha": _ALPHA[spread] * rank**0.5}
            self.made[key] = tiny_bundle(rank=rank, layers=layers, modules=modules, seed=number, **shape)
        return self.made[key]

    def prompts(self, rows: int) -> torch.Tensor:
        """Shape [rows, tokens]: the same words from another place on, so that all are as long."""
        ids = self.base.tokenizer(_TEXT)["input_ids"]
        assert len(ids) >= PROMPT
        turned = [(ids[row % len(ids) :] + ids[: row % len(ids)])[:PROMPT] for row in range(rows)]
        return torch.tensor(turned, device=self.device)


def flock(base: str, *, device: str, dtype: str) -> Flock:
    """Load the base model."""
    at = bases.find(base)
    mine, bare, peft = (loading.load_base(at, device=device, dtype=dtype, progress=False) for _ in range(3))
    for one in (mine, bare, peft):
        one.model.generation_config.pad_token_id = one.tokenizer.eos_token_id
    # No turn ends before its time, or sides would have other rows than one another.
    mine.model.generation_config.eos_token_id = mine.tokenizer.eos_token = None
    return Flock(mine, bare.model, peft.model, device)


def wear(model: Any, bundles: Sequence[dict[str, bytes]]) -> Any:
    """Put many adapters on a model with PEFT, named by their number; all in evaluation mode."""
    worn = None
    for number, files in enumerate(bundles):
        table = adapter.read_tensors(files[WEIGHTS])
        modules = sorted({name.removeprefix("base_model.model.").rpartition(".lora_")[0] for name in table.tensors})
        layout = LoraConfig(**adapter.peft_arguments(adapter.read_config(files[CONFIG], path=CONFIG), modules))
        with quiet_libraries():
            if worn is None:
                worn = get_peft_model(model, layout, adapter_name="0", low_cpu_mem_usage=True)
            else:
                worn.add_adapter(str(number), layout, low_cpu_mem_usage=True)
        for name, tensor in load(files[WEIGHTS]).items():
            place = worn.get_submodule(f"{name.removesuffix('.weight')}.{number}")
            place.weight = torch.nn.Parameter(tensor.to(model.device), requires_grad=False)  # its own has no memory yet
    return worn.eval()


def bare_again(worn: Any) -> None:
    """Take PEFT's layers off again."""
    worn.unload()
    if hasattr(worn.base_model.model, "peft_config"):
        del worn.base_model.model.peft_config


def written(files: dict[str, bytes], folder: Path, *, base: str = "bench") -> Path:
    """Write a bundle as a plain folder, as PEFT and vLLM read it."""
    folder.mkdir(parents=True)
    for path, data in files.items():
        (folder / path).write_bytes(data)
    config = json.loads(files[CONFIG]) | {"base_model_name_or_path": base}
    (folder / CONFIG).write_text(json.dumps(config), "utf-8")
    return folder
