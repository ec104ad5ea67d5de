"""What a bundle says of itself: facts from its bytes, held against numpy, PEFT and the safetensors library."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from model_organisms.errors import InvalidBundle, MalformedTensors, RefusedConfig, ShapeMismatch
from model_organisms.formats import adapter
from model_organisms.formats.facts import gram
from model_organisms.formats.targeting import Targeting, layer_of
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors.numpy import load

from tests.support.adapters import CONFIG, WEIGHTS, pack_tensors, peft_config, stacked_bundle, tiny_base_config, tiny_bundle
from tests.support.hostile import packed, taken_apart

GOOD = tiny_bundle(rank=2, layers=(0, 1), hidden=8, kv=4)
BASE = tiny_base_config(hidden=16, kv=16, intermediate=32)
MODULE = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_facts_are_those_of_the_bytes(dtype, rslora):
    bundle = tiny_bundle(rank=4, alpha=12, rslora=rslora, dtype=dtype, modules=("q_proj", "down_proj"), layers=(1, 3))
    (facts,) = adapter.inspect(bundle, tiny_base_config())
    assert (facts.dtype, facts.ranks, facts.layers, facts.rslora, facts.alpha) == (dtype, (4,), (1, 3), rslora, 12)
    assert facts.target_modules == ("down_proj", "q_proj")
    table = adapter.read_tensors(bundle[WEIGHTS]).tensors
    assert facts.parameters == sum(tensor.size for tensor in table.values())
    for module in facts.modules:
        name = f"base_model.model.{module.module}.lora_"
        a, b = (np.concatenate(list(table[f"{name}{half}.weight"].blocks()), axis=axis) for half, axis in (("A", 1), ("B", 0)))
        scaling = 12 / math.sqrt(4) if rslora else 12 / 4
        assert module.scaling == pytest.approx(scaling)
        assert module.norm == pytest.approx(scaling * np.linalg.norm(b.astype(np.float64) @ a), rel=1e-5)
        assert (module.rank, module.in_features, module.out_features) == (4, a.shape[1], b.shape[0])
        assert gram(table[f"{name}A.weight"]) == pytest.approx(a @ a.T, rel=1e-4, abs=1e-6)


def test_blocks_are_the_values_and_bounded():
    rng = np.random.default_rng(1)
    wide = {
        "base_model.model.m.lora_A.weight": rng.normal(size=(3, 300_000)),
        "base_model.model.m.lora_B.weight": np.ones((4, 3)),
    }
    for dtype in ("float32", "float16", "bfloat16"):
        tensor = adapter.read_tensors(pack_tensors(wide, dtype=dtype)).tensors["base_model.model.m.lora_A.weight"]
        blocks = list(tensor.blocks())
        assert len(blocks) > 1
        assert max(block.size for block in blocks) <= 1 << 18
        assert np.allclose(np.concatenate(blocks, axis=1), wide[tensor.name], rtol=1e-2, atol=1e-2)


def test_adapters_come_in_order_and_checkpoints_are_read_but_not_told():
    bundle = stacked_bundle(3, rank=2) | {
        f"checkpoints/{step}/{name}": GOOD[name] for step in (5, 10) for name in (WEIGHTS, CONFIG)
    }
    assert [facts.path for facts in adapter.inspect(bundle)] == ["0", "1", "2"]
    header, data = taken_apart(GOOD[WEIGHTS])
    with pytest.raises(MalformedTensors, match="checkpoints/10"):
        adapter.inspect(bundle | {f"checkpoints/10/{WEIGHTS}": packed(header, data[:-1])})
    wrong = json.dumps(json.loads(GOOD[CONFIG]) | {"r": 3}).encode()
    with pytest.raises(ShapeMismatch, match="checkpoints/5"):
        adapter.inspect(bundle | {f"checkpoints/5/{CONFIG}": wrong})


def test_an_embedding_and_a_head_may_be_adapted():
    names = (
        "model.embed_tokens.lora_embedding_A",
        "model.embed_tokens.lora_embedding_B",
        "lm_head.lora_A.weight",
        "lm_head.lora_B.weight",
    )
    shapes = ((2, 96), (64, 2), (2, 64), (96, 2))
    weights = pack_tensors({f"base_model.model.{name}": np.ones(shape) for name, shape in zip(names, shapes, strict=True)})
    config = peft_config(rank=2, alpha=2, modules=["embed_tokens", "lm_head"], layers=None, rslora=False)
    (facts,) = adapter.inspect({WEIGHTS: weights, CONFIG: json.dumps(config).encode()}, tiny_base_config())
    assert (facts.layers, facts.target_modules) == ((), ("embed_tokens", "lm_head"))


def test_of_an_unknown_architecture_only_the_layers_are_known():
    strange = {"model_type": "mystery", "num_hidden_layers": 2}
    adapter.inspect(tiny_bundle(layers=(0, 1), hidden=48), strange)
    adapter.inspect(tiny_bundle(layers=(0, 1), hidden=48), {"text_config": strange})
    with pytest.raises(ShapeMismatch, match="layer 2 does not exist"):
        adapter.inspect(tiny_bundle(layers=(0, 2)), strange)


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": "64"}, {"hidden_size": True}, {"num_hidden_layers": 0}, {"num_hidden_layers": 10**6}, {"vocab_size": None}],
)
def test_a_base_config_without_its_widths_is_refused(change):
    with pytest.raises(ShapeMismatch, match="no usable"):
        adapter.inspect(tiny_bundle(), tiny_base_config() | change)


@pytest.mark.parametrize("kind", [[], None, 7, {"llama": 1}])
def test_a_base_config_of_no_known_type_still_has_its_layers(kind):
    assert not adapter.dimensions_of(tiny_base_config() | {"model_type": kind}).known


PARTS = st.sampled_from(["model", "layers", "h", "0", "1", "12", "self_attn", "mlp", "q_proj", "v_proj", "experts"])
NAMES = st.lists(PARTS, min_size=1, max_size=7).map(".".join)
PATTERNS = st.sampled_from([r".*\.q_proj", r"model\.layers\.(0|12)\..*", r".*(q|v)_proj", r"[a-z]+\.\d+.*", "model.layers"])


@settings(max_examples=400)
@given(
    module=NAMES,
    targets=st.lists(NAMES, min_size=1, max_size=3) | PATTERNS,
    layers=st.none() | st.integers(0, 13) | st.lists(st.sampled_from([0, 1, 12]), max_size=2),
    lists=st.none()
    | st.sampled_from(["layers", "h"])
    | st.lists(st.sampled_from(["layers", "h", "experts"]), min_size=1, max_size=2),
)
def test_a_config_means_the_modules_it_means_to_peft(module, targets, layers, lists):
    if isinstance(targets, str) or layers in (None, []):
        layers = lists = None
    stated = peft_config(rank=4, alpha=4, modules=[], layers=None, rslora=False)
    stated |= {"target_modules": targets, "layers_to_transform": layers, "layers_pattern": lists}
    ours = Targeting(adapter.read_config(json.dumps(stated).encode())).adapts(module)
    theirs = SimpleNamespace(target_modules=targets, target_parameters=None, layers_to_transform=layers, layers_pattern=lists)
    assert ours == bool(check_target_module_exists(theirs, module))


@given(
    module=NAMES,
    ranks=st.dictionaries(NAMES | PATTERNS, st.integers(1, 64), max_size=4),
    alphas=st.dictionaries(NAMES | PATTERNS, st.integers(1, 64), max_size=4),
)
def test_ranks_and_alphas_are_those_of_peft(module, ranks, alphas):
    stated = peft_config(rank=70, alpha=80, modules=["q_proj"], layers=None, rslora=False)
    config = adapter.read_config(json.dumps(stated | {"rank_pattern": ranks, "alpha_pattern": alphas}).encode())
    targeting = Targeting(config)
    for _ in range(2):  # what is remembered is what was found
        assert targeting.rank(module) == ranks.get(get_pattern_key(list(ranks), module), 70)
        assert targeting.alpha(module) == alphas.get(get_pattern_key(list(alphas), module), 80)
    # Printed again for PEFT, with every module by its full name, it means the same.
    again = LoraConfig(**adapter.peft_arguments(config, [module]))
    assert again.rank_pattern.get(get_pattern_key(list(again.rank_pattern), module), again.r) == targeting.rank(module)
    assert again.alpha_pattern.get(get_pattern_key(list(again.alpha_pattern), module), again.lora_alpha) == targeting.alpha(
        module
    )


def test_all_linear_means_all_but_the_output_and_embeddings():
    stated = peft_config(rank=2, alpha=2, modules=[], layers=None, rslora=False) | {"target_modules": "all-linear"}
    targeting = Targeting(adapter.read_config(json.dumps(stated).encode()))
    assert targeting.adapts(MODULE)
    assert not targeting.adapts("lm_head")
    assert not targeting.adapts("model.embed_tokens")
    assert layer_of(MODULE) == 0


def inert(error):
    """What a refusal quotes of a stranger's bytes does nothing to a terminal."""
    assert error.message.isprintable()


def alike(weights):
    """What the strict reader takes, the safetensors library reads as the same tensors."""
    try:
        table = adapter.read_tensors(weights)
    except MalformedTensors as error:
        inert(error)
        return False
    theirs = dict(safetensors.deserialize(weights))
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    assert theirs.keys() == table.tensors.keys()
    for name, tensor in table.tensors.items():
        found = theirs[name]
        assert (names[found["dtype"]], tuple(found["shape"]), bytes(found["data"])) == (
            tensor.dtype,
            tensor.shape,
            bytes(tensor.data),
        )
    return True


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_good_files_are_read_as_the_library_reads_them(dtype):
    bundle = tiny_bundle(dtype=dtype)
    assert alike(bundle[WEIGHTS])
    if dtype != "bfloat16":
        arrays = load(bundle[WEIGHTS])
        assert all(
            np.array_equal(tensor.array(), arrays[name]) for name, tensor in adapter.read_tensors(bundle[WEIGHTS]).tensors.items()
        )


@settings(max_examples=500)
@given(st.data())
def test_any_flipped_bits_and_cuts_end_in_a_typed_error_or_in_the_same_tensors(data):
    path = data.draw(st.sampled_from([WEIGHTS, CONFIG]))
    changed = bytearray(GOOD[path])
    header = 8 + int.from_bytes(GOOD[WEIGHTS][:8], "little") if path == WEIGHTS else len(changed)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1) | st.integers(0, header - 1))
        changed[at] ^= 1 << data.draw(st.integers(0, 7))
    changed = changed[: data.draw(st.just(len(changed)) | st.integers(0, len(changed)))]
    files = GOOD | {path: bytes(changed)}
    try:
        adapter.inspect(files)
    except InvalidBundle as error:
        inert(error)
        return
    assert alike(files[WEIGHTS])
    assert json.loads(files[CONFIG])["r"] == adapter.read_config(files[CONFIG]).rank


PIECES = st.sampled_from(
    [
        *(
            '"',
            "\\u0061",
            "\\",
            " ",
            "\t",
            "\n",
            "\0",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "0",
            "-",
            "1",
            "9" * 20,
            "1e3",
            ".0",
            "NaN",
            "true",
        ),
        *("null", '"dtype":"F16",', '"__metadata__":{},', '"__metadata__":{"a":"b"},', "lora_A", "\u0410", "\ufeff"),
    ]
)


@settings(max_examples=600)
@given(st.data())
def test_any_edited_header_is_refused_or_read_as_the_library_reads_it(data):
    header, body = taken_apart(GOOD[WEIGHTS])
    text = json.dumps(header, separators=data.draw(st.sampled_from([(",", ":"), (", ", ": ")])))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 3))
        text = text[:at] + data.draw(PIECES | st.just("")) + text[at + cut :]
    alike(packed(text.encode() + b" " * data.draw(st.integers(0, 9)), body))


def test_the_edits_of_headers_reach_files_that_are_taken():
    header, body = taken_apart(GOOD[WEIGHTS])
    assert alike(packed(json.dumps({"__metadata__": {"a": "b"}} | header, indent=1).encode() + b"   ", body))
    assert alike(packed(json.dumps(dict(reversed(header.items()))).replace("lora_A", "lora\\u005fA").encode(), body))


@given(st.data())
def test_a_config_that_is_taken_says_what_plain_json_says(data):
    stated = json.loads(GOOD[CONFIG])
    key = data.draw(st.sampled_from(sorted(stated)))
    values = st.none() | st.booleans() | st.integers(-2, 2000) | st.floats() | st.text(max_size=8) | st.just([]) | st.just({})
    stated[key] = data.draw(
        values | st.lists(st.integers(0, 3), max_size=3) | st.lists(st.text("qv_proj.", max_size=6), max_size=3)
    )
    text = json.dumps(stated).encode()
    try:
        config = adapter.read_config(text)
    except RefusedConfig as error:
        inert(error)
        return
    again = json.loads(text)
    assert (config.rank, config.alpha, config.rslora) == (again["r"], again["lora_alpha"], again["use_rslora"])
    assert config.layers == (
        None if not isinstance(again["layers_to_transform"], int) and not again["layers_to_transform"] else _layers(again)
    )
    LoraConfig(**adapter.peft_arguments(config, [MODULE]))


def _layers(stated):
    layers = stated["layers_to_transform"]
    return tuple(sorted(set(layers if isinstance(layers, list) else [layers])))
