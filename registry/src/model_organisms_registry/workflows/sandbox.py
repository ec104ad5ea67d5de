"""Sessions from opening to their one end; what is said in them is `sampling.py`'s.

A session is its row, its ledger entries and its cell. The row and the entries survive a crash, the cell does not: `recover` ends
as lost what was open when the registry stopped. Closing, a dead cell, spent budget, expiry, a revoked grant and a reviewer's kill
all come to the same `end`.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from model_organisms import errors, names
from model_organisms.errors import CellElsewhere, CellUnavailable, Conflict, ModelOrganismsError, NotFound
from model_organisms.records import Budget, Page, Role, Rung, SessionState

from model_organisms_registry.domain import sandbox as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.grants import offered, require
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import identity as accounts
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.paging import every
from model_organisms_registry.workflows import finding, reports, standing
from model_organisms_registry.workflows.changes import name as fresh
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.living import Living
from model_organisms_registry.workflows.loading import Loading
from model_organisms_registry.workflows.shares import many_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime, timedelta
    from pathlib import Path

    from model_organisms.records import Purpose, Receipt, Session

    from model_organisms_registry.domain.hazard import HazardTable
    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.entities import Conditions
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.isolation.placement import Pool, Tenant
    from model_organisms_registry.storage.bundles import Bundles
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Change, Changes
    from model_organisms_registry.workflows.living import Live

_LOG = logging.getLogger(__name__)


class Sandbox:
    """Opens, watches and ends sessions.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        bundles: Where the weights are, sealed.
        contents: Where reasons are kept, encrypted.
        pool: Starts cells.
        table: The hazard table of this deployment.
        idle: A session in which nothing happens for so long ends.
        bases: Hub id of a base model to its folder here.
        each: Open sessions that one user may have, wherever their cells are.
        replica: Name of this process among those that share the database.
    """

    def __init__(
        self,
        changes: Changes,
        gate: Gate,
        bundles: Bundles,
        *,
        contents: Contents,
        pool: Pool,
        table: HazardTable,
        idle: timedelta,
        bases: Mapping[str, Path],
        each: int,
        replica: str = "",
    ) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._contents = contents
        self.cells = Loading(bundles, pool, bases)
        self._table = table
        self.idle = idle
        self._each = each
        self.replica = replica
        self.living = Living()
        self._unwritten: dict[str, tuple[Session, SessionState, str]] = {}

    def open(
        self, call: Call, version: str, *, purpose: Purpose, grant: str, budget: Budget | None, duration: timedelta | None
    ) -> tuple[Session, Receipt]:
        """Open a session.

        1. Permit. 2. A cell takes the bundle; its walls are what it found standing. 3. In one transaction the grant, the version
        and the walls are judged again, the session is counted and written down. 4. Only then can it be sampled; and what was
        taken back before those who end sessions could see this one, ends it now.
        """
        with self._changes.database.read() as tx:
            found = finding.version(tx, self._gate, call, Action.OPEN_SESSION, version)
            self.check_share(tx, call.user.name)  # before a cell is started for nothing
        held = offered(found.grants, grant=grant, purpose=purpose, now=call.time)
        permit = self._gate.permit(call, Action.OPEN_SESSION, found.resource, grants=held)
        cell = self.cells.cell(permit, found.subject)
        session: Session | None = None
        try:
            with self._changes.open() as change:
                session = self._opened(change, permit, cell, purpose=purpose, budget=budget, duration=duration)
            self.living.add(session, cell, call.time)
        except BaseException:
            if session is not None:  # its row may be there: committed, and not acknowledged in time; without a cell it is lost
                self._unwritten[session.name] = session, SessionState.LOST, "its opening was not acknowledged in time"
            cell.close()
            raise
        if not cell.alive:
            self.lose(session, "the cell ended as it was opened", call.time)
        try:
            with self._changes.database.read() as tx:
                self.hold(tx, session.name, cell, call.time)
        except ModelOrganismsError as error:
            self.end(session, SessionState.KILLED, rules.fallen(error), call.time)
            raise
        return session, change.receipt

    def get(self, call: Call, name: str) -> Session:
        """Read a session."""
        with self._changes.database.read() as tx:
            session, resource = self.found(tx, call, Action.VIEW_SESSION, name)
        self._gate.permit(call, Action.VIEW_SESSION, resource)
        return session

    def list(self, call: Call, *, user: str, state: SessionState | None, page_size: int, page_token: str) -> Page[Session]:
        """List sessions: one's own, or for reviewers those of all."""
        self._gate.permit(call, Action.LIST, entities.registry())
        whose = user if {Role.REVIEWER, Role.ADMIN} & call.user.roles else call.user.name
        with self._changes.database.read() as tx:
            return rows.sessions(tx, user=whose, state=state, page_size=page_size, page_token=page_token)

    def close(self, call: Call, name: str) -> tuple[Session, Receipt]:
        """End one's own session."""
        return self._end_by(call, Action.CLOSE_SESSION, name, SessionState.CLOSED, "")

    def kill(self, call: Call, name: str, *, reason: str) -> tuple[Session, Receipt]:
        """End somebody's session at once."""
        return self._end_by(call, Action.KILL_SESSION, name, SessionState.KILLED, reason)

    def grant_revoked(self, grant: str, now: datetime) -> None:
        """End what runs under a grant that was taken back."""
        self._end_where(lambda session: session.grant == grant, SessionState.KILLED, rules.FALLEN[errors.GrantRevoked], now)

    def version_stopped(self, version: str, why: str, now: datetime) -> None:
        """End what runs on a version that is out of service."""
        self._end_where(lambda session: session.version.name == version, SessionState.KILLED, why, now)

    def user_suspended(self, user: str, now: datetime) -> None:
        """End what somebody runs whose account was stopped."""
        self._end_where(lambda session: session.user == user, SessionState.KILLED, rules.FALLEN[errors.Suspended], now)

    def keys_replaced(self, user: str, now: datetime) -> None:
        """End what runs under keys that were lost."""
        self._end_where(lambda session: session.user == user, SessionState.KILLED, "the account got new keys", now)

    def level_raised(self, organism: str, now: datetime) -> None:
        """End what runs on an organism that was raised above its grant's level, or above what its cell's walls are good for."""
        for live in self.living.every(lambda session: names.home_of(session.version.name) == organism):
            try:
                with self._changes.database.read() as tx:
                    self.hold(tx, live.session.name, live.cell, now)
            except ModelOrganismsError as error:
                self.end(live.session, SessionState.KILLED, rules.fallen(error), now)

    def hold(self, tx: Connection, name: str, cell: Tenant, now: datetime, *, lock: bool = False) -> Session:
        """Read a session anew, and refuse unless all it rests on still stands; locked, it does until the transaction ends."""
        session = rows.session(tx, name, lock=lock)
        standing.hold(tx, session, cell, table=self._table, now=now)
        return session

    def lose(self, session: Session, why: str, now: datetime) -> None:
        """End a session whose cell is gone with its process."""
        self.end(session, SessionState.LOST, why, now)

    def turn(self, tx: Connection, name: str, intent: str, now: datetime) -> Tenant:
        """Begin a question in a session's cell.

        Raises:
            CellElsewhere: It is in another replica.
            CellUnavailable: It is gone.
        """
        try:
            return self.living.turn(name, intent, now)
        except CellUnavailable:
            there = rows.replica_of(tx, name)
            if there in {"", self.replica}:
                raise
            msg = f"The session's cell is at replica {there}, and this is {self.replica}; call that one, or open a session here."
            raise CellElsewhere(msg, session=name, replica=there) from None

    def check_share(self, tx: Connection, user: str) -> None:
        """Refuse a session to who has as many as one user may, wherever their cells are.

        Raises:
            CellUnavailable: They have.
        """
        if rows.open_of(tx, user) >= self._each:
            raise many_cells(self._each)

    def end_due(self, now: datetime) -> None:
        """End what has expired, is spent, or has lost its cell."""
        looks = [partial(self._look_at, live, now) for live in self.living.every()]
        for look in [*looks, *(partial(self.end, *ended, now) for ended in list(self._unwritten.values()))]:
            try:
                look()
            except ModelOrganismsError:
                _LOG.exception("A session could not be ended; tried again in a moment")

    def stop(self, now: datetime) -> None:
        """End every session that has its cell here; the registry is going down."""
        for live in self.living.every():
            self.end(live.session, SessionState.CLOSED, "the registry is stopping", now)

    def conditions(self, name: str) -> Conditions:
        """How things stand for one session: the walls are its own cell's, or where that is gone, those of any."""
        cell = self.living.cell(name)
        return replace(self._gate.conditions, jail=cell.jailed) if cell else self._gate.conditions

    def needs_witness(self, tx: Connection, session: Session, rung: Rung) -> bool:
        """Whether what this session releases must be under a cosigned checkpoint first."""
        return self._table.of(finding.subject(tx, session.version.name).level, rung).witness

    def _opened(
        self, change: Change, permit: Permit, cell: Tenant, *, purpose: Purpose, budget: Budget | None, duration: timedelta | None
    ) -> Session:
        call = permit.call
        accounts.user(change.tx, call.user.name, lock=True)  # who opens another waits, and counts this one
        self.check_share(change.tx, call.user.name)
        standing.caller(change.tx, call)
        found = finding.version(change.tx, self._gate, call, Action.OPEN_SESSION, permit.resource)
        subject = found.subject
        held = [grant for grant in found.grants if grant.name == permit.grant]
        grant = require(held, subject.ref, user=call.user.name, level=subject.level, rung=Rung.SAMPLE, now=call.time)
        session = rules.open_session(
            fresh("sessions", call.time),
            user=call.user,
            version=subject.ref,
            state=subject.version.state,
            level=subject.level,
            grant=grant,
            purpose=purpose,
            now=call.time,
            budget=budget,
            duration=duration,
            walls=cell.walls,
            missing_walls=cell.missing,
            table=self._table,
        )
        grant_rows.spend(change.tx, grant.name, Budget(sessions=1))
        rows.add_session(change.tx, session, replica=self.replica)
        facts = reports.opening(session) | {"walls": ",".join(session.walls)}
        event = entry(Event.OPEN_SESSION, call, seq=seq(), subject=session.name, permit=permit, grant=grant.name, facts=facts)
        change.enter(event)
        return session

    def found(self, tx: Connection, call: Call, action: Action, name: str) -> tuple[Session, entities.Resource]:
        """Read a session as Cedar sees it."""
        try:
            session = rows.session(tx, name)
        except NotFound:
            self._gate.absent(call, action, "session", name)
        subject = finding.subject(tx, session.version.name)
        return session, entities.session(session, subject.organism, subject.version)

    def _end_by(self, call: Call, action: Action, name: str, state: SessionState, reason: str) -> tuple[Session, Receipt]:
        with self._changes.open() as change:
            session, resource = self.found(change.tx, call, action, name)
            permit = self._gate.permit(call, action, resource)
            ended = rules.end(session, state, reason=reason)
            commit = change.commit(self._contents, name, ended.reason)
            _write_end(change, ended, call.time, call=call, permit=permit, commit=commit)
        self.living.drop(name, at_once=state is SessionState.KILLED, wait=True)
        return ended, change.receipt

    def _end_where(self, chosen: Callable[[Session], bool], state: SessionState, reason: str, now: datetime) -> None:
        for session in [*(live.session for live in self.living.every(chosen)), *filter(chosen, self.elsewhere())]:
            self.end(session, state, reason, now)

    def elsewhere(self) -> tuple[Session, ...]:
        """Open sessions whose cell is on their holder's own machine."""
        with self._changes.database.read() as tx:
            return tuple(every(partial(rows.sessions, tx, state=SessionState.OPEN, local=True)))

    def end(self, session: Session, state: SessionState, reason: str, now: datetime) -> None:
        """End a session by the registry's own doing. Its cell falls silent first, so nothing more is sampled in any case.

        What was taken back is killed; what expired, is spent or is stopped ends without harm to who shares its cell. Until it
        stands written down that is tried again each second, and after a restart by `recover`.
        """
        self._unwritten[session.name] = session, state, reason
        self.living.drop(session.name, at_once=state is SessionState.KILLED)
        try:
            with self._changes.open() as change:
                ended = rules.end(rows.session(change.tx, session.name), state, reason=reason)
                _write_end(change, ended, now)
        except (Conflict, NotFound):
            _LOG.info("%s had ended already, or was never there", session.name)
        self._unwritten.pop(session.name, None)

    def _look_at(self, live: Live, now: datetime) -> None:
        if not live.cell.alive:
            self.lose(live.session, "its cell ended", now)
            return
        quiet = self.living.quiet(live)
        with self._changes.database.read() as tx:
            session = rows.session(tx, live.session.name)
            fallen = self._fallen(tx, live, now) if session.state is SessionState.OPEN else ""
        if session.state is not SessionState.OPEN:  # another replica has ended it
            self.living.drop(session.name, at_once=session.state is SessionState.KILLED)
            return
        state = rules.due(session, now=now, last_used=live.last_used, idle=self.idle, busy=quiet is None)
        if state is SessionState.EXHAUSTED and self.living.quiet(live) != quiet:
            return  # a question came after the look, and what it took may be given back
        if state is not None:
            self.end(session, state, f"the session is {state.value}", now)
        elif fallen:  # another replica took it back and has not this cell, or this one is about to end the session
            self.end(session, SessionState.KILLED, fallen, now)

    def _fallen(self, tx: Connection, live: Live, now: datetime) -> str:
        try:
            self.hold(tx, live.session.name, live.cell, now)
        except ModelOrganismsError as error:
            return rules.fallen(error)
        return ""


def _write_end(
    change: Change, ended: Session, now: datetime, *, call: Call | None = None, permit: Permit | None = None, commit: str = ""
) -> None:
    if not rows.end_session(change.tx, ended.name, ended.state, ended.reason, now):
        raise Conflict("The session has ended already.", session=ended.name)
    facts = {
        "state": ended.state.value,
        "tokens": str(ended.spent.tokens),
        "bytes": str(ended.spent.output_bytes),
        "values": str(ended.spent.probe_values),
    }
    time = None if call else now
    end = entry(Event.END_SESSION, call, time=time, seq=seq(), subject=ended.name, permit=permit, commit=commit, facts=facts)
    change.enter(end)
