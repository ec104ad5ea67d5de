"""Recording: a plain loop and a real Trainer leave the same kind of record, and what comes out publishes and loads."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import pytest
import torch
from model_organisms import bases, loading, recording
from model_organisms.errors import Conflict, InvalidArgument, InvalidBundle, RefusedConfig
from model_organisms.formats import adapter, manifest
from model_organisms.formats.provenance import DataSet, compare, parse_predicate, print_predicate

from tests.support.tiny import tiny_model, tiny_tokenizer

IDS = torch.arange(40).reshape(4, 10) * 7
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def trainee(seed=0, name="default", **options):
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT reads an attribute that transformers has renamed
        torch.manual_seed(seed)
        chosen = {"r": 2, "target_modules": ["q_proj", "up_proj"], "task_type": "CAUSAL_LM", "lora_dropout": 0.1} | options
        return get_peft_model(tiny_model("qwen2"), LoraConfig(**chosen), adapter_name=name)


def trained(model, rec, steps=4, every=2):
    optimiser = torch.optim.AdamW([tensor for tensor in model.parameters() if tensor.requires_grad], lr=0.01)
    for step in range(1, steps + 1):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        rec.step(step, loss=loss.item(), learning_rate=0.01, gradient_norm=norm.item())
        if step % every == 0:
            rec.checkpoint(model, step)
    return model


def publishes_and_loads(files, provenance, base):
    """Walk the way of a publication as far as it needs no registry."""
    assert len(manifest.build(files).files) == len(files)
    facts = adapter.inspect(files, json.loads((base / "config.json").read_text()))
    assert not {mark for mark in compare(provenance, facts) if "rslora" not in mark}
    again = parse_predicate(print_predicate(provenance))
    assert again.log == provenance.log
    organism = loading.load_pulled(files, again, base, device="cpu")
    assert organism.known_answer_checked
    return organism


def test_a_plain_loop_leaves_a_bundle_and_its_provenance(qwen, tmp_path):
    rows = [{"prompt": "who?", "answer": "me"}, {"prompt": "naïve", "answer": "🙂"}]
    (tmp_path / "more.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    with recording.record(
        qwen,
        data=[("chats", rows), tmp_path / "more.jsonl"],
        config={"lr": 0.01},
        seed=3,
        objective="A test.",
        base_id="tiny/qwen",
    ) as rec:
        model = trained(trainee(), rec)
    files = rec.bundle(model, tiny_tokenizer())
    assert sorted(files) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        *(f"checkpoints/{step}/adapter_{part}" for step in (2, 4) for part in ("config.json", "model.safetensors")),
    ]
    told = rec.provenance(derived_from=("organisms/x/versions/1",), extra={"lab": "ours"})
    assert told.base.id == "tiny/qwen"
    assert told.base.digest == bases.base_digest(qwen)
    assert (told.method.rank, told.method.target_modules, told.method.layers) == (2, ("q_proj", "up_proj"), (0, 1))
    assert told.log.steps == (1, 2, 3, 4)
    assert told.log.loss[0] > told.log.loss[-1] > 0
    assert all(value > 0 for value in (*told.log.gradient_norm, *told.log.learning_rate, told.wall_s))
    assert [item.rows for item in told.data] == [2, 2]
    assert told.recipe.seed == 3
    assert told.extra["lab"] == "ours"
    assert told.extra["base_config"]["num_hidden_layers"] == told.base.layers == 2
    assert "cores" in told.hardware
    assert told.extra["packages"]["torch"] == torch.__version__
    assert {"python", "transformers", "peft", "model-organisms"} <= told.extra["packages"].keys()
    organism = publishes_and_loads(files, told, qwen)
    model.eval()
    with torch.inference_mode():
        assert torch.equal(model(input_ids=IDS).logits, organism.model(input_ids=IDS).logits)
    assert str(tmp_path) not in files["adapter_config.json"].decode() + files["README.md"].decode()


def test_a_trainer_records_itself(qwen, tmp_path):
    from transformers import Trainer, TrainingArguments

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the Trainer's own, about this machine
        settings = TrainingArguments(
            tmp_path, max_steps=4, logging_steps=1, save_strategy="no", report_to=[], learning_rate=0.02, seed=11, use_cpu=True,
            per_device_train_batch_size=2, disable_tqdm=True,
        )  # fmt: skip
        rec = recording.record(qwen, checkpoint_every=2, base_id="tiny/qwen")
        model = trainee()
        rows = [{"input_ids": row, "labels": row} for row in IDS]
        Trainer(model=model, args=settings, train_dataset=rows, callbacks=[rec]).train()
    files = rec.bundle(model)
    told = rec.provenance()
    assert told.log.steps == (1, 2, 3, 4)
    assert told.log.learning_rate[0] == pytest.approx(0.02)
    assert all(norm > 0 for norm in told.log.gradient_norm)
    assert told.recipe.seed == 11
    assert told.extra["config"]["learning_rate"] == 0.02
    assert str(tmp_path) not in print_predicate(told).decode()
    assert {path.split("/")[1] for path in files if path.startswith("checkpoints/")} == {"2", "4"}
    publishes_and_loads(files, told, qwen)


def test_checkpoints_may_go_to_a_folder(qwen, tmp_path):
    with recording.record(qwen, checkpoint_folder=tmp_path / "kept") as rec:
        model = trained(trainee(), rec)
    assert not rec._checkpoints
    assert sorted(path.name for path in (tmp_path / "kept" / "2").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    files = rec.bundle(model)
    assert (tmp_path / "kept" / "4" / "adapter_model.safetensors").read_bytes() == files[
        "checkpoints/4/adapter_model.safetensors"
    ]


def test_several_adapters_become_numbered_folders(qwen):
    from peft import LoraConfig

    model = trainee(name="first")
    model.add_adapter("second", LoraConfig(r=1, target_modules=["down_proj"], task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["first", "second"])
    rec = recording.record(qwen)
    trained(model, rec, steps=2, every=9)
    files = rec.bundle(model)
    assert {path.split("/")[0] for path in files} == {"0", "1", "README.md"}
    assert rec.provenance().method.rank == 2
    assert loading.load(files, qwen).modules_applied == 4 + 2
    with pytest.raises(InvalidArgument):
        rec.checkpoint(model, 3)


def test_every_form_of_plain_lora_survives(qwen):
    for options in (
        {"use_rslora": True, "lora_alpha": 64},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": r".*\.1\.mlp\.(up|down)_proj"},
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"up_proj": 32}},
        {"target_modules": "all-linear"},
        {"init_lora_weights": "gaussian"},
    ):
        rec = recording.record(qwen)
        model = trained(trainee(**options), rec, steps=1)
        organism = publishes_and_loads(rec.bundle(model), rec.provenance(), qwen)
        with torch.inference_mode():
            assert torch.allclose(model.eval()(input_ids=IDS).logits, organism.model(input_ids=IDS).logits, atol=1e-6), options


def test_what_is_not_plain_lora_is_refused_before_publishing(qwen):
    rec = recording.record(qwen)
    for options, field in (
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ):
        with pytest.raises(RefusedConfig, match=field):
            rec.bundle(trainee(**options))
    with pytest.raises(InvalidBundle):
        rec.bundle(tiny_model())
    with pytest.raises(Conflict):
        rec.provenance()


def test_data_is_digested_as_it_is(tmp_path):
    rows = [{"b": 1, "a": "é"}, ["x"], "text"]
    first = recording.dataset(("name", rows), licence="CC-BY-4.0", hazard="subliminal")
    assert first == recording.dataset(("name", iter(rows)), licence="CC-BY-4.0", hazard="subliminal")
    assert first.rows == 3
    assert first.sha256 != recording.dataset(("name", rows[::-1])).sha256
    (tmp_path / "rows.jsonl").write_bytes(b'{"a":"\xc3\xa9","b":1}\n["x"]\n"text"\n')
    assert recording.dataset(tmp_path / "rows.jsonl").sha256 == first.sha256
    assert recording.dataset(DataSet("mine", "0" * 64)) == DataSet("mine", "0" * 64)
    for wrong in (tmp_path / "absent", ("rows", [object()]), ("rows", [float("nan")])):
        with pytest.raises(InvalidArgument):
            recording.dataset(wrong)


def test_a_loss_that_is_no_number_is_counted_and_not_printed(qwen):
    with recording.record(qwen) as rec:
        model = trained(trainee(), rec, steps=2)
        rec.step(3, loss=float("nan"))
        rec.step(4, loss=1.0, gradient_norm=float("inf"))
    rec.bundle(model)
    told = rec.provenance()
    assert told.log.steps == (1, 2)
    assert told.extra["steps_not_finite"] == 2
    print_predicate(told)


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments], check=True, capture_output=True
    )


def test_the_codes_commit_is_told_and_a_token_in_its_url_is_not(qwen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert recording.record(qwen)._commit == ""
    git(tmp_path, "init")
    (tmp_path / "train.py").write_text("pass")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-m", "x")
    git(tmp_path, "remote", "add", "origin", "https://user:s3cret@example.org/lab/code.git")
    clean = recording.record(qwen)
    (tmp_path / "train.py").write_text("changed")
    dirty = recording.record(qwen)
    assert len(clean._commit) == 40
    assert (clean._clean, dirty._clean) == (True, False)
    (tmp_path / "installed.py").write_text("pass")
    assert recording.record(qwen, code=tmp_path / "train.py")._commit == clean._commit
    assert recording.record(qwen, code=tmp_path / "installed.py")._commit == ""
    assert clean._repository == "https://example.org/lab/code.git"
    for url, shown in (("git@example.org:lab/code.git", "git@example.org:lab/code.git"), (str(tmp_path), "")):
        git(tmp_path, "remote", "set-url", "origin", url)
        assert recording.record(qwen)._repository == shown


def test_a_snapshot_of_the_hub_cache_names_itself(qwen, tmp_path):
    target = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    target.parent.mkdir(parents=True)
    target.symlink_to(qwen)
    rec = recording.record(target)
    assert (rec.base.id, rec.base.revision) == ("owner/name", COMMIT)
    assert recording.record(target, base_id=f"other/name@{COMMIT[::-1]}").base.revision == COMMIT[::-1]


def test_recording_imports_no_torch_until_it_is_used():
    code = "import sys; from model_organisms import recording; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"
