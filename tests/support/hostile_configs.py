"""Hostile settings: adapter configs, tokenizers and templates that would run code, take for ever, or mean two things.

Files and tensors are in `hostile_files.py`; `attacks` here gives all there are.
"""

from __future__ import annotations

import json

from model_organisms.errors import MalformedTensors, RefusedConfig, ShapeMismatch, UnsafeFile

from tests.support import hostile_files
from tests.support.adapters import CONFIG, tiny_bundle
from tests.support.hostile import Attack, beside, changed, hard, hard_checkpoints


def _text(old: str, new: str) -> bytes:
    """The text of a good config with one piece of it replaced."""
    text = tiny_bundle()[CONFIG].decode()
    assert old in text
    return text.replace(old, new, 1).encode()


TEXTS = {
    "a config that is no JSON": (b"{", "not JSON"),
    "a config that is a list": (b"[]", "save the adapter with PEFT"),
    "a config with a byte order mark": (b"\xef\xbb\xbf{}", "not JSON"),
    "a config with a comma too many": (b'{"r":4,}', "not JSON"),
    "a config with a comment": (b'{"r":4} // four', "not JSON"),
    "a field of the config twice": (_text('"r": 4', '"r": 4, "r": 8'), "more than once"),
    "a field twice, spelt otherwise": (_text('"r": 4', '"r": 4, "\\u0072": 8'), "more than once"),
    "an alpha that is NaN": (_text('"lora_alpha": 16', '"lora_alpha": NaN'), "NaN"),
    "an alpha beyond a double": (_text('"lora_alpha": 16', '"lora_alpha": 1e999'), "64-bit float"),
    "a rank of 5,000 digits": (_text('"r": 4', '"r": ' + "9" * 5000), "digits"),
    "a config nested 500,000 deep": (b'{"r":' + b"[" * 500_000, "deeper than 16"),
}
RUNS = {
    "auto_mapping": {"base_model_class": "System", "parent_library": "os"},
    "megatron_core": "organism.payload",
    "megatron_config": {"tensor_model_parallel_size": 1},
    "trust_remote_code": True,
    "runtime_config": {"ephemeral_gpu_offload": True},
    "custom_modules": {"Linear": "payload.Linear"},
    "__class__": "os.system",
    "_custom_modules": None,
    "corda_config": {"cache_file": "/etc/passwd"},
    "loftq_config": {"loftq_bits": 4},
    "eva_config": {},
    "layer_replication": [[0, 4], [2, 5]],
    "modules_to_save": ["lm_head"],
    "trainable_token_indices": [1],
    "target_parameters": ["experts.gate_up_proj"],
    "exclude_modules": ["q_proj"],
    "use_dora": True,
    "lora_bias": True,
    "bias": "all",
    "fan_in_fan_out": True,
    "init_lora_weights": "pissa",
    "peft_type": "IA3",
    "task_type": "SEQ_CLS",
    "inference_mode": 1,
    "qalora_group_size": True,
    "peft_version": ["0.21"],
    "revision": "\x1b[2J",
    "base_model_name_or_path": "../../../root/.ssh",
}
"""A field, and the value that makes it hostile."""
CONFUSED = {
    "r": (True, "4", 4.0, 0, -1, 1025, None, [4], 2**60),
    "lora_alpha": (True, "16", 0, -1, 1e9, None, [16]),
    "lora_dropout": (True, "0", 1, -0.1, None),
    "use_rslora": (1, "true", None),
    "target_modules": (7, None, [], [1], [""], ["q-proj"], ["../q_proj"], {"q_proj": 1}, [f"m{n}" for n in range(2049)]),
    "layers_to_transform": (True, [True], ["0"], [-1], [0.0], [1024], {"0": 1}),
    "layers_pattern": (False, 0, {}, ["a.b"], ["h"] * 17, "layers|h"),
    "rank_pattern": (False, [], {"q_proj": True}, {"q_proj": "4"}, {"q_proj": 0}, {str(n): 4 for n in range(2049)}),
    "alpha_pattern": ("", {"q_proj": None}, {"q_proj": 1e9}, {f"q[{n}]": 1 for n in range(17)}),
    "base_model_name_or_path": (1, "x" * 513, "a\\..\\b", "line\nend"),
    "peft_type": (None, ["LORA"], "lora"),
    "bias": (None, False, "lora_only"),
}
"""Values of another type than the field's, or beyond what it can be."""
PATTERNS = {
    "a look-ahead": "(?=q)q_proj",
    "a reference back": "(q)_proj\\1",
    "a counted repeat": "(q{1,1000}){1,1000}",
    "a named group": "(?P<x>q)_proj",
    "a flag": "(?i)q_proj",
    "a repeat of a repeat": "q_proj**",
    "a group left open": "((q_proj)",
    "seventeen groups": "(" * 17 + "q_proj" + ")" * 17,
    "a pattern of 513 characters": "q" * 513,
}
TEMPLATES = {
    "reaches a class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "reaches globals": "{{ cycler.__init__.__globals__.os.popen('id') }}",
    "asks for an attribute by name": "{{ messages|attr('pop') }}",
    "includes a file": "{% include '/etc/passwd' %}",
    "imports a file": "{%- import 'x.jinja' as x %}",
    "extends a file": "{%\nextends 'x.jinja' %}",
}
SETTINGS = {
    "a tokenizer with code of its own": {"auto_map": {"AutoTokenizer": ["payload.Tokenizer", None]}},
    "a tokenizer that trusts code": {"trust_remote_code": True},
    "a tokenizer with a template that reaches out": {"chat_template": TEMPLATES["reaches a class"]},
    "a tokenizer with several templates": {"chat_template": [{"name": "tool", "template": TEMPLATES["includes a file"]}]},
}


def attacks() -> dict[str, Attack]:
    """Every attack there is, by name."""
    found = {name: Attack(make, error, says) for name, (make, error, says) in hostile_files.FILES.items()}
    found |= {
        name: Attack(beside(path), UnsafeFile, "shorten it|is refused|rename one") for name, path in hostile_files.PATHS.items()
    }
    for table, error in (
        (hostile_files.TENSORS, MalformedTensors),
        (hostile_files.SHAPES, ShapeMismatch),
        (hostile_files.BASES, ShapeMismatch),
    ):
        found |= {name: Attack(make, error, says, base=table is hostile_files.BASES) for name, (make, says) in table.items()}
    found |= {name: Attack(beside(CONFIG, data=data), RefusedConfig, says) for name, (data, says) in TEXTS.items()}
    for key, value in RUNS.items():
        found[f"a config with {key}"] = Attack(changed(**{key: value}), RefusedConfig, f"field '{key}'")
    for key, values in CONFUSED.items():
        for number, value in enumerate(values):
            found[f"{key} number {number}"] = Attack(changed(**{key: value}), RefusedConfig, key.split("_pattern")[0])
    for name, text in PATTERNS.items():
        make = changed(target_modules=text, layers_to_transform=None)
        found[name] = Attack(make, RefusedConfig, "list the module names")
    found["a pattern in some layers"] = Attack(changed(target_modules=".*q_proj"), RefusedConfig, "name the modules instead")
    found["a pattern of 2**190 states"] = Attack(lambda: hard(1700), RefusedConfig, "take too long")
    found["sixty checkpoints with such patterns"] = Attack(hard_checkpoints, RefusedConfig, "take too long")
    for name, text in TEMPLATES.items():
        found[f"a template that {name}"] = Attack(
            beside("chat_template.jinja", data=text.encode()), RefusedConfig, "write it without"
        )
    for name, settings in SETTINGS.items():
        make = beside("tokenizer_config.json", data=json.dumps(settings).encode())
        found[name] = Attack(make, RefusedConfig, "remove it|write it without")
    return found
