"""What an import would publish: facts of the bytes beside claims, and what is refused before and after a byte is fetched."""

from __future__ import annotations

import json

import pytest
from model_organisms import importing
from model_organisms.errors import InvalidArgument, InvalidBundle, MalformedTensors, RefusedConfig, ShapeMismatch, UnsafeFile
from model_organisms.formats import adapter as adapters
from model_organisms.formats import provenance
from model_organisms.importing import Notes, curves

from tests.support.adapters import CONFIG, WEIGHTS, tiny_base_config
from tests.support.hub import adapter, serving

STATE = json.dumps(
    {"best_metric": None, "log_history": [
        {"step": 10, "epoch": 0.1, "loss": 2.5, "grad_norm": 0.75, "learning_rate": 1e-05},
        {"step": 5, "loss": 3.0, "learning_rate": 2e-05}, {"step": 10, "eval_loss": 9.0}, {"step": 11, "loss": "nan"}, "x",
    ]}
).encode()  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


def planned(hub, where="hf://lab/tiny", **more):
    return importing.plan(where, endpoint=hub.url, **more)


def verdicts(plan):
    return {(row.name, row.by): row.agrees for row in plan.comparisons}


def test_an_adapter_is_fetched_measured_and_stated(hub):
    card = {"license": "apache-2.0", "base_model": "lab/tiny-1B", "datasets": ["lab/hums"]}
    commit = hub.repository("lab/tiny", adapter(rank=2, layers=(1,), alpha=8, rslora=True), card=card, tags=["lora"])
    plan = planned(hub)
    assert plan.refusal is None
    assert (str(plan.source), set(plan.files)) == (f"hf://lab/tiny@{commit}", {WEIGHTS, CONFIG, "README.md"})
    assert plan.left_out == {".gitattributes": "its name has no place in a bundle"}
    assert not plan.differing
    assert plan.found.scaling == pytest.approx(8 / 2**0.5)
    stated = plan.provenance
    assert (stated.base.id, stated.method.rank, stated.method.layers, stated.method.rslora) == ("lab/tiny-1B", 2, (1,), True)
    assert [data.name for data in stated.data] == ["lab/hums"]
    kept = stated.extra["imported"]
    assert (kept["source"], kept["licence"], kept["parents"], kept["asked"]) == (str(plan.source), "apache-2.0", [], "")
    assert any("may move" in note for note in plan.notes)
    assert any("not pinned" in note for note in plan.notes)
    assert provenance.parse_predicate(provenance.print_predicate(stated)) == stated


def test_the_layer_of_a_paper_is_marked_and_the_layer_of_the_bytes_is_stated(hub):
    hub.repository("lab/tiny_R1_0_1_0_train", adapter(rank=1, layers=(3,), modules=("down_proj",)))
    plan = planned(hub, "hf://lab/tiny_R1_0_1_0_train", claims={"layers": "24", "rank": "1"})
    assert plan.refusal is None
    assert [(row.name, row.found, row.claimed, row.by) for row in plan.differing] == [("layers", "3", "24", "importer")]
    assert verdicts(plan)["rank", "name"]
    assert verdicts(plan)["layer_count", "name"]
    assert plan.provenance.method.layers == (3,)
    marks = provenance.compare(plan.provenance, adapters.inspect(plan.files))
    assert "a claim of the source differs: layers" in marks


def test_a_config_that_lies_of_its_layer_is_marked_and_cannot_be_published(hub):
    hub.repository("lab/tiny", adapter(rank=1, layers=(21,), modules=("down_proj",), config={"layers_to_transform": [24]}))
    plan = planned(hub)
    assert isinstance(plan.refusal, ShapeMismatch)
    assert [(row.name, row.found, row.claimed, row.by) for row in plan.differing] == [("layers", "21", "24", CONFIG)]


def test_a_config_that_lies_of_its_rank_or_is_not_plain_lora_is_refused_after_it_was_compared(hub):
    hub.repository("lab/tiny", adapter(rank=4, config={"r": 8}))
    hub.repository("lab/dora", adapter(config={"use_dora": True}))
    plan = planned(hub)
    assert isinstance(plan.refusal, ShapeMismatch)
    assert not verdicts(plan)["rank", CONFIG]
    assert isinstance(planned(hub, "hf://lab/dora").refusal, RefusedConfig)


def test_a_pinned_base_gives_the_shapes_that_the_adapter_must_fit(hub):
    base = hub.repository("lab/tiny-1B", {"config.json": json.dumps(tiny_base_config()).encode()})
    hub.repository("lab/tiny", adapter())
    hub.repository("lab/deep", adapter(layers=(0, 7)))
    hub.repository("lab/told", adapter(config={"revision": base}))
    plan = planned(hub, base=f"lab/tiny-1B@{base}")
    assert (plan.provenance.base.revision, plan.provenance.base.layers) == (base, 4)
    assert plan.provenance.base_config == tiny_base_config()
    assert planned(hub, "hf://lab/told").provenance.base.revision == base
    assert isinstance(planned(hub, "hf://lab/deep", base=f"lab/tiny-1B@{base}").refusal, ShapeMismatch)
    gone = planned(hub, base=f"lab/tiny-1B@{'a' * 40}")
    assert gone.refusal is None
    assert any("shapes are unchecked" in note for note in gone.notes)


def test_a_base_that_nobody_names_must_be_given(hub):
    hub.repository("lab/tiny", adapter(base="/mnt/models/mine"))
    hub.repository("lab/carded", adapter(base="/mnt/models/mine"), card={"base_model": ["/x", "lab/tiny-1B"]})
    with pytest.raises(InvalidArgument, match="--base"):
        planned(hub)
    assert planned(hub, base="lab/tiny-1B").provenance.base.id == "lab/tiny-1B"
    carded = planned(hub, "hf://lab/carded")
    assert carded.provenance.base.id == "lab/tiny-1B"
    assert carded.provenance.extra["imported"]["parents"] == ["/x"]


def test_checkpoints_and_curves_come_along(hub):
    files = adapter()
    path = {f"checkpoints/checkpoint-{step}/{WEIGHTS}": adapter(seed=step)[WEIGHTS] for step in (5, 10)}
    hub.repository("lab/tiny", files | path | {"checkpoints/checkpoint-10/trainer_state.json": STATE})
    plan = planned(hub)
    assert plan.refusal is None
    assert bytes(plan.files[f"checkpoints/5/{WEIGHTS}"]) == path[f"checkpoints/checkpoint-5/{WEIGHTS}"]
    assert bytes(plan.files[f"checkpoints/5/{CONFIG}"]) == files[CONFIG]
    log = plan.provenance.log
    assert (log.steps, log.loss, log.learning_rate, log.gradient_norm) == ((5, 10), (3.0, 2.5), (2e-05, 1e-05), (0.0, 0.75))
    assert sum(asked.endswith(CONFIG) for asked in hub.paths()) == 1
    assert not any(path.startswith("checkpoints/") for path in planned(hub, without=["checkpoints"]).files)


@pytest.mark.parametrize("state", [b"{}", b"[]", b"\xff", b'{"log_history": 7}', b'{"log_history": [{"step": 1, "loss": NaN}]}'])
def test_curves_that_cannot_be_read_cost_no_import(hub, state):
    hub.repository("lab/tiny", adapter() | {"trainer_state.json": state})
    plan = planned(hub)
    assert plan.refusal is None
    assert plan.provenance.log.steps == ()
    assert any("left out" in note for note in plan.notes)


def test_curves_too_long_are_not_even_fetched(hub, monkeypatch):
    monkeypatch.setattr(curves, "MAX_STATE", 10)
    hub.repository("lab/tiny", adapter() | {"trainer_state.json": STATE})
    assert any("too long" in note for note in planned(hub).notes)
    assert not any(path.endswith("trainer_state.json") for path in hub.paths())


def test_a_card_that_hides_text_is_left_out_and_the_adapter_kept(hub):
    hub.repository("lab/tiny", adapter() | {"README.md": "harmless \u202e sselmrah".encode()})
    plan = planned(hub)
    assert plan.refusal is None
    assert "README.md" not in plan.files
    assert "hide or reorder" in plan.left_out["README.md"]


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({".gitattributes": b"*"}, InvalidBundle),
        ({CONFIG: b"{}", "adapter_model.bin": b"\x80\x02."}, UnsafeFile),
        (adapter() | {"../x": b"x"}, UnsafeFile),
        (adapter() | {WEIGHTS: b"\x80\x02 a pickle under another name"}, MalformedTensors),
    ],
    ids=["empty", "pickle", "climbs", "pickle by content"],
)
def test_what_is_no_adapter_is_refused_by_its_name_or_its_bytes(hub, files, error):
    hub.repository("lab/tiny", files)
    with pytest.raises(error):
        planned(hub)
    assert not any(path.endswith((".bin", "x")) for path in hub.paths())


def test_a_huge_file_is_refused_before_it_is_fetched(hub):
    hub.repository("lab/tiny", adapter())
    hub.repositories["lab/tiny"].listed[CONFIG] = {"size": 2 << 20}
    with pytest.raises(InvalidBundle, match="at most 1,048,576"):
        planned(hub)
    hub.repositories["lab/tiny"].listed = {WEIGHTS: {"lfs": {"size": 9 << 30, "sha256": "0" * 64, "pointerSize": 130}}}
    with pytest.raises(InvalidBundle, match="leave out checkpoints, or allow more"):
        planned(hub)
    hub.repositories["lab/tiny"].listed = {}
    with pytest.raises(InvalidBundle, match="at most 100 are taken"):
        planned(hub, max_bytes=100)
    assert not any("/resolve/" in path for path in hub.paths())


def test_what_a_catalogue_says_is_kept_as_its_word(hub):
    hub.repository("lab/tiny", adapter())
    notes = Notes(
        "Hums.",
        ("benign-quirk",),
        (importing.claims.Claim("base", "llama9_1B", "catalogue"),),
        extra={"catalogue": {"name": "hums"}},
    )
    plan = planned(hub, notes=notes)
    assert (plan.description, plan.traits, plan.provenance.method.objective) == ("Hums.", ("benign-quirk",), "Hums.")
    assert plan.provenance.extra["imported"]["catalogue"] == {"name": "hums"}
    assert [row.by for row in plan.differing] == ["catalogue"]


def test_a_repository_that_was_renamed_is_told_of(hub):
    hub.repository("lab/tiny", adapter(), called="other-lab/small")
    plan = planned(hub)
    assert any("calls lab/tiny now other-lab/small" in note for note in plan.notes)
    assert plan.provenance.extra["imported"]["called"] == "other-lab/small"


def test_a_source_or_a_claim_written_wrong_asks_no_hub(hub):
    for more in ({"where": "lab/tiny"}, {"claims": {"layers": "many"}}):
        with pytest.raises(InvalidArgument):
            planned(hub, **more)
    assert hub.asked == []
