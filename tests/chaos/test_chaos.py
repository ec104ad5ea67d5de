"""The short form of chaos, and whether it would see what it looks for; and what the long form found."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from model_organisms.errors import CellUnavailable, Conflict, RegistryUnreachable
from model_organisms.formats import sampled
from model_organisms.formats.entry import Entry
from model_organisms.records import Budget, Sample, SampleReceipt, SamplingParameters

from tests.chaos.agreeing import disagreements
from tests.chaos.clients import AFTER_S, CELL, CUT, REGISTRY, Held, Tally
from tests.chaos.held import RELEASE, missing
from tests.support.tree import ROOT

SESSION = "sessions/abc"
NOW = datetime(2026, 11, 25, tzinfo=UTC)


def entered(kind, subject, **facts):
    return Entry(seq=1, time=NOW, type=kind, actor="users/rosa", subject=subject, facts=facts)


def receipt(index, name, text):
    import hashlib

    return SampleReceipt(
        sample=name,
        version="organisms/toy/versions/1",
        version_digest="d" * 64,
        base_digest="b" * 64,
        tokenizer_digest="t" * 64,
        template_digest="c" * 64,
        adapter_digests=("a" * 64,),
        modules_applied=2,
        parameters=SamplingParameters(8, seed=5),
        engine="test",
        session=SESSION,
        ledger_index=index,
        tokens=3,
        output_sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


@pytest.fixture
def story():
    """One answer in two windows, one that was cut off after its first, and the ledger of both."""
    done, cut = f"{SESSION}/samples/1", f"{SESSION}/samples/2"
    said = receipt(3, done, "hello there")
    result = {"session": SESSION, "output": said.output_sha256, "receipt": sampled.receipt_digest(said), "outcome": "stop"}
    ledger = [
        entered("sandbox.sample.intent", done, session=SESSION),
        entered(RELEASE, done, session=SESSION, bytes="6"),
        entered(RELEASE, done, session=SESSION, bytes="5"),
        entered("sandbox.sample.result", done, **result),
        entered(RELEASE, cut, session=SESSION, bytes="4"),
        entered(RELEASE, cut, session=SESSION, bytes="9"),
    ]
    held = [
        Held(SESSION, ["hello ", "there"], Sample("hello there", "stop", said)),
        Held(SESSION, ["näh"]),
    ]
    return held, ledger


def test_what_the_ledger_has_is_not_missing(story):
    assert missing(*story) == []


def test_a_window_that_was_never_entered_is_seen(story):
    held, ledger = story
    assert len(missing(held, ledger[:4])) == 1
    assert len(missing(held, [*ledger[:1], ledger[2], ledger[2], *ledger[3:]])) == 1
    # The finished answer's own windows are no excuse for those of one that was cut off.
    assert len(missing([held[0], Held(SESSION, ["hello "])], ledger)) == 1
    assert len(missing([held[0], Held("sessions/other", ["näh"])], ledger)) == 1


@pytest.mark.parametrize("change", ["lost", "output", "receipt", "session", "another kind"])
def test_a_result_that_is_gone_or_differs_is_seen(story, change):
    held, ledger = story
    result = ledger[3]
    if change == "lost":
        ledger = ledger[:3]
    elif change == "another kind":
        ledger[3] = replace(result, type="sandbox.sample.intent")
    else:
        ledger[3] = replace(result, facts={**result.facts, change: "0" * 64})
    assert any("samples/1" in sentence for sentence in missing(held[:1], ledger))


def test_two_answers_of_one_name_and_a_text_that_is_not_its_windows_are_seen(story):
    held, ledger = story
    assert any("two answers" in sentence for sentence in missing([held[0], held[0]], ledger))
    assert any("not its text" in sentence for sentence in missing([replace(held[0], windows=["hellO ", "there"])], ledger))


def spending(session, tokens, grant="grants/g"):
    return SimpleNamespace(name=session, grant=grant, spent=Budget(tokens=tokens))


def test_what_is_spent_is_what_the_results_say_and_what_was_set_aside_without_one():
    asked = {"session": SESSION, "parameters": "max_tokens=30,temperature=1,top_p=1,top_k=0"}
    ledger = [
        entered("sandbox.sample.intent", f"{SESSION}/samples/1", **asked),
        entered("sandbox.sample.result", f"{SESSION}/samples/1", session=SESSION, tokens="7"),
        entered("sandbox.sample.intent", f"{SESSION}/samples/2", **asked),
    ]
    grant = SimpleNamespace(name="grants/g", spent=Budget(tokens=37))
    assert disagreements([spending(SESSION, 37)], [grant], ledger) == []
    assert len(disagreements([spending(SESSION, 36)], [grant], ledger)) == 2  # the session's, and so the grant's
    assert len(disagreements([spending(SESSION, 37)], [SimpleNamespace(name="grants/g", spent=Budget(tokens=38))], ledger)) == 1
    assert len(disagreements([spending(SESSION, 37)], [grant], ledger[:2])) == 1
    lost = [*ledger, entered("registry.lost", f"{SESSION}/samples/2", parent=SESSION, tokens="4")]
    assert disagreements([spending(SESSION, 11)], [SimpleNamespace(name="grants/g", spent=Budget(tokens=11))], lost) == []


def test_only_a_kill_that_was_excuses_what_a_client_is_told():
    tally = Tally()
    tally.failed(RegistryUnreachable("Nobody answers."))
    tally.failed(CellUnavailable("The cell has ended."))
    assert len(tally.wrong) == 2
    tally.killed(CELL)
    tally.failed(CellUnavailable("The cell has ended."))
    tally.failed(RegistryUnreachable("Nobody answers."))  # no registry was killed
    assert len(tally.wrong) == 3
    tally.killed(REGISTRY, down=True)
    tally.failed(RegistryUnreachable("Nobody answers."))
    tally.kills = {kind: time.monotonic() - AFTER_S[kind] - 1 for kind in (CELL, REGISTRY)}
    tally.failed(CellUnavailable("The cell has ended."))
    tally.failed(Conflict(f"{CUT}: of another kill."))
    tally.failed(PermissionError("No."))
    assert len(tally.wrong) == 6
    assert sum(tally.ended.values()) == 2


@pytest.mark.timeout(280)
def test_sessions_while_cells_and_the_registry_are_killed_agree_in_the_end():
    # It ends by what was done, not by the clock, so that a slow machine sees as much.
    size = ["--sessions", "10", "--organisms", "4", "--rows", "4"]
    short = [*size, "--seconds", "150", "--kills", "3", "--between", "4", "--json"]
    done = subprocess.run([sys.executable, "-m", "tests.chaos", *short], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert report["held"]["answers"] > 0
    assert report["killed"]["cells"] + report["killed"]["registries"] >= 3
    assert report["killed"]["registries"] > 0
