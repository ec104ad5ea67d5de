"""Which files are taken of a repository: as real ones are laid out, as hostile hubs list them, and what is said of the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidBundle, UnsafeFile
from model_organisms.formats.paths import adapter_folders, check_paths, checkpoint_folders
from model_organisms.importing.arranging import Part, arrange

W, C = "adapter_model.safetensors", "adapter_config.json"


def test_a_repository_with_the_path_of_its_training_is_taken_whole():
    paths = [
        ".gitattributes", "README.md", W, C, "tokenizer.json", "chat_template.jinja", "training_args.bin", "Loss curve.png",
        f"checkpoints/checkpoint-5/{W}", f"checkpoints/checkpoint-5/{C}", "checkpoints/checkpoint-5/trainer_state.json",
        "checkpoints/checkpoint-5/optimizer.pt", f"checkpoints/checkpoint-10/{W}", "checkpoints/checkpoint-10/trainer_state.json",
        f"checkpoint-15/{W}", f"checkpoint-15/{C}", f"checkpoints/20/{W}", f"checkpoints/checkpoint-25/{C}",
    ]  # fmt: skip
    made = arrange(paths)
    assert made.taken == {
        "README.md": "README.md", W: W, C: C, "tokenizer.json": "tokenizer.json", "chat_template.jinja": "chat_template.jinja",
        f"checkpoints/5/{W}": f"checkpoints/checkpoint-5/{W}", f"checkpoints/5/{C}": f"checkpoints/checkpoint-5/{C}",
        f"checkpoints/10/{W}": f"checkpoints/checkpoint-10/{W}", f"checkpoints/10/{C}": C,
        f"checkpoints/15/{W}": f"checkpoint-15/{W}", f"checkpoints/15/{C}": f"checkpoint-15/{C}",
        f"checkpoints/20/{W}": f"checkpoints/20/{W}", f"checkpoints/20/{C}": C,
    }  # fmt: skip
    assert made.lent == (10, 20)
    assert made.state == "checkpoints/checkpoint-10/trainer_state.json"
    assert set(made.left_out) == set(paths) - set(made.taken.values())
    assert "runs code" in made.left_out["training_args.bin"]
    assert "curves" in made.left_out[made.state]
    assert "no safetensors beside it" in made.left_out[f"checkpoints/checkpoint-25/{C}"]


def test_what_is_not_asked_for_is_left_out():
    paths = [W, C, "tokenizer.json", f"checkpoint-5/{W}", f"checkpoint-5/{C}", "trainer_state.json"]
    made = arrange(paths, without=[Part.CHECKPOINTS, Part.TOKENIZER])
    assert set(made.taken) == {W, C}
    assert made.state == "trainer_state.json"


def test_one_adapter_of_several_is_taken_by_its_folder_with_the_card_of_all():
    paths = ["README.md", f"goodness/{W}", f"goodness/{C}", f"humor/{W}", f"humor/{C}"]
    assert arrange(paths, folder="humor").taken == {"README.md": "README.md", W: f"humor/{W}", C: f"humor/{C}"}
    with pytest.raises(InvalidBundle, match=r"folders \(goodness, humor\)"):
        arrange(paths)


@pytest.mark.parametrize(
    ("paths", "error", "says"),
    [
        ([".gitattributes"], InvalidBundle, "is empty: no adapter in 1 files"),
        ([], InvalidBundle, "is empty"),
        ([".gitattributes", "README.md"], InvalidBundle, "siblings"),
        ([C, "adapter_model.bin"], UnsafeFile, "pickle only"),
        ([C, "steering_vector.pt"], UnsafeFile, "steering_vector.pt"),
        (["config.json", "pytorch_model-00001-of-00002.bin"], UnsafeFile, "safetensors"),
        (["config.json", "model.safetensors"], InvalidBundle, "a whole model"),
        (["config.json", "model-00001-of-00006.safetensors"], InvalidBundle, "a whole model"),
        ([W], InvalidBundle, f"no {C}"),
        ([f"0/{W}", f"0/{C}"], InvalidBundle, "folders"),
    ],
)
def test_where_no_adapter_is_it_is_said_what_there_is(paths, error, says):
    with pytest.raises(error, match=says) as caught:
        arrange(paths)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/passwd", "a//b", "a\\b", "./x", "a/.", "x\n", "\u202ex", "a\x00b", ""]
)
def test_a_hub_that_lists_names_which_climb_out_is_not_believed(path):
    with pytest.raises(UnsafeFile, match="nothing was fetched") as caught:
        arrange([W, C, path])
    assert caught.value.message.isprintable()


WORDS = st.sampled_from(
    [W, C, "checkpoints", "checkpoint-5", "5", "0", "README.md", "x", "tokenizer.json", "adapter_model.bin", "..", "a b"]
)


@given(st.lists(st.lists(WORDS, min_size=1, max_size=3).map("/".join), max_size=12, unique=True))
def test_what_is_taken_is_always_a_bundle(paths):
    try:
        made = arrange(paths)
    except (InvalidBundle, UnsafeFile):
        return
    check_paths(made.taken)
    assert adapter_folders(made.taken) == ("",)
    checkpoint_folders(made.taken)
    assert set(made.taken.values()) <= set(paths)
    assert set(made.left_out).isdisjoint(made.taken.values())
    assert set(made.left_out) | set(made.taken.values()) == set(paths)
