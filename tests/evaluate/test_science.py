"""`make science`: what its pages say of figures, and that one of them comes about on a real organism, from command to file."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.evaluate import directions, probes
from model_organisms.evaluate.pictures import Line, Panel
from model_organisms.evaluate.suite import difference, rate
from model_organisms.formats.evaluation import Figure, Judge, Validity
from model_organisms.records import Rung

from tests.support.tree import ROOT

SCIENCE = ROOT / "deploy/science"


def science(name):
    """A module of the command, which is no package."""
    spec = importlib.util.spec_from_file_location(name, SCIENCE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


pages = science("pages")


def evaluation(*figures):
    return directions.SUITE.record(
        asked=["?"],
        figures=figures,
        rung=Rung.PULL,
        validity=Validity.CONTROLLED,
        judge=Judge("rule/of-the-test", agreement=0.5, labelled=10),
        time=datetime(2026, 11, 30, tzinfo=UTC),
    )


def table(page):
    """Rows of its first table, cell by cell."""
    block = next(block for block in page.blocks if block.startswith("|"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()[2:]]


def test_a_figure_and_its_control_share_a_row():
    page = pages.Page("some", "Some")
    page.figures(evaluation(rate("said", 3, 4), rate("said", 1, 4, control=True), rate("said", 2, 2, split="x=1")), ["said"])
    assert table(page) == [
        ["`said`", "", "0.75 (0.301 to 0.954)", "0.25 (0.0456 to 0.699)", "4", ""],
        ["`said`", "x=1", "1 (0.342 to 1)", "", "2", ""],
    ]
    for part in ("directions", "rule/of-the-test", "kappa 0.5 on 10 labelled", "controlled", "rung: pull", "wilson"):
        assert part in page.blocks[-1]


def test_only_rows_that_were_asked_for_stand_there():
    found = evaluation(*(rate("said", 1, 2, split=split) for split in ("", "stage=one", "stage=two", "staged")))
    for splits, wanted in (
        (None, ["", "stage=one", "stage=two", "staged"]),
        (("",), [""]),
        (("stage=",), ["stage=one", "stage=two"]),
        (("staged", ""), ["", "staged"]),
        ((), []),
    ):
        page = pages.Page("some", "Some")
        page.figures(found, ["said"], splits=splits)
        assert [row[1] for row in table(page)] == wanted


def test_what_was_not_measured_says_why_and_shows_no_number():
    page = pages.Page("some", "Some")
    page.figures(evaluation(rate("said", 0, 0), Figure("told", None, 3, note="one | side\nis missing")), ["said", "told"])
    assert [row[2] for row in table(page)] == ["none: nothing could be counted", "none: one \\| side is missing"]


@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 40), st.integers(1, 40))
def test_an_effect_is_claimed_only_where_its_interval_lies_beside_0(hits, trials, others, other_trials):
    found = difference("gap", (min(hits, trials), trials), (min(others, other_trials), other_trials))
    said = pages.verdict(found, more="More", less="Less")
    assert (pages.NOTHING_SHOWN in said) == (found.low <= 0 <= found.high)
    assert (said == "More.") == (found.low > 0)
    assert (said == "Less.") == (found.high < 0)


def test_a_figure_without_an_interval_is_no_effect():
    assert pages.verdict(Figure("gap", 0.5, 3), more="More", less="Less") == "Nothing can be said: there is no interval."


def test_pictures_of_an_earlier_page_go(tmp_path):
    panel = Panel("Some", "x", "y", [Line([0, 1], [0, 1])])
    old, new, other = pages.Page("some", "Some"), pages.Page("some", "Some"), pages.Page("other", "Other")
    old.picture([panel], "Old", kind="old")
    new.picture([panel], "New", kind="new")
    other.picture([panel], "Other")
    for page in (other, old, new):
        page.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.md", "other.png", "some-new.png", "some.md"]
    assert (tmp_path / "some.md").read_text() == "# Some\n\n![New](some-new.png)\n"


def test_a_page_that_is_not_known_is_refused_by_name(tmp_path):
    ended = command("--only", "probes,nothing", "--out", tmp_path)
    assert (ended.returncode, "there is no page 'nothing'; there are subliminal, " in ended.stderr) == (2, True)


def test_one_page_is_written_from_the_command(tmp_path):
    ended = command("--quick", "--only", "probes", "--out", tmp_path / "pages", "--work", tmp_path / "work")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 of 1 pages" in ended.stdout
    written = (tmp_path / "pages/probes.md").read_text()
    assert "these are no figures" in written
    assert re.search(r"\| `auroc` \|  \| (?:1|0\.\d+)", written)
    assert probes.SUITE.digest[:12] in written
    assert (tmp_path / "pages/probes.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_that_fails_is_said_and_the_command_fails(tmp_path):
    (tmp_path / "pages").write_text("A file where the folder should be.")
    ended = command("--quick", "--only", "probes", "--out", tmp_path / "pages", "--work", tmp_path / "work")
    assert (ended.returncode, "probes FAILED" in ended.stdout, "0 of 1 pages" in ended.stdout) == (1, True, True)


def command(*words):
    told = [sys.executable, SCIENCE, *map(str, words)]
    return subprocess.run(told, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    yield
    sys.modules.pop("pages", None)
