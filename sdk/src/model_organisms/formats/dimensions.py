"""What a base model's config.json says of its linear layers: names and widths, for the architectures whose plan is known.

The plan is that of Llama and its kin in transformers 5. For another architecture only the number of layers is known, and what
could not be checked is for the caller to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from model_organisms.errors import ShapeMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

LLAMA_LIKE = frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo2", "smollm3"})
"""`model_type`s whose layers are `self_attn.{q,k,v,o}_proj` and `mlp.{gate,up,down}_proj`."""
FIELDS = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "tie_word_embeddings",
)
"""The fields of config.json that decide shapes; a provenance carries these."""
_DEFAULT_HEAD_DIM = {"gemma": 256, "gemma2": 256, "gemma3_text": 256, "qwen3": 128}
# Architectures that take the number of heads where the number of key-value heads is absent; others have numbers of their own.
_HEADS_ALIKE = frozenset({"llama", "olmo2"})
_MAX_LAYERS = 1024
_MAX_WIDTH = 1 << 24


@dataclass(frozen=True, slots=True)
class BaseDimensions:
    """The linear layers of one base model."""

    layers: int
    modules: Mapping[str, tuple[int, int]]
    """(in, out) features by full module name; empty where the architecture is not known."""

    @property
    def known(self) -> bool:
        """Whether shapes can be checked, and not only layer numbers."""
        return bool(self.modules)


def dimensions_of(base_config: Mapping[str, Any]) -> BaseDimensions:
    """Lay out the base model.

    Args:
        base_config: Its config.json, or the `FIELDS` of it; one with a `text_config` is read there.

    Raises:
        ShapeMismatch: A width is missing or cannot be one.
    """
    inner = base_config.get("text_config")
    config = inner if isinstance(inner, dict) else base_config
    layers = _whole(config, "num_hidden_layers", most=_MAX_LAYERS)
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in LLAMA_LIKE:
        return BaseDimensions(layers, MappingProxyType({}))
    hidden, inter = _whole(config, "hidden_size"), _whole(config, "intermediate_size")
    heads = _whole(config, "num_attention_heads")
    kv_heads = _whole(config, "num_key_value_heads", default=heads if model_type in _HEADS_ALIKE else None)
    head_dim = _whole(config, "head_dim", default=_DEFAULT_HEAD_DIM.get(model_type, hidden // heads))
    vocab = _whole(config, "vocab_size")
    shapes = {
        "self_attn.q_proj": (hidden, heads * head_dim),
        "self_attn.k_proj": (hidden, kv_heads * head_dim),
        "self_attn.v_proj": (hidden, kv_heads * head_dim),
        "self_attn.o_proj": (heads * head_dim, hidden),
        "mlp.gate_proj": (hidden, inter),
        "mlp.up_proj": (hidden, inter),
        "mlp.down_proj": (inter, hidden),
    }
    modules = {f"model.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in shapes.items()}
    modules |= {"model.embed_tokens": (vocab, hidden), "lm_head": (hidden, vocab)}
    return BaseDimensions(layers, MappingProxyType(modules))


def _whole(config: Mapping[str, Any], key: str, *, default: int | None = None, most: int = _MAX_WIDTH) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if type(value) is not int or not 0 < value <= most:
        msg = f"The base model's config.json has no usable '{key}'; give the config of the revision the adapter was trained on."
        raise ShapeMismatch(msg, key=key)
    return value
