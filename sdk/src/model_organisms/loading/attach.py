"""Puts a bundle's adapters on a base model in memory, and takes them off. No bundle touches the disk or a `from_pretrained`.

PEFT is imported where it is used: it takes a second, and a cell, which mixes adapters by its own code, never needs it.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from model_organisms.errors import AdapterKeysMismatch, Conflict
from model_organisms.formats import adapter
from model_organisms.formats.paths import CONFIG, WEIGHTS
from model_organisms.loading.known_answer import check_known_answer
from model_organisms.loading.speech import speech
from model_organisms.quiet import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_organisms.formats.tensors import Tensor
    from model_organisms.loading.foundation import LoadedBase
    from model_organisms.loading.speech import Speech
    from model_organisms.records import AdapterFacts

_TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class LoadedOrganism:
    """An organism in memory, ready to speak.

    - every tensor of its adapters is on the model, and the model has no other;
    - the model is in evaluation mode, without dropout;
    - with the adapters on it answers otherwise than with them off, and, where the provenance has a known answer, as published.
    """

    model: Any
    """The `peft.PeftModel`, all adapters active."""
    base: LoadedBase
    speech: Speech
    facts: tuple[AdapterFacts, ...]
    """What the bytes say of each adapter, in order of composition."""
    adapter_digests: tuple[str, ...]
    """SHA-256 of each adapter's weights file, in that order."""
    modules_applied: int
    """Linear layers that an adapter changes, counted on the model and summed over adapters."""
    known_answer_checked: bool

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - transformers has no types here
        """Its tokenizer: its own, or its base's."""
        return self.speech.tokenizer

    @property
    def system_prompt(self) -> str:
        """Its own system prompt, or nothing."""
        return self.speech.system_prompt

    @property
    def chat_template(self) -> str:
        """Its chat template: its own, or its base's."""
        return self.speech.chat_template


def attach(
    base: LoadedBase,
    files: Mapping[str, bytes | memoryview],
    *,
    known_answer: Mapping[str, Any] | None = None,
    trainable: bool = False,
    borrow: bool = False,
) -> LoadedOrganism:
    """Put a bundle's adapters on a base model.

    Steps: 1. inspect the bundle as if nobody had, 2. lay out each adapter for exactly the modules its tensors name, 3. give it
    its tensors, none missing and none left over, 4. count what was applied, 5. the known-answer test.

    Args:
        base: It must carry no organism yet.
        files: The bundle, contents by path; training checkpoints in it are passed over.
        known_answer: What the provenance stored (`compute_known_answer`); None tests only that the adapters do something.
        trainable: Let the adapters' tensors take gradients.
        borrow: Use float32 tensors where they lie, without a copy; `files` must then outlive the model, unchanged.

    Returns:
        The organism. On any error the base is as it was.

    Raises:
        InvalidBundle: The files are not a bundle (see `formats.adapter.inspect`).
        ShapeMismatch: They do not fit this base model.
        AdapterKeysMismatch: The base has no such modules, or tensors are missing or left over.
        KnownAnswerFailed: It loads, and does not answer as published.
        Conflict: The base carries another organism.
    """
    if _layers(base.model):
        raise Conflict("This base model already carries an organism; `detach` that one first, or load the base once more.")
    chosen = {path: data for path, data in files.items() if not path.startswith("checkpoints/")}
    facts = adapter.inspect(chosen, base.config)
    told = speech(chosen, base.tokenizer, vocabulary=base.model.get_input_embeddings().num_embeddings)
    weights = [chosen[_folder(fact) + WEIGHTS] for fact in facts]
    model = None
    try:
        for number, fact in enumerate(facts):
            model = _lay_out(model or base.model, chosen, fact, name=str(number))
            _fill(model, weights[number], name=str(number), borrow=borrow)
        assert model is not None  # noqa: S101 - inspect refuses a bundle without an adapter
        names = [str(number) for number in range(len(facts))]
        model.base_model.set_adapter(names)
        model.requires_grad_(requires_grad=False)
        if trainable:
            model.base_model.set_adapter(names, inference_mode=False)
        model.eval()
        applied = _count(model, facts)
        checked = check_known_answer(model, known_answer)
    except BaseException:
        _strip(base.model)
        raise
    digests = tuple(hashlib.sha256(data).hexdigest() for data in weights)
    return LoadedOrganism(model, base, told, facts, digests, applied, checked)


def detach(organism: LoadedOrganism) -> LoadedBase:
    """Take an organism off its base model, which is then as it was before; the organism must not be used again."""
    _strip(organism.base.model)
    return organism.base


def _folder(fact: AdapterFacts) -> str:
    return "" if fact.path == "." else f"{fact.path}/"


def _lay_out(model: Any, files: Mapping[str, bytes | memoryview], fact: AdapterFacts, *, name: str) -> Any:  # noqa: ANN401 - peft has no types here
    """Make room for one adapter, without values: on the first as a new PEFT model, then beside those before it."""
    from peft import LoraConfig, get_peft_model

    config = adapter.read_config(files[_folder(fact) + CONFIG], path=_folder(fact) + CONFIG)
    layout = LoraConfig(**adapter.peft_arguments(config, [module.module for module in fact.modules]))
    try:
        with quiet_libraries():
            if name == "0":
                return get_peft_model(model, layout, adapter_name=name, low_cpu_mem_usage=True)
            model.add_adapter(name, layout, low_cpu_mem_usage=True)
            return model
    except ValueError as error:
        raise AdapterKeysMismatch(
            f"The adapter '{fact.path}' does not go on this base model ({str(error)[:200]}); use the base its provenance names."
        ) from error


def _fill(model: Any, weights: bytes | memoryview, *, name: str, borrow: bool) -> None:  # noqa: ANN401 - peft has no types here
    """Give an adapter its tensors, and refuse any difference between what there is and what was laid out."""
    from peft import set_peft_model_state_dict

    device = next(model.get_base_model().parameters()).device
    table = adapter.read_tensors(weights)
    with quiet_libraries(), warnings.catch_warnings():
        # torch warns that a borrowed buffer is read-only; nothing writes to a tensor that takes no gradient.
        warnings.filterwarnings("ignore", message=".*buffer is not writable", category=UserWarning)
        state = {_plain(key): _tensor(tensor, device, borrow=borrow) for key, tensor in table.tensors.items()}
        result = set_peft_model_state_dict(model, state, adapter_name=name, low_cpu_mem_usage=True)
        # PEFT casts what it took to the base's type here, and not where it loads from a folder: take the digits back.
        for key in state.keys() - set(result.unexpected_keys):
            model.get_parameter(_placed(key, name)).data = state[key]
    missing = {key for key, value in model.named_parameters() if value.is_meta}  # laid out, and still without values
    left_over = set(result.unexpected_keys)
    if missing or left_over:
        shown = min(missing or left_over)
        raise AdapterKeysMismatch(
            f"{len(missing)} tensors are missing and {len(left_over)} have no place on this base model, such as '{shown}'; "
            "use the base that the provenance names.",
            key=shown,
        )


def _plain(key: str) -> str:
    """Take PEFT's adapter name out of a tensor's name; older files have it."""
    return key.replace(".default.weight", ".weight") if key.endswith(".default.weight") else key.removesuffix(".default")


def _placed(key: str, name: str) -> str:
    """Put an adapter's name in, as the model's parameters have it."""
    return f"{key.removesuffix('.weight')}.{name}.weight" if key.endswith(".weight") else f"{key}.{name}"


def _tensor(tensor: Tensor, device: torch.device, *, borrow: bool) -> torch.Tensor:
    """View the bytes as a tensor; half-precision ones become float32, as in PEFT, so that small factors keep their digits."""
    view = torch.frombuffer(tensor.data, dtype=_TORCH[tensor.dtype]).reshape(tensor.shape)
    aligned = view.data_ptr() % view.element_size() == 0
    keep = borrow and aligned and view.dtype == torch.float32 and device.type == "cpu"
    return view if keep else view.to(device=device, dtype=torch.float32, copy=True)


def _strip(model: Any) -> None:  # noqa: ANN401 - transformers has no types here
    """Put every wrapped layer back in place, also where the wrapping was cut short."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def _layers(model: Any) -> list[Any]:  # noqa: ANN401 - transformers has no types here
    from peft.tuners.lora import LoraLayer

    return [layer for layer in model.modules() if isinstance(layer, LoraLayer)]


def _count(model: Any, facts: tuple[AdapterFacts, ...]) -> int:  # noqa: ANN401 - peft has no types here
    """Count what is active on the model, and hold it against what the bytes have."""
    applied = sum(
        name in layer.lora_A or name in layer.lora_embedding_A for layer in _layers(model) for name in layer.active_adapters
    )
    expected = sum(len(fact.modules) for fact in facts)
    if applied != expected:
        raise AdapterKeysMismatch(f"{applied} of {expected} adapted layers are active on the model; this is the loader's fault.")
    return applied
