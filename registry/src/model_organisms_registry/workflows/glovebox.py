"""Sessions whose cell is on their holder's own machine: opened, asked and reported here, with the weights pulled into the cell.

It is a session like any other: gate, budgets, expiry, kill and ledger are the same. What differs is who tells: walls, counts and
text are the holder's to report, and every entry that rests on their word says so. A question is two calls. The first takes its
cost, keeps the prompt and chooses the seed; the second keeps the text and gives back what was not used. While one is under way
there is no other in that session, and it is not idle. A question whose report never comes is spent in full, with its session.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from model_organisms.cells.walls import OWN_USER, REQUIRED
from model_organisms.errors import Conflict, InvalidArgument, LedgerUnavailable, ModelOrganismsError, NotFound
from model_organisms.records import Budget, Inquiry, Rung, SessionState

from model_organisms_registry.domain import glovebox, probing
from model_organisms_registry.domain import sandbox as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.grants import offered, require
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import local_turns as turns
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.catalog.local_turns import LocalTurn
from model_organisms_registry.storage.catalog.sandbox import Intent, IntentKind
from model_organisms_registry.workflows import asking, finding, reports, standing
from model_organisms_registry.workflows.changes import name as fresh
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.sampling import cost, intent_facts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from model_organisms.records import Message, Purpose, Receipt, SampleReceipt, SamplingParameters, Session

    from model_organisms_registry.domain.glovebox import Report
    from model_organisms_registry.domain.hazard import HazardTable
    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.catalog.sandbox import Content
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.asking import Question
    from model_organisms_registry.workflows.changes import Change, Changes
    from model_organisms_registry.workflows.sandbox import Sandbox

_LOG = logging.getLogger(__name__)
_ACTIONS = {IntentKind.SAMPLE: Action.SAMPLE, IntentKind.PROBE: Action.PROBE}
_RESULTS = {IntentKind.SAMPLE: Event.SAMPLE_RESULT, IntentKind.PROBE: Event.PROBE_RESULT}


class Gloveboxes:
    """Opens local sessions, and takes what is reported of them.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        contents: Where prompts and answers are kept, encrypted.
        sandbox: Finds sessions and ends them; says how long one may be idle.
        table: The hazard table of this deployment.
    """

    def __init__(self, changes: Changes, gate: Gate, contents: Contents, *, sandbox: Sandbox, table: HazardTable) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._contents = contents
        self._sandbox = sandbox
        self._table = table
        self._idle = sandbox.idle

    def open(
        self,
        call: Call,
        version: str,
        *,
        purpose: Purpose,
        grant: str,
        budget: Budget | None,
        duration: timedelta | None,
        walls: Sequence[str],
    ) -> tuple[Session, Receipt]:
        """Open a session for a cell that has started on its holder's machine and holds nothing yet."""
        missing = glovebox.claimed_walls(walls, known_walls=REQUIRED | {OWN_USER}, needed=REQUIRED)
        with self._changes.database.read() as tx:
            found = finding.version(tx, self._gate, call, Action.OPEN_LOCAL_SESSION, version)
        held = offered(found.grants, grant=grant, purpose=purpose, now=call.time)
        conditions = replace(self._gate.conditions, jail=not missing)
        permit = self._gate.permit(call, Action.OPEN_LOCAL_SESSION, found.resource, grants=held, conditions=conditions)
        with self._changes.open() as change:
            standing.caller(change.tx, call)
            subject = finding.version(change.tx, self._gate, call, Action.OPEN_LOCAL_SESSION, version).subject
            mine = grant_rows.grant(change.tx, permit.grant)
            require([mine], subject.ref, user=call.user.name, level=subject.level, rung=Rung.PULL, now=call.time)
            glovebox.can_pull(mine)
            session = rules.open_session(
                fresh("sessions", call.time),
                user=call.user,
                version=subject.ref,
                state=subject.version.state,
                level=subject.level,
                grant=mine,
                purpose=purpose,
                now=call.time,
                budget=budget,
                duration=duration,
                walls=walls,
                missing_walls=missing,
                table=self._table,
            )
            session = glovebox.at_holder(session, subject.level)
            grant_rows.spend(change.tx, mine.name, Budget(sessions=1))
            rows.add_session(change.tx, session)
            change.enter(reports.opened(permit, session))
        return session, change.receipt

    def begin(
        self, call: Call, name: str, messages: Sequence[Message], parameters: SamplingParameters | None
    ) -> tuple[LocalTurn, Receipt]:
        """Announce a question: permit, take its cost, keep the prompt, choose the seed. Without parameters it is a probe."""
        if parameters is not None and probing.changes(parameters):
            raise InvalidArgument("A local session draws as published; leave out steering and dose.", field="parameters")
        asked = asking.sample(name, messages, parameters) if parameters else asking.probe(name, messages, Inquiry())
        with self._changes.database.read() as tx:
            session, _ = self._permitted(tx, call, asked.needs[0], name)
            cost(tx, session, asked)
        with self._contents.keeping(self._changes.database, name, asked.said) as kept, self._changes.open() as change:
            turn = self._intend(change, call, asked, name, kept=kept)
        return turn, change.receipt

    def end(self, call: Call, sample: str, report: Report, now: datetime) -> tuple[SampleReceipt, Receipt]:
        """Take what came of a question, keep it, and acknowledge it, if all that the session rests on still stands.

        What was drawn is kept and counted in any case; the holder's program shows it only after a yes.
        """
        name = sample.rpartition("/samples/")[0]
        with self._changes.database.read() as tx:
            turn, session, permit, refusal = self._reported(tx, call, name, sample)
        used = glovebox.reported(report, turn.taken)
        intent = self._announced(turn)
        content = reports.content(turn, report)
        receipt = reports.receipt_of(session, turn, report, content, intent=intent)
        witnessed = refusal is None and self._needs_witness(session, turn)
        keeping = self._contents.keeping(self._changes.database, name, content)
        with keeping as kept, self._changes.open(witnessed=witnessed) as change:
            grant_rows.lock(change.tx, session.grant)  # in the order that everybody takes them in
            rows.session(change.tx, name, lock=True)
            turns.take(change.tx, turn)
            refusal = refusal or self._refusal(change.tx, call, session, now)
            outcome = refusal.reason.lower() if refusal else reports.outcome(turn, report)
            self._settle(change, turn, used, now=now, outcome=outcome)
            self._contents.index(change.tx, kept)
            facts = reports.result_facts(turn, receipt, used, outcome=outcome)
            about = partial(entry, call=call, subject=turn.name, grant=session.grant, commit=kept.commit, intent=intent)
            if not refusal and turn.kind is IntentKind.SAMPLE:
                released = {"session": name, **reports.counts(turn, used)}
                change.enter(about(Event.SAMPLE_RELEASE, seq=seq(), facts=released))
            change.enter(about(_RESULTS[turn.kind], seq=seq(), permit=permit, facts=facts))
        if refusal:
            raise refusal
        return replace(receipt, ledger_index=change.receipt.index), change.receipt

    def end_due(self, now: datetime) -> None:
        """End local sessions that expired, are spent, idle, or rest on what was taken back; settle what was never reported."""
        looks = [partial(self._look_at, session, now) for session in self._sandbox.elsewhere()]
        with self._changes.database.read() as tx:
            late = [turn for turn in turns.left_behind(tx) if now >= turn.create_time + self._idle]
        for look in [*looks, *(partial(self._unreported, turn, now) for turn in late)]:
            try:
                look()
            except ModelOrganismsError:
                _LOG.exception("A local session could not be ended; tried again in a moment")

    def _intend(self, change: Change, call: Call, asked: Question, name: str, *, kept: Content) -> LocalTurn:
        """The transaction of `begin`."""
        tx, kind = change.tx, IntentKind.PROBE if asked.probing else IntentKind.SAMPLE
        session, permit = self._permitted(tx, call, _ACTIONS[kind], name)
        taken = cost(tx, session, asked)
        grant_rows.spend(tx, session.grant, taken)
        rows.spend_session(tx, name, taken)
        drawn = replace(asked.parameters, max_tokens=taken.tokens or 1, seed=secrets.randbits(rules.SEED_BITS))
        number = seq()
        turn = LocalTurn(name, f"{name}/samples/{rows.next_sample(tx, name)}", kind, drawn, taken, call.time, number)
        stated = (turn.name, kind, session.version.name, name, number, call.time)
        rows.add_intent(tx, Intent(*stated, grant=session.grant, taken=taken))
        turns.add(tx, turn)
        turns.used(tx, name, call.time)
        self._contents.index(tx, kept)
        event = Event.PROBE_INTENT if asked.probing else Event.SAMPLE_INTENT
        facts = {"session": name} | asked.facts | ({} if asked.probing else intent_facts(drawn))
        about = partial(entry, event, call, seq=number, subject=turn.name, permit=permit, grant=session.grant)
        change.enter(about(commit=kept.commit, facts=facts))
        return turn

    def _permitted(self, tx: Connection, call: Call, action: Action, name: str) -> tuple[Session, Permit]:
        session, resource = self._sandbox.found(tx, call, action, name)
        missing = _missing(session)
        conditions = replace(self._gate.conditions, jail=not missing)
        grants = [grant_rows.grant(tx, session.grant)]
        permit = self._gate.permit(call, action, resource, grants=grants, conditions=conditions)
        standing.holds(tx, glovebox.held(session), missing, table=self._table, now=call.time)
        return session, permit

    def _reported(
        self, tx: Connection, call: Call, name: str, sample: str
    ) -> tuple[LocalTurn, Session, Permit | None, ModelOrganismsError | None]:
        """The question that is reported, and whether its answer may still be shown; only its own user reports it."""
        session, resource = self._sandbox.found(tx, call, Action.SAMPLE, name)
        if session.user != call.user.name:
            self._gate.permit(call, Action.VIEW_SESSION, resource)
            raise NotFound.named(sample)
        turn = turns.find(tx, name)
        if turn is None or turn.name != sample:
            raise turns.reported(sample)
        try:
            return turn, session, self._permitted(tx, call, _ACTIONS[turn.kind], name)[1], None
        except ModelOrganismsError as error:
            return turn, session, None, error

    def _announced(self, turn: LocalTurn) -> int:
        """Where in the ledger a question was announced; it is asked, because a crash may have come before anybody was told."""
        index = self._changes.log.index_of(turn.seq, since=turn.create_time)
        if index is None:
            raise LedgerUnavailable(f"'{turn.name}' is not in the ledger yet; report it again in a moment.", sample=turn.name)
        return index

    def _refusal(self, tx: Connection, call: Call, session: Session, now: datetime) -> ModelOrganismsError | None:
        try:
            standing.caller(tx, call)
            standing.holds(tx, rows.session(tx, session.name), _missing(session), table=self._table, now=now)
        except ModelOrganismsError as error:
            return error
        return None

    def _settle(self, change: Change, turn: LocalTurn, used: Budget, *, now: datetime, outcome: str) -> None:
        unused = rules.settle(turn.taken, used)
        rows.release_intent(change.tx, turn.name, used)
        done = rows.finish_intent(change.tx, turn.name, now, outcome)
        grant_rows.refund(change.tx, done.grant, unused)
        rows.refund_session(change.tx, turn.session, unused)
        turns.used(change.tx, turn.session, now)

    def _needs_witness(self, session: Session, turn: LocalTurn) -> bool:
        with self._changes.database.read() as tx:
            rung = Rung.PROBE if turn.kind is IntentKind.PROBE else Rung.SAMPLE
            return self._sandbox.needs_witness(tx, session, rung)

    def _look_at(self, session: Session, now: datetime) -> None:
        with self._changes.database.read() as tx:
            current, used = rows.session(tx, session.name), turns.last_used(tx, session.name)
            busy = turns.find(tx, session.name) is not None
        state = rules.due(current, now=now, last_used=used, idle=self._idle, busy=busy)
        if state is not None:
            self._sandbox.end(session, state, f"the session is {state.value}", now)
            return
        try:
            with self._changes.database.read() as tx:
                standing.holds(tx, rows.session(tx, session.name), _missing(session), table=self._table, now=now)
        except Conflict:
            return  # it has ended meanwhile
        except ModelOrganismsError as error:
            self._sandbox.end(session, SessionState.KILLED, rules.fallen(error), now)

    def _unreported(self, turn: LocalTurn, now: datetime) -> None:
        """Settle a question whose report did not come, in full."""
        with self._changes.database.read() as tx:
            session = rows.session(tx, turn.session)
        intent = self._announced(turn)
        receipt = hashlib.sha256(b"").hexdigest()
        with self._contents.keeping(self._changes.database, turn.session, b"") as kept, self._changes.open() as change:
            grant_rows.lock(change.tx, session.grant)
            rows.session(change.tx, turn.session, lock=True)
            turns.take(change.tx, turn)
            self._settle(change, turn, turn.taken, now=now, outcome=glovebox.UNREPORTED)
            self._contents.index(change.tx, kept)
            facts = {"session": turn.session, "outcome": glovebox.UNREPORTED, "output": receipt, "receipt": receipt}
            about = partial(entry, _RESULTS[turn.kind], None, time=now, seq=seq(), subject=turn.name, grant=session.grant)
            change.enter(about(commit=kept.commit, intent=intent, facts=facts | reports.counts(turn, turn.taken)))


def _missing(session: Session) -> tuple[str, ...]:
    return tuple(sorted(REQUIRED - set(session.walls)))
