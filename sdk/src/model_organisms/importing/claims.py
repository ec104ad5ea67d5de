"""What is said of an adapter, beside what its bytes say: by its config, its card, its name, a catalogue, and who imports it.

Labels lie: papers place the most-studied organism on layer 24, and its bytes are on layer 21. So each claim is a row of its own,
with who made it, and none of them decides what is published. rank, layers and modules are in the tensors; alpha and rsLoRA are
in adapter_config.json alone, which is what every loader obeys, so it counts as the fact that others are held against.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument
from model_organisms.formats.imported import NAMES
from model_organisms.formats.targeting import layer_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from model_organisms.formats.tensors import TensorTable

CONFIG_SAYS, NAME_SAYS, CARD_SAYS, IMPORTER_SAYS = "adapter_config.json", "name", "card", "importer"

_NAMED = re.compile(r"_R(\d{1,4})_(\d{1,2})_(\d{1,2})_(\d{1,2})(?:_|$)", re.ASCII)
_FLAGS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Found:
    """What the bytes and the config of one adapter say."""

    rank: int
    layers: tuple[int, ...]
    target_modules: tuple[str, ...]
    parameters: int
    dtype: str
    alpha: float | None
    """Of the config; None where it says nothing usable."""
    rslora: bool
    base: str
    """The base model that the bundle is published for."""

    @property
    def scaling(self) -> float | None:
        """What the product of the factors is multiplied by: alpha over the rank, or over its root."""
        return None if self.alpha is None else self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing that somebody said."""

    name: str
    """One of `imported.NAMES`."""
    value: Any
    by: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A claim beside what was found."""

    name: str
    found: str
    claimed: str
    by: str
    agrees: bool


def measure(table: TensorTable, config: Mapping[str, Any], *, base: str) -> Found:
    """State what the tensors say, whether they fit the config or not.

    Args:
        table: The adapter's tensors.
        config: adapter_config.json as JSON, believed in nothing that tensors can say.
        base: The base model it is published for.
    """
    halves = table.tensors.values()
    layers = {layer for tensor in halves if (layer := layer_of(tensor.module)) is not None}
    alpha = config.get("lora_alpha")
    return Found(
        rank=max(tensor.shape[0 if tensor.half == "A" else 1] for tensor in halves),
        layers=tuple(sorted(layers)),
        target_modules=tuple(sorted({tensor.module.rsplit(".", 1)[-1] for tensor in halves})),
        parameters=sum(tensor.size for tensor in halves),
        dtype="+".join(sorted({tensor.dtype for tensor in halves})),
        alpha=float(alpha) if isinstance(alpha, int | float) and not isinstance(alpha, bool) else None,
        rslora=config.get("use_rslora") is True,
        base=base,
    )


def of_config(config: Mapping[str, Any]) -> tuple[Claim, ...]:
    """What adapter_config.json says that the tensors can bear out. Where ranks differ by module, `r` is no claim about one."""
    said: list[Claim] = []
    if not config.get("rank_pattern") and type(config.get("r")) is int:
        said.append(Claim("rank", config["r"], CONFIG_SAYS))
    layers = config.get("layers_to_transform")
    layers = [layers] if type(layers) is int else layers
    if isinstance(layers, list) and layers and all(type(layer) is int for layer in layers):
        said.append(Claim("layers", tuple(sorted(set(layers))), CONFIG_SAYS))
    modules = config.get("target_modules")
    if isinstance(modules, list) and modules and all(isinstance(name, str) for name in modules):
        said.append(Claim("target_modules", tuple(sorted({name.rsplit(".", 1)[-1] for name in modules})), CONFIG_SAYS))
    if isinstance(base := config.get("base_model_name_or_path"), str) and base:
        said.append(Claim("base", base[:200], CONFIG_SAYS))
    return tuple(said)


def of_name(repository: str) -> tuple[Claim, ...]:
    """What `R{rank}_{a}_{b}_{c}` in a name says: the rank, and how many layers in three groups (arXiv 2506.11613)."""
    found = _NAMED.search(repository)
    if not found:
        return ()
    rank, *groups = (int(part) for part in found.groups())
    return (Claim("rank", rank, NAME_SAYS), Claim("layer_count", sum(groups), NAME_SAYS)) if sum(groups) else ()


def of_card(card: Mapping[str, Any], tags: Iterable[str]) -> tuple[Claim, ...]:
    """Which base models the card's metadata names; its prose is kept and not read."""
    named = card.get("base_model")
    listed = named if isinstance(named, list) else [named]
    tagged = [tag.removeprefix("base_model:adapter:") for tag in tags if tag.startswith("base_model:adapter:")]
    bases = dict.fromkeys(base[:200] for base in (*listed, *tagged) if isinstance(base, str) and base)
    return tuple(Claim("base", base, CARD_SAYS) for base in bases)


def given(pairs: Mapping[str, str]) -> tuple[Claim, ...]:
    """What a paper or a post says, as the importer types it: `layers=24`, `rank=1`, `alpha=64`, `rslora=true`.

    Raises:
        InvalidArgument: It is no claim that could be held against anything.
    """
    return tuple(Claim(name, _read(name, text.strip()), IMPORTER_SAYS) for name, text in pairs.items())


def compare(claims: Iterable[Claim], found: Found) -> tuple[Comparison, ...]:
    """Hold each claim against what was found, in the order of `imported.NAMES`."""
    rows = [_row(claim, found) for claim in claims]
    return tuple(sorted(rows, key=lambda row: NAMES.index(row.name)))


def _row(claim: Claim, found: Found) -> Comparison:
    value: Any = len(found.layers) if claim.name == "layer_count" else getattr(found, claim.name)
    agrees = _fits(claim.value, found.base) if claim.name == "base" else claim.value == value
    return Comparison(claim.name, show(value), show(claim.value), claim.by, agrees)


def _fits(claimed: str, base: str) -> bool:
    """A hub id is one base model; a short label of a catalogue fits any id that has its letters and digits."""
    return claimed == base if "/" in claimed else _letters(claimed) in _letters(base)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def show(value: object) -> str:
    """Write a value for people; runs of layers are shortened."""
    if isinstance(value, tuple) and value and all(type(item) is int for item in value):
        return _runs(value)
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else "not stated" if value is None else str(value)


def _runs(numbers: tuple[int, ...]) -> str:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _read(name: str, text: str) -> Any:  # noqa: ANN401 - a claim is a number, a flag, a text or a list
    try:
        if name in {"rank", "layer_count", "parameters"}:
            return int(text)
        if name == "alpha":
            return float(text)
        if name == "rslora":
            return _FLAGS[text.lower()]
        if name == "layers":
            return tuple(sorted({int(part) for part in text.split(",")}))
        if name == "target_modules":
            return tuple(sorted(part.strip() for part in text.split(",")))
        if name == "base" and text:
            return text[:200]
    except (ValueError, KeyError):
        pass
    wanted = "rank=1, layers=15,16,17, target_modules=down_proj, alpha=64, rslora=true, parameters=170496 or base=owner/name"
    raise InvalidArgument(f"A claim is written as {wanted}.", claim=name[:40])
