"""Reads adapter_config.json through an allow-list: what LoRA is, and nothing that imports or runs. Tensors: `tensors.py`.

PEFT 0.21 writes 41 fields; most are switches of methods that are not plain LoRA. A switch that is off is fine, one that is on is
refused by name, and so is a field that nobody has heard of: a field that is ignored here may be obeyed by another loader.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from model_organisms.errors import RefusedConfig
from model_organisms.formats import patterns, strict_json

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_CONFIG = 1 << 20
MAX_RANK = 1024
MAX_ALPHA = 1e6
MAX_LAYERS = 1024
MAX_KEYS = 2048
MAX_EXPRESSIONS = 16
"""Keys of a pattern map that are expressions rather than names."""
ALL_LINEAR = "all-linear"

_NAME = re.compile(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*", re.ASCII)
_SHORT = 512

_RUNS = "it makes a loader import or run code"
_NOT_PLAIN = "it is not plain LoRA, whose effect is the product of two matrices; train without it"
_OFF: dict[str, tuple[tuple[Any, ...], str]] = {
    "auto_mapping": ((None,), _RUNS),
    "megatron_config": ((None,), _RUNS),
    "megatron_core": ((None, "megatron.core"), _RUNS),
    "trust_remote_code": ((None, False), _RUNS),
    "runtime_config": ((None, {}, {"ephemeral_gpu_offload": False}), _RUNS),
    "bias": (("none",), "trained biases change the base model; train with bias='none'"),
    "modules_to_save": ((None, []), "whole layers are not an adapter; train without it"),
    "trainable_token_indices": ((None, [], {}), "trained tokens are not an adapter; train without it"),
    "fan_in_fan_out": ((False, None), "transposed layers (GPT-2) are not taken"),
    "exclude_modules": ((None, []), "name what is adapted in target_modules instead"),
    "layer_replication": ((None, []), "it changes the base model's depth"),
    "init_lora_weights": (
        (True, False, None, "gaussian", "orthogonal"),
        "this way of starting changes the base model; convert with PEFT's path_initial_model_for_weight_conversion",
    ),
    "use_dora": (
        (False, None),
        "DoRA also rescales the base model, so norms, marks and shared bases do not hold; train without it",
    ),
    "alora_invocation_tokens": ((None, []), _NOT_PLAIN),
    "arrow_config": ((None,), _NOT_PLAIN),
    "corda_config": ((None,), _NOT_PLAIN),
    "ensure_weight_tying": ((False, None), _NOT_PLAIN),
    "eva_config": ((None,), _NOT_PLAIN),
    "kasa_config": ((None,), _NOT_PLAIN),
    "loftq_config": ((None, {}), _NOT_PLAIN),
    "lora_bias": ((False, None), _NOT_PLAIN),
    "lora_ga_config": ((None,), _NOT_PLAIN),
    "monteclora_config": ((None,), _NOT_PLAIN),
    "target_parameters": ((None, []), _NOT_PLAIN),
    "use_bdlora": ((None, False), _NOT_PLAIN),
    "use_qalora": ((False, None), _NOT_PLAIN),
    "velora_config": ((None,), _NOT_PLAIN),
}
"""Fields that must be at one of these values, and why."""
_TOLD = {
    "base_model_name_or_path": (str, type(None)),
    "inference_mode": (bool, type(None)),
    "peft_version": (str, type(None)),
    "qalora_group_size": (int, type(None)),
    "revision": (str, type(None)),
}
"""Fields that say something and do nothing here, with their types."""
_READ = frozenset(
    {
        "peft_type",
        "task_type",
        "r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
    }
)


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What adapter_config.json says of a plain LoRA adapter; `targeting.py` reads it as PEFT does."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    """Names or ends of names of modules; empty where `target_pattern` stands instead."""
    target_pattern: str
    """An expression for whole names, or `all-linear`; empty where names stand instead."""
    layers: tuple[int, ...] | None
    """layers_to_transform; None means all."""
    layers_pattern: tuple[str, ...]
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    dropout: float
    """Kept for the record; 0 when loaded."""
    task_type: str | None
    base_model: str
    """base_model_name_or_path, as written: a label, not a fact."""
    peft_version: str

    def scaling(self, alpha: float, rank: int) -> float:
        """Give the factor of B @ A: alpha/r, or alpha/sqrt(r) under rsLoRA."""
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank


def read_config(data: bytes | memoryview, *, path: str = "adapter_config.json") -> AdapterConfig:
    """Read the config of one adapter.

    Args:
        data: The file.
        path: Its path in the bundle, for messages.

    Raises:
        RefusedConfig: It is not the config of a plain LoRA adapter; the message names the field.
    """
    fields = strict_json.parse(data, what=f"'{path}'", limit=MAX_CONFIG, error=RefusedConfig)
    if not isinstance(fields, dict):
        raise RefusedConfig(f"'{path}' is not a JSON object; save the adapter with PEFT.", path=path)
    reader = _Reader(fields, path)
    reader.check_switches()
    targets, pattern = reader.targets()
    layers = reader.layers()
    if pattern and (layers is not None or fields.get("layers_pattern")):
        reader.refuse("layers_to_transform", "it cannot be combined with a pattern in target_modules; name the modules instead")
    return AdapterConfig(
        rank=reader.rank("r", fields.get("r")),
        alpha=reader.alpha("lora_alpha", fields.get("lora_alpha")),
        target_modules=targets,
        target_pattern=pattern,
        layers=layers,
        layers_pattern=reader.layers_pattern(),
        rank_pattern=MappingProxyType({key: reader.rank(key, rank) for key, rank in reader.pattern_map("rank_pattern").items()}),
        alpha_pattern=MappingProxyType(
            {key: reader.alpha(key, alpha) for key, alpha in reader.pattern_map("alpha_pattern").items()}
        ),
        rslora=reader.flag("use_rslora"),
        dropout=reader.dropout(),
        task_type=fields.get("task_type"),
        base_model=fields.get("base_model_name_or_path") or "",
        peft_version=fields.get("peft_version") or "",
    )


class _Reader:
    """One field a method; each raises with the field's name."""

    def __init__(self, fields: dict[str, Any], path: str) -> None:
        self.fields = fields
        self.path = path

    def check_switches(self) -> None:
        """Check the fields that may only be off, those that only tell, and that there are no others."""
        if self.fields.get("peft_type") != "LORA":
            self.refuse("peft_type", "only LORA adapters are taken")
        if self.fields.get("task_type") not in (None, "CAUSAL_LM"):
            self.refuse("task_type", "only CAUSAL_LM is taken")
        for key, value in self.fields.items():
            if key in _OFF:
                allowed, why = _OFF[key]
                if not any(type(value) is type(choice) and value == choice for choice in allowed):
                    self.refuse(key, why)
            elif key in _TOLD:
                self.check_told(key, value)
            elif key not in _READ:
                self.refuse(key, "it is not a field of a LoRA config that is known here; remove it")

    def check_told(self, key: str, value: object) -> None:
        """Check a field that nothing here obeys: people read it, and other loaders may open what it names."""
        if type(value) not in _TOLD[key]:
            self.refuse(key, "it has a value of the wrong type")
        if isinstance(value, str) and not (len(value) <= _SHORT and value.isprintable()):
            self.refuse(key, f"it must be one line of at most {_SHORT} printable characters")
        if key == "base_model_name_or_path" and ".." in re.split(r"[/\\]", str(value)):
            self.refuse(key, "it climbs out of a folder; write the base model's hub id")

    def targets(self) -> tuple[tuple[str, ...], str]:
        """Read target_modules: names, or one pattern."""
        value = self.fields.get("target_modules")
        if isinstance(value, str) and value:
            if value != ALL_LINEAR:
                patterns.whole(value)
            return (), value
        if not isinstance(value, list) or not 0 < len(value) <= MAX_KEYS or not all(self._is_name(name) for name in value):
            self.refuse("target_modules", "it must be a list of module names, or one pattern")
        return tuple(sorted(set(value))), ""

    def layers(self) -> tuple[int, ...] | None:
        """Read layers_to_transform; PEFT reads an empty list as no limit."""
        value = self.fields.get("layers_to_transform")
        if value is None or value == []:
            return None
        chosen = value if isinstance(value, list) else [value]
        if not all(type(layer) is int and 0 <= layer < MAX_LAYERS for layer in chosen):
            self.refuse("layers_to_transform", f"it must be layer numbers from 0 to {MAX_LAYERS - 1}")
        return tuple(sorted(set(chosen)))

    def layers_pattern(self) -> tuple[str, ...]:
        """Read layers_pattern: names of the list of layers, such as `layers`."""
        value = self.fields.get("layers_pattern")
        names = [] if value in (None, "") else value if isinstance(value, list) else [value]
        if not all(self._is_name(name) and "." not in name for name in names) or len(names) > MAX_EXPRESSIONS:
            self.refuse("layers_pattern", "it must be names such as 'layers'")
        if names and self.layers() is None:
            self.refuse("layers_pattern", "it says nothing without layers_to_transform; remove it")
        return tuple(names)

    def pattern_map(self, key: str) -> dict[str, Any]:
        """Read rank_pattern or alpha_pattern; its keys are names or, a few, expressions."""
        value = self.fields.get(key)
        value = {} if value is None else value
        if not isinstance(value, dict) or len(value) > MAX_KEYS:
            self.refuse(key, f"it must be a map of at most {MAX_KEYS} module names")
        expressions = [name for name in value if not self._is_name(name)]
        if len(expressions) > MAX_EXPRESSIONS:
            self.refuse(key, f"more than {MAX_EXPRESSIONS} of its keys are expressions; write module names")
        for name in expressions:
            patterns.suffix(name)
        return value

    def rank(self, key: str, value: object) -> int:
        """Read a rank."""
        if type(value) is not int or not 0 < value <= MAX_RANK:
            self.refuse(key, f"a rank is a whole number from 1 to {MAX_RANK}")
        return value

    def alpha(self, key: str, value: object) -> float:
        """Read an alpha."""
        if not strict_json.safe_number(value) or not 0 < float(value) <= MAX_ALPHA:  # type: ignore[arg-type]  # safe_number says so
            self.refuse(key, f"an alpha is a number above 0 and at most {MAX_ALPHA:,.0f}")
        return float(value)  # type: ignore[arg-type]  # as above

    def dropout(self) -> float:
        """Read lora_dropout."""
        value = self.fields.get("lora_dropout", 0.0)
        if not strict_json.safe_number(value) or not 0 <= value < 1:
            self.refuse("lora_dropout", "a dropout is a number from 0 to below 1")
        return float(value)

    def flag(self, key: str) -> bool:
        """Read a switch that may be on."""
        value = self.fields.get(key, False)
        if not isinstance(value, bool):
            self.refuse(key, "it must be true or false")
        return value

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raise, naming the field."""
        shown = key[:80].encode("unicode_escape").decode("ascii")
        raise RefusedConfig(f"'{self.path}' is refused for its field '{shown}': {why}.", path=self.path, key=shown)

    @staticmethod
    def _is_name(name: object) -> bool:
        return isinstance(name, str) and len(name) <= patterns.MAX_LENGTH and _NAME.fullmatch(name) is not None
