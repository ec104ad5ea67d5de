"""A trained PEFT model as the files of a bundle, in memory: the printer to what `formats/adapter.py` reads, `loading` loads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidBundle
from model_organisms.formats.adapter import read_config
from model_organisms.formats.paths import CONFIG, WEIGHTS

if TYPE_CHECKING:
    from model_organisms.formats.provenance import BaseModel

_ALWAYS = ("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "peft_version", "bias")


def adapter_files(model: Any, base: BaseModel) -> dict[str, bytes]:  # noqa: ANN401 - peft has no types here
    """Print every active adapter of a model.

    Args:
        model: A `peft.PeftModel`.
        base: The base model, which the config names instead of a folder on this machine.

    Returns:
        `adapter_model.safetensors` and `adapter_config.json`, at the root for one adapter, in `0/`, `1/`, ... for several.

    Raises:
        InvalidBundle: It is not a PEFT model.
        RefusedConfig: It is not plain LoRA; the message names the field.
    """
    if not hasattr(model, "peft_config") or not hasattr(model, "active_adapters"):
        raise InvalidBundle("This is not a PEFT model; train through `peft.get_peft_model`, and give that model.")
    names = list(model.active_adapters)
    files: dict[str, bytes] = {}
    for number, name in enumerate(names):
        folder = f"{number}/" if len(names) > 1 else ""
        files[folder + CONFIG] = _config(model.peft_config[name], base)
        files[folder + WEIGHTS] = _weights(model, name)
    return files


def _weights(model: Any, name: str) -> bytes:  # noqa: ANN401 - as above
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    # With "auto", PEFT would ask a hub whether the base's vocabulary has grown.
    state = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
    data: bytes = save(plain, metadata={"format": "pt"})
    return data


def _config(config: Any, base: BaseModel) -> bytes:  # noqa: ANN401 - as above
    """Print what the config says and no more: fields at PEFT's defaults say nothing, and others are for the reader to judge."""
    from peft import LoraConfig

    raw, plain = config.to_dict(), LoraConfig().to_dict()
    said = {key: value for key, value in raw.items() if value != plain.get(key) and value not in (None, [], {})}
    kept = {key: raw[key] for key in _ALWAYS} | said
    kept = {key: sorted(value) if isinstance(value, set) else value for key, value in kept.items()}
    kept |= {"base_model_name_or_path": base.id, "revision": base.revision or None, "inference_mode": True}
    kept["peft_type"] = str(getattr(raw["peft_type"], "value", raw["peft_type"]))
    printed = json.dumps(kept, indent=2, sort_keys=True, default=str).encode()
    read_config(printed)  # refuses here what the registry would refuse later
    return printed
