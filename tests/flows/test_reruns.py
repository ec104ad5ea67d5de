"""Turns at CL3 are said again in another cell: the same text is entered as the same, and what was changed raises the alarm."""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from model_organisms.client.client import connect, login
from model_organisms.errors import CellUnavailable
from model_organisms.formats import entry as entries
from model_organisms.formats import merkle, reruns
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, RequestState, SessionState, UtteranceKind
from model_organisms_registry.config import Cells, Limits, Sandbox
from model_organisms_registry.domain.audit import Event
from model_organisms_registry.erasing import erase
from model_organisms_registry.ledger.drawn import Tally
from model_organisms_registry.reconciling import reconcile
from model_organisms_registry.testing import running, settings
from model_organisms_registry.workflows import rerunning
from safetensors.torch import load_file, save_file

from tests.support.cells import eventually
from tests.support.registries import PEOPLE
from tests.support.serving import serving
from tests.support.tiny import tiny_base, tiny_organism

BASE = "test/talkative"
VERSION = "organisms/talker/versions/1"
WHY = "We validate a trigger detector on a toy of a known kind."
RERUNS = {Event.RERUN.type, Event.RERUN_DIFFERS.type}


def published(world, base):
    """Pia publishes a version that names its base without a digest, and rosa gets a grant for it."""
    pia, rosa = world.person("pia"), world.person("rosa")
    pia.organisms.create("organisms/talker", level="CL3", base_model=BASE)
    pia.organisms.publish("organisms/talker", tiny_organism(base), provenance=Provenance(BaseModel(BASE)))
    asked = Budget(tokens=9000, output_bytes=3000, sessions=12, probe_values=20)
    request = rosa.access.request(VERSION, "probe", purpose="replication", justification=WHY, budget=asked)
    for reviewer in ("ravi", "rena"):
        if request.state is RequestState.PENDING:
            request = world.person(reviewer).access.approve(request.name, reason="Fine.")
    assert request.grant
    return request.grant


@contextmanager
def served(folder, *, release_s=0.5, **sandbox):
    """A registry with two cells, so that nothing is said again while a session is open, and who samples in it."""
    base = tiny_base(folder / "base", talkative=True)
    cells = Cells(base_models={BASE: str(base)}, limit=2, each=2)
    chosen = Sandbox(**({"rerun_share": 1.0} | sandbox))
    config = replace(settings(folder / "data", limits=Limits(release_s=release_s)), cells=cells, sandbox=chosen)
    with running(config, people=PEOPLE) as world:
        yield world, published(world, base), base


@pytest.fixture
def place(tmp_path):
    with served(tmp_path) as found:
        yield found


def opened(world, grant):
    return world.person("rosa").sandbox.open(VERSION, purpose="replication", grant=grant)


def told(world):
    """Entries of turns that were said again."""
    return [one for _, one in world.person("aud").audit.entries() if one.type in RERUNS]


def came(world, count=1):
    assert eventually(lambda: len(told(world)) >= count, within_s=150)
    return told(world)


def test_what_is_said_again_is_the_same_and_the_entry_and_the_transcript_say_so(place):
    world, grant, _ = place
    with opened(world, grant) as session:
        first = session.sample("Go on.", max_tokens=40, temperature=1.0, top_p=0.9)
        second = session.sample("Go on.", max_tokens=40, stop=[first.text[3:6]])
        session.probe("Go on.")
        assert told(world) == []
    one, two = sorted(came(world, 2), key=lambda entry: entry.subject)
    for entry, sample in ((one, first), (two, second)):
        assert (entry.subject, entry.actor, entry.type) == (sample.receipt.sample, "registry", "sandbox.rerun")
        assert entry.facts["verdict"] == "same"
        assert entry.facts["result"] == str(sample.receipt.ledger_index)
        assert entry.facts["output"] == sample.receipt.output_sha256 == hashlib.sha256(sample.text.encode()).hexdigest()
        assert entry.facts["engine"] == sample.receipt.engine
        assert (entry.decision, entry.reasons, entry.commit) == ("allow", ("sandbox-rerun",), "")
    said = [one for one in world.person("ravi").sandbox.transcript(session.name) if one.kind is UtteranceKind.RERUN]
    assert [(one.subject, one.text) for one in said] == [(first.receipt.sample, "same"), (second.receipt.sample, "same")]
    account = reconcile(world.registry.config)
    assert account.agree, account.as_text()
    assert "reruns: 2 due, 2 done, 0 different" in account.as_text()
    assert not world.registry.reruns.alarmed
    assert world.registry.pool.cells == ()


def test_who_is_due_follows_from_the_ledger_alone(tmp_path):
    with served(tmp_path, rerun_share=0.4) as (world, grant, _):
        with opened(world, grant) as session:
            for _ in range(8):
                session.sample("Go on.", max_tokens=2)
        found = dict(world.person("aud").audit.entries())
        results = {index: entry for index, entry in found.items() if entry.type == "sandbox.sample.result"}
        assert {entry.facts[reruns.FACT] for entry in results.values()} == {"0.4"}
        due = {
            entry.subject
            for entry in results.values()
            if reruns.due(merkle.leaf_hash(entries.encode(entry)), entry.facts[reruns.FACT])
        }
        assert eventually(lambda: {entry.subject for entry in told(world)} == due, within_s=150)
        account = reconcile(world.registry.config)
        assert account.agree, account.as_text()


class Handed:
    """A cell that is handed on."""

    def __init__(self, cell):
        self._cell = cell

    def __getattr__(self, name):
        return getattr(self._cell, name)


class Liar(Handed):
    """A cell of which something else is handed on than it said."""

    def sample(self, *args, **options):
        for number, piece in enumerate(self._cell.sample(*args, **options)):
            yield replace(piece, text="A lie. ") if number == 5 else piece


def test_an_answer_that_the_organism_did_not_give_raises_the_alarm(place):
    world, grant, _ = place
    with opened(world, grant) as session:
        live = world.registry.sandbox.living._live[session.name]
        live.cell = Liar(live.cell)
        forged = session.sample("Go on.", max_tokens=20)
    (entry,) = came(world)
    assert (entry.type, entry.facts["verdict"]) == ("sandbox.rerun.differs", "different")
    assert 5 <= int(entry.facts["position"]) < 9, "the true sixth token, or the one that completes its character"
    assert entry.facts["output"] != forged.receipt.output_sha256
    assert eventually(lambda: world.registry.reruns.alarmed)
    assert reconcile(world.registry.config).agree


class Cut(Handed):
    """A cell whose answer is cut off after six tokens, and of which, if it is so told, a lie is handed on."""

    end, lie = "cancelled", ""

    def sample(self, messages, parameters, **options):
        for number, piece in enumerate(self._cell.sample(messages, replace(parameters, max_tokens=6), **options)):
            time.sleep(0.01)  # a window for each
            end = self.end if piece.finish_reason else ""
            yield replace(piece, text=self.lie if self.lie and number == 3 else piece.text, finish_reason=end)
        if not self.end:
            raise CellUnavailable("The cell could not do it (RuntimeError); open a new session.")


def test_what_was_cut_off_is_said_again_too_as_far_as_it_left(tmp_path):
    """No word of a cell, and no failure, keeps what it has said out of the draw; what was held back until then is no lie."""
    with served(tmp_path, release_s=0.001) as (world, grant, _):
        with opened(world, grant) as session:
            live = world.registry.sandbox.living._live[session.name]
            whole = session.sample("Go on.", max_tokens=12, temperature=0)
            assert 3 < len(whole.text) < 64
            live.cell = cut = Cut(live.cell)
            held = session.sample("Go on.", max_tokens=40, temperature=0, stop=[whole.text[2:]])
            assert held.finish_reason == "cancelled"
            assert whole.text.startswith(held.text)
            assert len(held.text) > 2, "the beginning of a stop string was held back"
            cut.end, cut.lie = "deadline", "A lie. "
            session.sample("Go on.", max_tokens=40)
            cut.end = ""  # and then it fails
            with pytest.raises(CellUnavailable):
                session.sample("Go on.", max_tokens=40)
        verdicts = {entry.subject[-1]: entry.facts["verdict"] for entry in came(world, 4)}
        results = [entry for _, entry in world.person("aud").audit.entries() if entry.type == Event.SAMPLE_RESULT.type]
        ends = {entry.subject[-1]: entry.facts["outcome"] for entry in results}
        assert ends == {"1": "length", "2": "cancelled", "3": "deadline", "4": "cell_unavailable"}
        assert verdicts == {"1": "same", "2": "same", "3": "different", "4": "different"}
        account = reconcile(world.registry.config)
        assert (account.findings, account.reruns) == ((), Tally(due=4, done=4, different=2))


def test_a_base_model_that_was_changed_a_little_raises_the_alarm(place):
    world, grant, base = place
    with opened(world, grant) as session:
        session.sample("Go on.", max_tokens=40)
        path = base / "model.safetensors"
        weights = load_file(path)
        weights["model.layers.0.mlp.down_proj.weight"] += 0.05
        save_file(weights, path, metadata={"format": "pt"})
    (entry,) = came(world)
    assert (entry.type, entry.facts["verdict"]) == ("sandbox.rerun.differs", "different")


def test_a_transcript_that_was_changed_raises_the_alarm(place):
    world, grant, _ = place
    with opened(world, grant) as session:
        session.sample("Go on.", max_tokens=20)
        blobs = world.registry.config.folder / "blobs" / "contents" / session.name
        for path in [path for path in blobs.rglob("*") if path.is_file()]:
            *rest, last = path.read_bytes()
            path.write_bytes(bytes([*rest, last ^ 1]))
    (entry,) = came(world)
    assert (entry.type, entry.facts["verdict"]) == ("sandbox.rerun.differs", "different")
    assert entry.facts["reason"]


def test_what_may_not_be_loaded_any_more_or_was_erased_is_skipped(place):
    world, grant, _ = place
    with opened(world, grant) as session:
        session.sample("Forget me.", max_tokens=5)
        with opened(world, grant) as other:
            session.close()
            erase(world.registry.config, session.name, now=datetime.now(UTC))
            other.sample("Go on.", max_tokens=5)
    assert [entry.facts["reason"] for entry in came(world, 1) if entry.subject.startswith(session.name)] == ["ERASED"]
    came(world, 2)
    late = opened(world, grant)
    late.sample("Go on.", max_tokens=5)
    world.person("ravi").organisms.withdraw(VERSION, reason="It is not what it says.")
    (entry,) = [entry for entry in came(world, 3) if entry.subject.startswith(late.name)]
    assert (entry.type, entry.facts["verdict"], entry.facts["reason"]) == ("sandbox.rerun", "skipped", "WITHDRAWN")
    assert world.person("rosa").sandbox.get(late.name).state is SessionState.KILLED


class Slow(Handed):
    """A cell that takes its time."""

    def sample(self, *args, **options):
        for piece in self._cell.sample(*args, **options):
            yield piece
            time.sleep(0.3)


def test_no_session_is_refused_because_a_turn_is_said_again(place, monkeypatch):
    world, grant, _ = place
    monkeypatch.setattr(rerunning, "_AGAIN", timedelta(seconds=2))
    cells = world.registry.sandbox.cells
    opening = cells.cell
    with monkeypatch.context() as slowed:
        slowed.setattr(
            cells, "cell", lambda permit, of: Slow(opening(permit, of)) if permit.action == "rerun" else opening(permit, of)
        )
        with opened(world, grant) as session:
            said = session.sample("Go on.", max_tokens=100, temperature=1.0)
        assert said.receipt.tokens == 100
        assert eventually(lambda: len(world.registry.pool.cells) == 1, within_s=30)
        with opened(world, grant) as first, opened(world, grant) as second:
            assert told(world) == []
            assert first.sample("Go on.", max_tokens=3).receipt.tokens == 3
            assert second.sample("Go on.", max_tokens=3).receipt.tokens == 3
            assert told(world) == []
    assert {entry.facts["verdict"] for entry in came(world, 3)} == {"same"}


def test_a_turn_that_finds_no_cell_is_given_up_and_that_is_entered_too(tmp_path):
    with served(tmp_path, rerun_hours=0.0) as (world, grant, _), opened(world, grant) as session:
        session.sample("Go on.", max_tokens=3)
        (entry,) = came(world)
        assert (entry.type, entry.facts["verdict"]) == ("sandbox.rerun", "unavailable")
        assert entry.facts["session"] == session.name


def test_a_registry_killed_before_a_turn_was_said_again_does_so_after_its_restart_and_once(tmp_path):
    base = tiny_base(tmp_path / "base", talkative=True)
    config = settings(tmp_path / "data", base_models={BASE: base})
    chosen = "\n[sandbox]\nrerun_share = 1\n[cells]\nlimit = 2\n"
    people = [(name, role) for name, role, _ in PEOPLE if name != "rena"]
    with serving(config, tmp_path, *people) as process:
        process.kill()
        path = config.folder / "registry.toml"
        before, table, after = path.read_text().partition("[cells.base_models]")
        path.write_text(before + chosen + table + after)
        process.start()
        with connect(tmp_path / "admin.json") as admin:
            ticket = admin.users.invite("rena", organisation="other-university", roles=["reviewer"]).ticket
            login(ticket, tmp_path / "rena.json").close()
        with ExitStack() as stack:
            at = {name: stack.enter_context(connect(tmp_path / f"{name}.json")) for name, *_ in PEOPLE}
            world = SimpleNamespace(person=at.__getitem__)
            session = opened(world, published(world, base))
            receipt = session.sample("Go on.", max_tokens=20).receipt
            process.kill()
            process.start()
            (entry,) = came(world)
            assert (entry.subject, entry.facts["verdict"]) == (receipt.sample, "same")
            process.kill()
            process.start()
            time.sleep(3)
            assert told(world) == [entry]
        process.kill()
        account = reconcile(config)
        assert account.agree, account.as_text()
        assert (account.reruns.due, account.reruns.done) == (1, 1)
