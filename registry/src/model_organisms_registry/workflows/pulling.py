"""How a capsule leaves: permit, intent, mark, seal, result, stream. The ledger names every copy before its first byte leaves.

The head, which is fresh for each pull, is kept in the pull's row, and a marked body can be made again; so a cut pull goes on
with the same bytes from any offset, for the same person and only while their grant stands.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_organisms.errors import Conflict, GrantRequired, NotFound
from model_organisms.formats import capsule
from model_organisms.formats.capsule import CapsuleHeader, commit_key
from model_organisms.formats.dsse import key_id
from model_organisms.formats.streaming import SEGMENT
from model_organisms.records import Budget, Rung, VersionRef

from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.glovebox import goes_into
from model_organisms_registry.domain.grants import require
from model_organisms_registry.domain.hazard import level_rules
from model_organisms_registry.domain.organisms import served
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.domain.recall import check_mark
from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.catalog import grants as grant_rows
from model_organisms_registry.storage.catalog import sandbox as rows
from model_organisms_registry.storage.catalog.sandbox import Intent, IntentKind, Pull, PullState
from model_organisms_registry.workflows import finding, standing
from model_organisms_registry.workflows.changes import name as fresh
from model_organisms_registry.workflows.changes import seq

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from model_organisms.records import Grant, Receipt, Version

    from model_organisms_registry.domain.hazard import HazardTable
    from model_organisms_registry.domain.organisms import Subject
    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.bundles import Bundles
    from model_organisms_registry.storage.copies import Copies, Copy
    from model_organisms_registry.workflows.changes import Changes

_ONE = Budget(pulls=1)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A capsule on its way."""

    pull: str
    grant: str
    size: int
    receipt: Receipt | None
    """Only at the beginning of a pull; a resumed one has it already."""
    marked: bool
    chunks: Iterator[bytes]


class Pulling:
    """Pulls.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        bundles: Where versions are kept.
        copies: Makes the bodies.
        table: The hazard table of this deployment.
        release_key: Signs heads.
        origin: The registry's name.
        replica: Name of this process among those that share the database.
    """

    def __init__(
        self,
        changes: Changes,
        gate: Gate,
        bundles: Bundles,
        *,
        copies: Copies,
        table: HazardTable,
        release_key: Ed25519PrivateKey,
        origin: str,
        replica: str = "",
    ) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._bundles = bundles
        self._copies = copies
        self._table = table
        self._release_key = release_key
        self._origin = origin
        self._replica = replica
        self._sent: deque[str] = deque()

    def pull(self, call: Call, version: str, *, grant: str, pull: str, offset: int, session: str = "") -> Delivery:
        """Seal a version to the caller, or go on with an earlier pull; `session` names the local one whose cell it goes into."""
        with self._changes.database.read() as tx:
            found = finding.version(tx, self._gate, call, Action.PULL, version)
        wanted = tuple(held for held in found.grants if grant in {"", held.name})
        permit = self._gate.permit(call, Action.PULL, found.resource, grants=wanted)
        stored = Stored.of(found.subject.version)
        if pull:
            return self._resumed(permit, stored, found.subject, pull, offset)
        return self._begun(permit, stored, found.subject, session)

    def note_sent(self, now: datetime) -> None:
        """Write down which pulls were sent to their end; beside the calls, because nobody waits for it.

        A crash before leaves a pull that looks open: it may be resumed, as one that was cut may.
        """
        del now
        if not self._sent:
            return
        with self._changes.database.write() as tx:
            while self._sent:
                if rows.pull(tx, self._sent[0]).state is PullState.OPEN:
                    rows.set_pull_state(tx, self._sent[0], PullState.DELIVERED, expected=PullState.OPEN)
                self._sent.popleft()

    def _begun(self, permit: Permit, stored: Stored, subject: Subject, session: str) -> Delivery:
        """Intent, mark, seal, result; the first byte leaves after all four."""
        call, name, version = permit.call, fresh("pulls", permit.call.time), subject.version
        body = self._bundles.open(permit, stored)
        marked = level_rules(subject.level, table=self._table).fingerprinted
        memory = self._copies.room(stored.size) if marked else None
        mark = self._copies.commitment(name) if marked else ""
        grant, receipt = self._intend(permit, stored, version, name, mark=mark, session=session)
        copy = self._copies.marked(body, name, memory) if memory else self._copies.stored(body)
        head = capsule.seal_head(
            CapsuleHeader(
                origin=self._origin,
                organism=stored.organism,
                version_digest=version.digest,
                level=version.level,
                grant=grant.name,
                pull=name,
                plain_size=stored.size,
                issued=call.time.replace(microsecond=0),
                not_after=grant.expire_time.replace(microsecond=0),
                fingerprint=mark,
            ),
            copy.key,
            recipient_public=call.user.sealing_key,
            release_key=self._release_key,
        )
        size = len(head) + copy.layout.sealed_size
        with self._changes.open() as change:
            rows.add_pull(change.tx, _row(name, call, grant, version, mark=mark, head=head, body_size=copy.layout.sealed_size))
            rows.finish_intent(change.tx, name, call.time, "sealed")
            facts = {
                "version": version.name,
                "digest": version.digest,
                "bytes": str(size),
                "outcome": "sealed",
                "capsule": hashlib.sha256(head).hexdigest(),
            } | ({"into": session} if session else {})
            done = entry(
                Event.PULL_RESULT,
                call,
                seq=seq(),
                subject=version.name,
                permit=permit,
                grant=grant.name,
                intent=receipt.index,
                facts=facts,
            )
            change.enter(done)
        return Delivery(name, grant.name, size, change.receipt, marked, self._stream(copy, name, head, 0))

    def _intend(
        self, permit: Permit, stored: Stored, version: Version, name: str, *, mark: str, session: str
    ) -> tuple[Grant, Receipt]:
        """Spend the pull and make the intent durable, if all that was permitted still stands in the very transaction."""
        call = permit.call
        with self._changes.open() as change:
            standing.caller(change.tx, call)
            found = finding.version(change.tx, self._gate, call, Action.PULL, version.name)
            served(found.subject.version.state, version.name)
            grant = require(
                [held for held in found.grants if held.name == permit.grant],
                found.subject.ref,
                user=call.user.name,
                level=found.subject.level,
                rung=Rung.PULL,
                now=call.time,
            )
            check_mark(found.subject.level, marked=bool(mark), table=self._table)
            if session:
                goes_into(rows.session(change.tx, session), user=call.user, grant=grant, version=found.subject.ref, now=call.time)
            grant = grant_rows.spend(change.tx, grant.name, _ONE)
            number = seq()
            paid = self._replica, grant.name, _ONE
            rows.add_intent(change.tx, Intent(name, IntentKind.PULL, version.name, name, number, call.time, *paid))
            facts = {
                "version": version.name,
                "digest": version.digest,
                "recipient": call.key_id,
                "size": str(stored.size),
            }
            facts |= ({"mark": mark} if mark else {}) | ({"into": session} if session else {})
            event = entry(Event.PULL_INTENT, call, seq=number, subject=version.name, permit=permit, grant=grant.name, facts=facts)
            change.enter(event)
        return grant, change.receipt

    def _resumed(self, permit: Permit, stored: Stored, subject: Subject, name: str, offset: int) -> Delivery:
        """Go on with the same bytes, for the same person, while the same grant stands."""
        with self._changes.database.read() as tx:
            try:
                row = rows.pull(tx, name)
            except NotFound:
                raise NotFound.named(name) from None
        if row.user != permit.call.user.name or row.version.name != permit.resource:
            raise NotFound.named(name)
        if row.grant != permit.grant:
            raise GrantRequired("The grant this pull began under no longer stands; pull again.", pull=name)
        check_mark(subject.level, marked=bool(row.commitment), table=self._table)
        if key_id(permit.call.user.sealing_key).encode() not in row.head:
            raise Conflict("This pull was sealed to a key that you have no longer; begin a new pull.", pull=name)
        head, body = row.head, self._bundles.open(permit, stored)
        copy = self._copies.marked(body, name, self._copies.room(stored.size)) if row.commitment else self._copies.stored(body)
        if commit_key(copy.key, stored.digest).encode() not in head:
            raise Conflict("The copy this pull began with cannot be made again on this machine; begin a new pull.", pull=name)
        size = len(head) + row.body_size
        return Delivery(name, row.grant, size, None, bool(row.commitment), self._stream(copy, name, head, min(offset, size)))

    def _stream(self, copy: Copy, name: str, head: bytes, offset: int) -> Iterator[bytes]:
        if offset < len(head):
            yield head[offset:]
        first, skip = divmod(max(0, offset - len(head)), SEGMENT)
        for segment in copy.segments(first):
            yield bytes(memoryview(segment)[skip:])
            skip = 0
        self._sent.append(name)


def _row(name: str, call: Call, grant: Grant, version: Version, *, mark: str, head: bytes, body_size: int) -> Pull:
    return Pull(
        name=name,
        user=call.user.name,
        grant=grant.name,
        version=VersionRef(version.name, version.digest),
        commitment=mark,
        head=head,
        body_size=body_size,
        segments=-(-body_size // SEGMENT),
        state=PullState.OPEN,
        create_time=call.time,
    )
