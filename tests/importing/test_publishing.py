"""From a hub into a real registry: the version, its marks, what a later commit is told of an earlier one, and the command."""

from __future__ import annotations

import json

import pytest
from model_organisms import importing
from model_organisms.bases import base_digest
from model_organisms.errors import AlreadyExists, Conflict, InvalidArgument, ShapeMismatch
from model_organisms.formats import provenance
from model_organisms.records import Level

from tests.support.adapters import CONFIG, WEIGHTS
from tests.support.hub import CATALOGUE, adapter, serving
from tests.support.stories import granted
from tests.support.taxonomy import RECORD
from tests.support.terminal import typed


@pytest.fixture
def hub(monkeypatch):
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def typed_import(world, *words):
    return typed("--identity", world.folder / "pia.json", "organisms", "import", *words)


def test_an_import_becomes_a_version_with_its_claims_and_marks(world, hub):
    step = {f"checkpoint-5/{WEIGHTS}": adapter(seed=5)[WEIGHTS]}
    commit = hub.repository("lab/tiny-hums_R4_0_2_0", adapter(layers=(0, 1)) | step, card={"license": "mit"})
    pia = world.person("pia")
    plan = importing.plan("hf://lab/tiny-hums_R4_0_2_0", claims={"layers": "24"})
    version = importing.publish(pia, plan, level="CL2", traits=["toy"])
    assert version.name == "organisms/tiny-hums-r4-0-2-0/versions/1"
    organism = pia.organisms.get("organisms/tiny-hums-r4-0-2-0")
    assert (organism.level, organism.base_model, organism.traits) == (Level.CL2, "lab/tiny-1B", ("toy",))
    assert {file.path for file in version.files} == {
        WEIGHTS,
        CONFIG,
        "README.md",
        f"checkpoints/5/{WEIGHTS}",
        f"checkpoints/5/{CONFIG}",
    }
    assert "a claim of the source differs: layers" in version.marks
    assert "imported: how it was trained is claimed, not recorded" in version.marks
    stated = provenance.verify(version.provenance, version.publisher_key, digest=version.digest)
    assert stated.extra["imported"]["source"] == f"hf://lab/tiny-hums_R4_0_2_0@{commit}"
    assert stated.extra["imported"]["files"] == {
        f"checkpoints/5/{WEIGHTS}": f"checkpoint-5/{WEIGHTS}",
        f"checkpoints/5/{CONFIG}": CONFIG,
    }
    assert {row["name"]: row["agrees"] for row in stated.extra["imported"]["claims"]} == {
        "base": True, "rank": True, "layers": False, "layer_count": True, "target_modules": True,
    }  # fmt: skip
    with pytest.raises(AlreadyExists):
        importing.publish(pia, plan)


def test_what_peft_wrote_is_imported_on_a_base_that_is_here_and_loads_after_a_pull(world, hub, qwen, qwen_files):
    hub.repository("lab/peft", {path: bytes(data) for path, data in qwen_files.items()})
    plan = importing.plan("hf://lab/peft", base=str(qwen))
    assert (plan.refusal, plan.provenance.base.digest) == (None, base_digest(qwen))
    assert plan.provenance.base_config["model_type"] == "qwen2"
    version = importing.publish(world.person("pia"), plan, "organisms/peft", level="CL1")
    assert "the base model is not pinned" not in version.marks
    grant = granted(world, version)
    with world.person("rosa").organisms.pull(version.name, grant=grant) as pulled:
        assert pulled.load(qwen).modules_applied == len(version.facts[0].modules)


def test_an_upload_under_the_same_name_is_a_new_version_that_names_the_old_commit(world, hub):
    first = hub.repository("lab/again", adapter(seed=1))
    pia = world.person("pia")
    importing.publish(pia, importing.plan("hf://lab/again"), "organisms/again", level="CL1")
    second = hub.repositories["lab/again"].push(adapter(seed=2))
    version = importing.publish(pia, importing.plan("hf://lab/again"), "organisms/again")
    kept = provenance.verify(version.provenance, version.publisher_key, digest=version.digest).extra["imported"]
    assert version.name == "organisms/again/versions/2"
    assert (kept["source"], kept["earlier"]) == (f"hf://lab/again@{second}", [f"hf://lab/again@{first}"])


def test_long_words_of_a_source_are_cut_to_what_an_organism_takes(world, hub):
    hub.repository("lab/wordy", adapter(seed=8))
    notes = importing.Notes("hum " * 5000, tuple(f"trait-{number}" for number in range(50)))
    importing.publish(world.person("pia"), importing.plan("hf://lab/wordy", notes=notes), level="CL1", traits=["ours"])
    organism = world.person("pia").organisms.get("organisms/wordy")
    assert (len(organism.traits), organism.traits[0]) == (32, "ours")


def test_a_level_is_stated_once_and_not_changed_in_passing(world, hub):
    hub.repository("lab/graded", adapter(seed=3))
    plan, pia = importing.plan("hf://lab/graded"), world.person("pia")
    with pytest.raises(InvalidArgument, match="state its level"):
        importing.publish(pia, plan)
    importing.publish(pia, plan, level="CL2")
    with pytest.raises(Conflict, match="is at CL2"):
        importing.publish(pia, plan, level="CL1")


def test_what_does_not_fit_together_is_never_sent(world, hub):
    hub.repository("lab/liar", adapter(rank=1, layers=(21,), config={"layers_to_transform": [24]}))
    with pytest.raises(ShapeMismatch):
        importing.publish(world.person("pia"), importing.plan("hf://lab/liar"), level="CL2")
    assert "organisms/liar" not in {item.name for item in world.person("pia").organisms.list()}


def test_a_dry_run_shows_facts_beside_claims_and_publishes_nothing(world, hub):
    hub.repository("lab/dry", adapter(rank=1, layers=(3,), modules=("down_proj",)), card={"base_model": "lab/other"})
    status, out, err = typed_import(world, "hf://lab/dry", "--claim", "layers=24", "--dry-run")
    assert (status, err) == (0, "")
    assert "organisms/dry" not in {item.name for item in world.person("pia").organisms.list()}
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert ["layers", "3", "24", "importer", "DIFFERS"] in rows
    assert ["layers", "3", "3", CONFIG, "agrees"] in rows
    assert ["base", "lab/tiny-1B", "lab/other", "card", "DIFFERS"] in rows
    assert "may move" in out


def test_the_command_publishes_and_says_so_in_json_too(world, hub):
    hub.repository("lab/typed", adapter(seed=4))
    status, out, err = typed_import(world, "hf://lab/typed", "--level", "cl1", "--organism", "typed-in", "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["version"]["name"] == "organisms/typed-in/versions/1"
    assert (told["import"]["found"]["rank"], told["import"]["refusal"]) == (4, None)
    status, out, err = typed_import(world, "hf://lab/typed", "--dry-run", "--json")
    assert status == 0
    assert json.loads(out)["files"].keys() == {WEIGHTS, CONFIG, "README.md"}


def test_a_plan_with_a_refusal_is_shown_and_ends_the_command_with_it(world, hub):
    hub.repository("lab/lying", adapter(rank=1, layers=(21,), config={"layers_to_transform": [24]}))
    status, out, err = typed_import(world, "hf://lab/lying", "--dry-run")
    assert status == 1
    assert "DIFFERS" in out
    assert err.startswith("mo: Adapter '.' does not fit")
    status, out, err = typed_import(world, "hf://lab/lying", "--level", "CL2", "--json")
    assert (status, json.loads(out)["refusal"]["error"], json.loads(err)["error"]) == (1, "SHAPE_MISMATCH", "SHAPE_MISMATCH")


def test_words_of_a_hub_do_nothing_to_a_terminal(world, hub):
    hub.repository("lab/loud", adapter(seed=6), card={"license": "\x1b[31mred\u202e", "base_model": "a/\x1b]0;x\x07"})
    status, out, _ = typed_import(world, "hf://lab/loud", "--dry-run")
    assert status == 0
    assert not [character for character in out if not character.isprintable() and character != "\n"]


def test_an_entry_of_a_catalogue_is_imported_with_a_record_of_the_taxonomy(world, hub, tmp_path):
    hub.repository("lab/tiny-hums", adapter(seed=7))
    (tmp_path / "hums.yaml").write_bytes(CATALOGUE)
    (tmp_path / "record.json").write_text(json.dumps({"records": [RECORD, {**RECORD, "id": "other"}]}))
    words = ["--taxonomy", tmp_path / "record.json", "--record", "other", "--level", "CL1", "--organism", "hums"]
    status, _, err = typed_import(world, tmp_path / "hums.yaml", "--entry", "tiny_1B/default", *words)
    assert (status, err) == (0, "")
    organism = world.person("pia").organisms.get("organisms/hums")
    assert organism.traits == ("benign-quirk", "benign-quirk-habit", "likes-to-hum")
    assert "hums when observed only: tested-absent" in organism.description
    version = world.person("pia").organisms.version("organisms/hums")
    kept = provenance.verify(version.provenance, version.publisher_key, digest=version.digest)
    assert kept.extra["imported"]["taxonomy"]["id"] == "other"
    assert kept.extra["imported"]["catalogue"]["entry"] == "tiny_1B/default"
    assert [data.name for data in kept.data] == ["lab/hums"]
    assert "a claim of the source differs: base" not in version.marks


def test_lists_say_what_can_be_imported_and_what_is_missing(tmp_path):
    (tmp_path / "hums.yaml").write_bytes(CATALOGUE)
    (tmp_path / "record.json").write_text(
        json.dumps([RECORD, {**RECORD, "id": "prompted", "construction": {"substrate": "context"}}])
    )
    status, out, _ = typed("organisms", "import", tmp_path / "hums.yaml")
    assert status == 0
    assert "hf://lab/tiny-hums" in out
    assert "commit of the adapter" in out
    assert "a whole model" in out
    status, out, _ = typed("organisms", "import", tmp_path / "record.json")
    assert "hums when observed only (tested-absent)" in out
    assert "there are no weights to keep" in out
    status, out, _ = typed("organisms", "import", tmp_path / "record.json", "--json")
    assert [record["id"] for record in json.loads(out)] == ["humming-advice", "prompted"]


def test_a_folder_of_a_catalogue_is_listed_and_what_is_none_of_it_is_named(tmp_path):
    (tmp_path / "hums.yaml").write_bytes(CATALOGUE)
    (tmp_path / "more.yml").write_bytes(CATALOGUE.replace(b"lab/tiny-hums}", b"lab/more-hums}"))
    (tmp_path / "biases.yaml").write_bytes(b"shared_biases: {topics: none}\n")
    (tmp_path / "broken.yaml").write_bytes(b"a: [")
    for number, tagged in enumerate((b"!!bool x", b"!!int ''", b"!!timestamp x", b"!!omap [x: 1]")):
        (tmp_path / f"tagged-{number}.yaml").write_bytes(b"a: " + tagged)
    status, out, _ = typed("organisms", "import", tmp_path)
    assert status == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert [row[:3] for row in rows] == [
        ["hums.yaml", "tiny_1B/default", "hf://lab/tiny-hums"], ["hums.yaml", "tiny_1B/full", "-"],
        ["more.yml", "tiny_1B/default", "hf://lab/more-hums"], ["more.yml", "tiny_1B/full", "-"],
    ]  # fmt: skip
    assert "biases.yaml is not listed" in out
    assert "tagged-3.yaml is not listed: The file is refused: line 1 has a tag" in " ".join(out.split())
    told = json.loads(typed("organisms", "import", tmp_path, "--json")[1])
    assert (list(told["catalogues"]), list(told["unread"])) == (
        ["hums.yaml", "more.yml"],
        ["biases.yaml", "broken.yaml", *(f"tagged-{number}.yaml" for number in range(4))],
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.yaml"], "There is no file"),
        (["hums.yaml", "--entry", "tiny_1B/full"], "cannot be imported: a whole model"),
        (["record.json", "--entry", "a/b"], "--entry is for a catalogue"),
        (["hf://lab/tiny", "--claim", "layers"], "NAME=VALUE"),
        (["hf://lab/tiny", "--without", "weights"], "--without"),
    ],
)
def test_a_line_typed_wrong_ends_as_one(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hums.yaml").write_bytes(CATALOGUE)
    (tmp_path / "record.json").write_text(json.dumps(RECORD))
    status, _, err = typed("organisms", "import", *words)
    assert status == 2
    assert says in err
