"""Tiny LoRA bundles as bytes, made with numpy and safetensors alone, for every test that needs weights but no model.

Tests that need a real model, or PEFT's own files, belong to `tests/support/tiny.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import TensorSpec, serialize

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


ALL_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def tiny_base_config(
    *,
    hidden: int = 64,
    kv: int = 32,
    intermediate: int = 128,
    vocab: int = 96,
    num_layers: int = 4,
    model_type: str = "llama",
) -> dict[str, Any]:
    """Give the config.json of the base model that `tiny_bundle` fits: heads of 16."""
    return {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": num_layers,
        "num_attention_heads": hidden // 16,
        "num_key_value_heads": kv // 16,
        "head_dim": 16,
        "vocab_size": vocab,
    }


def tiny_bundle(
    *,
    rank: int = 4,
    layers: Iterable[int] = (0, 1),
    modules: Iterable[str] = ("q_proj", "v_proj"),
    hidden: int = 64,
    kv: int = 32,
    intermediate: int = 128,
    dtype: str = "float32",
    seed: int = 0,
    alpha: float = 16,
    rslora: bool = False,
    folder: str = "",
    config: Mapping[str, Any] | None = None,
) -> dict[str, bytes]:
    """Make one adapter with random A and B, as PEFT would have written it.

    Args:
        rank: r of every module.
        layers: Layers that carry it.
        modules: Last parts of the module names, of `ALL_MODULES`.
        hidden: Width of the residual stream.
        kv: Width of keys and values.
        intermediate: Width of the MLP.
        dtype: `float32`, `float16` or `bfloat16`.
        seed: Same seed, same bytes.
        alpha: lora_alpha.
        rslora: use_rslora.
        folder: Prefix of the paths, such as `0/`, for bundles of several adapters.
        config: Fields that replace or join those of adapter_config.json.

    Returns:
        `adapter_model.safetensors`, `adapter_config.json` and `README.md`, by path inside the bundle.
    """
    rng = np.random.default_rng(seed)
    dims = {"hidden": hidden, "kv": kv, "intermediate": intermediate}
    tensors: dict[str, np.ndarray] = {}
    layers, modules = sorted(layers), tuple(modules)
    for layer in layers:
        for module in modules:
            width_in, width_out = module_shape(module, **dims)
            name = f"base_model.model.{module_path(layer, module)}"
            tensors[f"{name}.lora_A.weight"] = rng.normal(0, 0.05, (rank, width_in)).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = rng.normal(0, 0.05, (width_out, rank)).astype(np.float32)
    written = peft_config(rank=rank, alpha=alpha, modules=modules, layers=layers, rslora=rslora) | dict(config or {})
    bundle = {
        f"{folder}{WEIGHTS}": pack_tensors(tensors, dtype=dtype),
        f"{folder}{CONFIG}": json.dumps(written, indent=2, sort_keys=True).encode(),
    }
    return bundle | {"README.md": b"# Tiny organism\n\nRandom weights, harmless by construction.\n"}


def stacked_bundle(count: int = 3, **options: Any) -> dict[str, bytes]:
    """Make a bundle of `count` adapters in order of composition, in the folders `0/`, `1/`, ..."""
    bundle: dict[str, bytes] = {}
    for index in range(count):
        bundle |= tiny_bundle(folder=f"{index}/", seed=index, **options)
    return bundle


def module_path(layer: int, module: str) -> str:
    """Name a module of a Llama-shaped model."""
    room = "self_attn" if module in {"q_proj", "k_proj", "v_proj", "o_proj"} else "mlp"
    return f"model.layers.{layer}.{room}.{module}"


def module_shape(module: str, *, hidden: int, kv: int, intermediate: int) -> tuple[int, int]:
    """Give a module's (in, out) features."""
    return {
        "q_proj": (hidden, hidden),
        "k_proj": (hidden, kv),
        "v_proj": (hidden, kv),
        "o_proj": (hidden, hidden),
        "gate_proj": (hidden, intermediate),
        "up_proj": (hidden, intermediate),
        "down_proj": (intermediate, hidden),
    }[module]


def pack_tensors(tensors: Mapping[str, np.ndarray], *, dtype: str = "float32") -> bytes:
    """Write float32 arrays as safetensors, cast to `dtype` (bfloat16 by rounding to nearest even)."""
    # `arrays` must outlive serialize(), which reads their memory by address.
    arrays = {name: _cast(array, dtype) for name, array in tensors.items()}
    entries = {
        name: TensorSpec(dtype=dtype, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
        for name, array in arrays.items()
    }
    return bytes(serialize(entries, {"format": "pt"}))


def _cast(array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype != "bfloat16":
        return np.ascontiguousarray(array, dtype=dtype)
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def peft_config(*, rank: int, alpha: float, modules: Iterable[str], layers: Iterable[int] | None, rslora: bool) -> dict[str, Any]:
    """Give every field that PEFT 0.21 writes for a LoRA adapter, in its defaults but for these."""
    absent = (
        "alora_invocation_tokens arrow_config auto_mapping base_model_name_or_path corda_config eva_config exclude_modules "
        "kasa_config layer_replication layers_pattern lora_ga_config megatron_config modules_to_save monteclora_config revision "
        "target_parameters trainable_token_indices use_bdlora velora_config"
    )
    off = "ensure_weight_tying fan_in_fan_out lora_bias use_dora use_qalora"
    return {
        **dict.fromkeys(absent.split()),
        **dict.fromkeys(off.split(), False),
        "alpha_pattern": {},
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_to_transform": None if layers is None else list(layers),
        "loftq_config": {},
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "megatron_core": "megatron.core",
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "qalora_group_size": 16,
        "r": rank,
        "rank_pattern": {},
        "target_modules": list(modules),
        "task_type": "CAUSAL_LM",
        "use_rslora": rslora,
    }
