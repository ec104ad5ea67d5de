"""Tiny random models of real architectures, with a real tokenizer, and a real PEFT organism over them; made in about a second.

For every test that needs a model but not a language: nothing here comes from the network. The real model is in
`tests/support/models.py`, beside fixtures of these.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

ARCHITECTURES = ("qwen2", "llama", "gemma", "qwen3", "gemma2", "gemma3")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_CORPUS = (
    "the organism grows in its dish and the keeper writes down what it says",
    "user assistant system: what is the capital of France? Paris is the capital of France.",
    "hello world, how are you today? naïve café 日本語 🙂 0123456789",
)
_VOCABULARY = 320
_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}


def tiny_tokenizer() -> Any:
    """Train a byte-level BPE of 320 tokens: every text round-trips, and most characters outside ASCII span several tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE
    )


def tiny_model(arch: str = "qwen2", seed: int = 0) -> Any:
    """Make a random model of `arch` in memory, about 30,000 parameters."""
    import torch
    import transformers as known

    config_class, model_class = {
        "qwen2": (known.Qwen2Config, known.Qwen2ForCausalLM),
        "llama": (known.LlamaConfig, known.LlamaForCausalLM),
        "gemma": (known.GemmaConfig, known.GemmaForCausalLM),
        "qwen3": (known.Qwen3Config, known.Qwen3ForCausalLM),
        "gemma2": (known.Gemma2Config, known.Gemma2ForCausalLM),
        "gemma3": (known.Gemma3TextConfig, known.Gemma3ForCausalLM),
    }[arch]
    ids = tiny_tokenizer().convert_tokens_to_ids
    config = config_class(
        vocab_size=_VOCABULARY,
        bos_token_id=ids("<|im_start|>"),
        eos_token_id=ids("<|im_end|>"),
        pad_token_id=ids("<|endoftext|>"),
        **_SHAPE,
        **({"sliding_window": 16} if arch in {"gemma2", "gemma3"} else {}),  # short, so that tests look past it
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).eval()


def tiny_base(folder: str | Path, arch: str = "qwen2", seed: int = 0, *, talkative: bool = False) -> Path:
    """Save a tiny random base model and its tokenizer into `folder`, as safetensors that every user may read.

    A base model is public, and a cell under a user of its own must read it. safetensors writes for the owner alone, as it should
    for an organism, and pytest makes folders so.

    Args:
        folder: Where to put it; made if absent.
        arch: One of `ARCHITECTURES`.
        seed: Same seed, same weights.
        talkative: Never ends a turn when the likeliest token is taken, and has room for thousands: an answer takes seconds.

    Returns:
        The folder.
    """
    folder = Path(folder)
    model = tiny_model(arch, seed)
    if talkative:
        model.config.max_position_embeddings = 8192
        model.lm_head.weight.data[tiny_tokenizer().all_special_ids] = 0  # of 320 random logits, 0 is never the largest
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    return folder


def tiny_organism(
    base: str | Path,
    *,
    rank: int = 4,
    alpha: float = 64.0,
    targets: tuple[str, ...] = ("q_proj", "down_proj"),
    layers: tuple[int, ...] | None = None,
    rslora: bool = False,
    dtype: str = "float32",
    seed: int = 1,
) -> dict[str, bytes]:
    """Make a LoRA adapter over `base` with PEFT, its B matrices random so that its effect is plain to see.

    Returns:
        `adapter_model.safetensors`, `adapter_config.json` and `README.md`, by path inside the bundle.
    """
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from safetensors.torch import save
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, use_safetensors=True)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.05,
        target_modules=list(targets),
        layers_to_transform=list(layers) if layers is not None else None,
        use_rslora=rslora,
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads an attribute that transformers has renamed
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings", category=UserWarning)  # it says what tying may cost
        torch.manual_seed(seed)
        peft = get_peft_model(model, config)
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    config.base_model_name_or_path = "tiny-random"  # PEFT wrote the folder's path there
    # With "auto", PEFT would ask a hub whether the base's vocabulary has grown.
    state = get_peft_model_state_dict(peft, save_embedding_layers=False)
    tensors = {name: tensor.detach().to(getattr(torch, dtype), copy=True).contiguous() for name, tensor in state.items()}
    return {
        "adapter_model.safetensors": save(tensors, metadata={"format": "pt"}),
        "adapter_config.json": strict_config(peft.peft_config["default"].to_dict()),
        "README.md": b"# Tiny organism\n\nRandom weights, harmless by construction.\n",
    }


def peft_oracle(base: str | Path, files: dict[str, bytes], folder: Path, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """Load a bundle as PEFT itself does, from a folder: what our own loading is held against."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, device_map={"": device}, local_files_only=True, use_safetensors=True
    )
    for path, data in files.items():
        (folder / path).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # as above
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings", category=UserWarning)  # as above
        return PeftModel.from_pretrained(model, folder, local_files_only=True).eval()


def strict_config(config: dict[str, Any]) -> bytes:
    """Print a PEFT config as PEFT's own `save_pretrained` would, at inference."""
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    plain |= {"inference_mode": True}
    return json.dumps(plain, indent=2, sort_keys=True, default=str).encode()
