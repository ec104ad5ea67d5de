"""Where something comes from is read and printed alike, and names nothing but a repository of a hub."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.importing import source
from model_organisms.importing.source import Source, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("hf://lab/tiny", Source("lab/tiny")),
        (f"hf://lab/tiny@{COMMIT}", Source("lab/tiny", COMMIT)),
        ("hf://lab/tiny@main", Source("lab/tiny", "main")),
        ("hf://lab/tiny@refs%2Fpr%2F1", Source("lab/tiny", "refs/pr/1")),
        (f"hf://maius/llama-3.1-8b-it-personas@{COMMIT}/goodness", Source("maius/llama-3.1-8b-it-personas", COMMIT, "goodness")),
        ("hf://lab/tiny/a/b", Source("lab/tiny", "", "a/b")),
        ("hf://ModelOrganismsForEM/Qwen2.5-14B-Instruct_R1_0_1_0", Source("ModelOrganismsForEM/Qwen2.5-14B-Instruct_R1_0_1_0")),
    ],
)
def test_sources_are_read_and_printed_alike(text, read):
    assert parse(text) == read
    assert str(read) == text


def test_only_a_full_commit_pins():
    assert parse(f"hf://lab/tiny@{COMMIT}").pinned
    assert not any(parse(f"hf://lab/tiny{at}").pinned for at in ("", "@main", f"@{COMMIT[:12]}", f"@{COMMIT.upper()}"))


@pytest.mark.parametrize(
    "text",
    [
        "", "lab/tiny", "hf://lab", "hf://lab/", "hf:///tiny", "http://lab/tiny", "hf://lab/..", "hf://../tiny", "hf://lab/a..b",
        "hf://lab/tiny@", "hf://lab/tiny@../x", "hf://lab/tiny@a%2F..%2Fb", "hf://lab/tiny@a//b", "hf://lab/tiny@main/../x",
        "hf://lab/tiny/../../etc", "hf://lab/tiny/.git", "hf://lab/tiny/con", "hf://lab/tiny@main/a@b", "hf://lab/ti ny",
        "hf://lab/tiny@ma in", "hf://lab/tiny@%00", "hf://lab/tiny\n", "hf://lab/tiny@main?x=1", "hf://lab/tiny#x", "hf://ł/tiny",
    ],
)  # fmt: skip
def test_other_forms_are_refused_and_told_how_to_write(text):
    with pytest.raises(InvalidArgument, match=r"hf://owner/name") as caught:
        parse(text)
    assert caught.value.message.isprintable()


PART = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,20}", fullmatch=True)
DEVICES = {"con", "prn", "aux", "nul"}


@given(
    owner=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True),
    name=PART,
    revision=st.one_of(st.just(""), PART, st.builds("{}/{}".format, PART, PART)),
    folder=st.lists(
        PART.filter(lambda part: part.lower() not in DEVICES and not part.lower().startswith(("com", "lpt"))), max_size=3
    ),
)
def test_what_is_printed_is_read_again(owner, name, revision, folder):
    made = Source(f"{owner}/{name}", revision, "/".join(folder))
    assert parse(str(made)) == made


@given(st.text(max_size=60))
def test_any_text_is_a_source_that_prints_back_or_an_error(text):
    try:
        found = parse("hf://" + text)
    except InvalidArgument:
        return
    assert parse(str(found)) == found
    assert source.is_repository(found.repository)
    assert ".." not in found.repository + found.folder
