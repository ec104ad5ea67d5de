"""What is said in a session: intent, work, entry, release. Nothing leaves before the ledger entry that commits to it is durable.

Text is released in windows: every half second or so what the cell has drawn is sealed, committed to, entered, and then yielded.
For who wants only the whole answer, windows are longer; at the next, a client that went away is noticed, and a reviewer sees it.
A crash between intent and result leaves an intent that shows as unfinished, and text that never left.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import CellUnavailable, ModelOrganismsError
from model_organisms.formats import sampled
from model_organisms.records import Budget, Sample, SampleReceipt, SamplingParameters

from model_organisms_registry.domain import sandbox as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.budgets import within
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.workflows import asking, finding, standing
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.living import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from datetime import datetime

    from model_organisms.records import Message, Receipt, Session

    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.catalog.sandbox import Content
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.asking import Question
    from model_organisms_registry.workflows.changes import Changes
    from model_organisms_registry.workflows.drawing import Draw
    from model_organisms_registry.workflows.sandbox import Sandbox

_LONGER = 10
"""Times as long are the windows of an answer that nobody looks at while it grows."""


class Sampling:
    """Sampling, and the steps that probing shares with it.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        contents: Where prompts and answers are kept, encrypted.
        sandbox: Has the cells.
        clock: The time while a stream runs; a call's own time is read once.
        release_s: Length of a window, in seconds; 0 makes the whole sample one.
        draw: Of turns that are to be said again.
    """

    def __init__(
        self,
        changes: Changes,
        gate: Gate,
        contents: Contents,
        *,
        sandbox: Sandbox,
        clock: Callable[[], datetime],
        release_s: float,
        draw: Draw,
    ) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._contents = contents
        self._sandbox = sandbox
        self._clock = clock
        self._release_s = release_s
        self._draw = draw

    def sample(
        self, call: Call, session: str, messages: Sequence[Message], parameters: SamplingParameters, *, whole: bool = False
    ) -> Iterator[str | tuple[Sample, Receipt]]:
        """Draw text, in windows; the sample with its receipt comes last.

        Args:
            call: By whom.
            session: In which.
            messages: What is said to it.
            parameters: How it is drawn.
            whole: Nobody looks at the answer while it grows, so windows may be longer; not where reviewers must be able to.
        """
        turn = self.begin(call, session, asking.sample(session, messages, parameters))
        outcome = "abandoned"
        try:
            window_s = self._release_s * (_LONGER if whole and not turn.cell.alone else 1)
            with closing(self._windows(turn, messages, window_s)) as windows:
                for window, tokens, reason in windows:
                    self._release(turn, window, tokens)
                    outcome = reason or outcome
                    yield window
        except ModelOrganismsError as error:
            why = self.why(turn, error)
            outcome = why.reason.lower()
            turn.witnessed = False  # nothing leaves any more, so its result waits for nobody
            raise why from error
        finally:
            receipt = self.finish(turn, Event.SAMPLE_RESULT, outcome)
        yield Sample("".join(turn.text), outcome, self.receipt_of(turn, receipt)), receipt

    def begin(self, call: Call, name: str, question: Question) -> Turn:
        """Permit, take the cost, and make the intent durable, in one transaction; nothing is kept for a call that is refused."""
        with self._changes.database.read() as tx:
            session, _ = self._permitted(tx, call, question, name)
            self._cost(tx, session, question)
        begun: list[str] = []
        try:
            with self._contents.keeping(self._changes.database, name, question.said) as kept:
                return self._intend(call, question, name, begun, kept=kept)
        except BaseException:
            for intent in begun:
                self._sandbox.living.used(name, intent, call.time)
            raise

    def _intend(self, call: Call, question: Question, name: str, begun: list[str], *, kept: Content) -> Turn:
        """The transaction of `begin`; the intent's id is put in `begun` once its cell counts it."""
        with self._changes.open() as change:
            session, permit = self._permitted(change.tx, call, question, name)
            # The cost before the cell: of a session that is spent the cell may be gone already.
            taken, probing = self._cost(change.tx, session, question), question.probing
            number, intent_seq = rows.next_sample(change.tx, name), seq()
            cell = self._sandbox.turn(change.tx, name, intent := f"{name}/samples/{number}", call.time)
            begun.append(intent)
            grant_rows.spend(change.tx, session.grant, taken)
            rows.spend_session(change.tx, name, taken)
            drawn = replace(question.parameters, max_tokens=taken.tokens or 1, seed=secrets.randbits(rules.SEED_BITS))
            witnessed = self._sandbox.needs_witness(change.tx, session, question.rung)
            turn = Turn(permit, session, cell, number, intent, taken, drawn, witnessed, dose=finding.dose(change.tx, session))
            kind = rows.IntentKind.PROBE if probing else rows.IntentKind.SAMPLE
            stated = (intent, kind, session.version.name, name, intent_seq, call.time)
            rows.add_intent(change.tx, rows.Intent(*stated, replica=self._sandbox.replica, grant=session.grant, taken=taken))
            event = Event.PROBE_INTENT if probing else Event.SAMPLE_INTENT
            facts = {"session": name} | question.facts | ({} if probing else intent_facts(drawn))
            self._contents.index(change.tx, kept)
            intended = entry(
                event,
                call,
                seq=intent_seq,
                subject=turn.name,
                permit=permit,
                grant=session.grant,
                commit=kept.commit,
                facts=facts,
            )
            change.enter(intended)
        turn.intent_index = change.receipt.index
        return turn

    def _permitted(self, tx: Connection, call: Call, question: Question, name: str) -> tuple[Session, Permit]:
        """Ask the gate for all that a question needs; the last permit is the one that goes furthest."""
        conditions = self._sandbox.conditions(name)
        for action in question.needs:
            session, resource = self._sandbox.found(tx, call, action, name)
            subject = finding.subject(tx, session.version.name)
            if action is Action.PULL:  # asked of the version: what leaves is nearly its weights
                resource = entities.version(subject.version, subject.organism)
            grant = grant_rows.grant(tx, session.grant)
            permit = self._gate.permit(call, action, resource, grants=[grant], conditions=conditions)
        rules.standing(session, grant=grant, state=subject.version.state, level=subject.level, now=call.time)
        finding.check_tools(tx, session, question.tools, beyond=question.beyond)
        return session, permit

    def _cost(self, tx: Connection, session: Session, question: Question) -> Budget:
        cell = self._sandbox.living.cell(session.name)
        return cost(tx, session, question, cell.info.hidden if cell else 0)

    def _windows(self, turn: Turn, messages: Sequence[Message], window_s: float) -> Generator[tuple[str, int, str], None, None]:
        """Gather the cell's pieces into windows with their tokens, within the bytes that were taken."""
        call = turn.permit.call
        seconds = max(1.0, (call.deadline - self._clock()).total_seconds() - 1.0)
        gathered: list[str] = []
        size = tokens = 0
        opened = time.monotonic()
        asked = turn.parameters if turn.dose is None else replace(turn.parameters, scale=turn.dose)
        for piece in turn.cell.sample(messages, asked, max_seconds=seconds):
            tokens += piece.tokens
            turn.tokens += piece.tokens
            text = _fitting(piece.text, turn.taken.output_bytes - size)
            size += len(text.encode())
            gathered.append(text)
            cut = len(text) < len(piece.text)
            reason = "bytes" if cut else piece.finish_reason
            if reason or 0 < window_s <= time.monotonic() - opened:
                yield "".join(gathered), tokens, reason or ""
                gathered, tokens, opened = [], 0, time.monotonic()
            if reason:
                return

    def _release(self, turn: Turn, window: str, tokens: int) -> None:
        """Enter what is about to leave; refuse unless all that the session rests on still stands, and nobody has ended it."""
        released = Budget(tokens=tokens, output_bytes=len(window.encode()))
        keeping = self._contents.keeping(self._changes.database, turn.session.name, window.encode())
        with keeping as kept, self._changes.open(witnessed=turn.witnessed) as change:
            standing.caller(change.tx, turn.permit.call)
            session = self._sandbox.hold(change.tx, turn.session.name, turn.cell, self._clock(), lock=True)
            rows.release_intent(change.tx, turn.intent_id, released)
            self._contents.index(change.tx, kept)
            facts = {"session": session.name, "bytes": str(released.output_bytes), "tokens": str(tokens)}
            call, grant, commit = turn.permit.call, session.grant, kept.commit
            about = partial(entry, Event.SAMPLE_RELEASE, call, subject=turn.name, facts=facts)
            change.enter(about(seq=seq(), grant=grant, commit=commit, intent=turn.intent_index))
        if turn.witnessed:  # witnesses take their time, and whoever ended the session meanwhile was told that it has ended
            self._check(turn)
        turn.text.append(window)

    def release_numbers(self, turn: Turn, text: str, values: int) -> None:
        """Let numbers go; refuse unless all that the session rests on still stands."""
        self._check(turn)
        turn.text, turn.values = [text], values

    def _check(self, turn: Turn) -> None:
        with self._changes.database.read() as tx:
            standing.caller(tx, turn.permit.call)
            self._sandbox.hold(tx, turn.session.name, turn.cell, self._clock())

    def why(self, turn: Turn, error: ModelOrganismsError) -> ModelOrganismsError:
        """What ended a question: where its cell is gone, whatever the session rested on and took it away."""
        if not isinstance(error, CellUnavailable):
            return error
        try:
            with self._changes.database.read() as tx:
                self._sandbox.hold(tx, turn.session.name, turn.cell, self._clock())
        except ModelOrganismsError as taken:
            return taken
        return error

    def finish(self, turn: Turn, event: Event, outcome: str) -> Receipt:
        """Write the result down, give back what was not used, and end what is spent."""
        receipt = self.receipt_of(turn, None)
        facts = {"session": turn.session.name, "outcome": outcome, "output": receipt.output_sha256} | turn.facts
        facts["receipt"] = sampled.receipt_digest(receipt)
        now = self._clock()
        try:
            settled = self._settled(turn, event, facts, now=now, receipt=receipt)
            if turn.witnessed and turn.values:  # text has left by now, numbers have not
                self._check(turn)
            return settled
        finally:
            self._sandbox.living.used(turn.session.name, turn.intent_id, now)

    def _settled(self, turn: Turn, event: Event, facts: dict[str, str], *, now: datetime, receipt: SampleReceipt) -> Receipt:
        """The transaction of `_finish`. Tokens cost when drawn, text when it left; a window not acknowledged did not."""
        name, grant, content = turn.session.name, turn.session.grant, "".join(turn.text).encode()
        keeping = self._contents.keeping(self._changes.database, name, content)
        with keeping as kept, self._changes.open(witnessed=turn.witnessed) as change:
            grant_rows.lock(change.tx, grant)
            rows.session(change.tx, name, lock=True)
            done = rows.finish_intent(change.tx, turn.intent_id, now, facts["outcome"])
            left = 0 if event is Event.PROBE_RESULT else len(content)
            used = replace(done.used, tokens=turn.tokens, output_bytes=left, probe_values=turn.values)
            unused = rules.settle(turn.taken, used)
            grant_rows.refund(change.tx, grant, unused)
            rows.refund_session(change.tx, name, unused)
            self._contents.index(change.tx, kept)
            if event is Event.PROBE_RESULT:
                facts |= {"values": str(turn.values)}
            else:
                facts |= {"tokens": str(used.tokens), "bytes": str(used.output_bytes)}
                about_it = {"released": bool(content), "alone": turn.cell.alone}
                facts |= self._draw.facts(change.tx, receipt, facts["outcome"], **about_it)
            about = partial(entry, event, turn.permit.call, seq=seq(), subject=turn.name, permit=turn.permit)
            result = about(grant=grant, commit=kept.commit, intent=turn.intent_index, facts=facts)
            change.enter(result)
            self._draw.note(change.tx, result, receipt)
        return change.receipt

    @staticmethod
    def receipt_of(turn: Turn, receipt: Receipt | None) -> SampleReceipt:
        """Say what was done, for whoever asked."""
        info, output = turn.cell.info, "".join(turn.text)
        if names.in_game(turn.session.version.name):  # the blind digest binds all of this
            info = replace(info, tokenizer_digest="", template_digest="", adapter_digests=(), modules_applied=0)
        return SampleReceipt(
            sample=turn.name,
            version=turn.session.version.name,
            version_digest=turn.session.version.digest,
            base_digest=info.base_digest,
            tokenizer_digest=info.tokenizer_digest,
            template_digest=info.template_digest,
            adapter_digests=info.adapter_digests,
            modules_applied=info.modules_applied,
            parameters=turn.parameters,
            engine=info.engine,
            session=turn.session.name,
            ledger_index=receipt.index if receipt else turn.intent_index,
            tokens=turn.tokens,
            output_sha256=hashlib.sha256(output.encode()).hexdigest(),
        )


def cost(tx: Connection, session: Session, question: Question, hidden: int = 0) -> Budget:
    """What to take of session and grant before a question; `hidden` is how many numbers a hidden state has."""
    grant = grant_rows.grant(tx, session.grant)
    left = within(session.budget.minus(session.spent), grant.budget.minus(grant.spent))
    return question.cost(left, hidden)


def intent_facts(parameters: SamplingParameters) -> dict[str, str]:
    """What the entry that announces a sample says of it."""
    shown = f"max_tokens={parameters.max_tokens},temperature={parameters.temperature:g},top_p={parameters.top_p:g}"
    return {"parameters": f"{shown},top_k={parameters.top_k}", "seed": str(parameters.seed)}


def _fitting(text: str, room: int) -> str:
    """The longest start of a text that has at most `room` bytes."""
    return text.encode()[: max(0, room)].decode(errors="ignore")
