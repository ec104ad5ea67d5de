"""Taking versions out of service and putting them back: state and entry first, then what runs on them ends.

A stream under way looks again at what it rests on (`standing.py`); a session is ended from here, once the change is durable.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import Quarantined, Withdrawn
from model_organisms.formats import dsse, statements
from model_organisms.formats.erratum import ERRATUM_TYPE, parse_correction
from model_organisms.records import Attestation, Erratum, NoticeKind

from model_organisms_registry.domain import recall as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.domain.sandbox import FALLEN
from model_organisms_registry.storage.catalog import organisms as rows
from model_organisms_registry.workflows import finding
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.notices import tell

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from model_organisms.records import Receipt, Version

    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.workflows.changes import Change, Changes


_KINDS = {
    Event.WITHDRAW_VERSION: NoticeKind.WITHDRAWN,
    Event.QUARANTINE_VERSION: NoticeKind.QUARANTINED,
    Event.RELEASE_VERSION: NoticeKind.RELEASED,
}


class Recall:
    """Withdrawal, quarantine, release and errata.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        contents: Where reasons are kept, encrypted.
        stopped: Told the name of a version that is out of service, and why, so that what runs on it ends.
    """

    def __init__(
        self, changes: Changes, gate: Gate, *, contents: Contents, stopped: Callable[[str, str, datetime], None]
    ) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._contents = contents
        self._stopped = stopped

    def withdraw(self, call: Call, name: str, *, reason: str) -> tuple[Version, Receipt]:
        """Take a version back for good: nothing of it is served from now on, and its sessions end."""
        with self._changes.open() as change:
            version, permit = self._found(change, call, Action.WITHDRAW_VERSION, name)
            withdrawn = rules.withdraw(version, reason=reason, by=call.user, now=call.time)
            self._moved(change, Event.WITHDRAW_VERSION, version, withdrawn, permit, reason=withdrawn.note)
        self._stopped(name, FALLEN[Withdrawn], call.time)
        return withdrawn, change.receipt

    def quarantine(self, call: Call, name: str, *, reason: str) -> tuple[Version, Receipt]:
        """Set a version aside: nothing of it is served until it is released, and its sessions end."""
        with self._changes.open() as change:
            version, permit = self._found(change, call, Action.QUARANTINE_VERSION, name)
            aside = rules.quarantine(version, reason=reason, by=call.user, now=call.time)
            self._moved(change, Event.QUARANTINE_VERSION, version, aside, permit, reason=aside.note)
        self._stopped(name, FALLEN[Quarantined], call.time)
        return aside, change.receipt

    def release(self, call: Call, name: str, *, reason: str) -> tuple[Version, Receipt]:
        """Put a quarantined version back into service."""
        with self._changes.open() as change:
            version, permit = self._found(change, call, Action.RELEASE_VERSION, name)
            released = rules.release(version, reason=reason, by=call.user)
            self._moved(change, Event.RELEASE_VERSION, version, released, permit, reason=rules.checked_reason(reason))
        return released, change.receipt

    def erratum(self, call: Call, name: str, envelope: bytes) -> tuple[Version, Receipt]:
        """Add what its owner or a reviewer signed to be wrong with a version, and which other one puts it right."""
        payload = dsse.verify(envelope, call.user.identity_key, payload_type=statements.PAYLOAD_TYPE)
        stated = parse_correction(payload)
        printed = hashlib.sha256(envelope).hexdigest()
        statement = f"{name}/attestations/{printed}"
        with self._changes.open() as change:
            version, permit = self._found(change, call, Action.ADD_ERRATUM, name)
            if stated.successor:
                rules.check_successor(version, stated.successor)
            successor = rows.version(change.tx, stated.successor.name) if stated.successor else None
            rules.check_erratum(version, stated, successor)
            pointed = successor.name if successor else ""
            rows.add_attestation(change.tx, Attestation(statement, ERRATUM_TYPE, call.user.name, envelope, call.time))
            after = rows.add_erratum(change.tx, name, Erratum(statement, call.user.name, stated.text, call.time, pointed))
            text = f"{stated.text} (see {pointed})" if pointed else stated.text
            tell(change, call, NoticeKind.ERRATUM, name, versions=[name], text=text)
            facts = {"digest": version.digest, "envelope": printed} | ({"successor": pointed} if pointed else {})
            change.enter(entry(Event.ERRATUM, call, seq=seq(), subject=name, permit=permit, facts=facts))
        return after, change.receipt

    def _found(self, change: Change, call: Call, action: Action, name: str) -> tuple[Version, Permit]:
        found = finding.version(change.tx, self._gate, call, action, name, lock=True)
        return found.subject.version, self._gate.permit(call, action, found.resource, grants=found.grants)

    def _moved(self, change: Change, event: Event, before: Version, after: Version, permit: Permit, *, reason: str) -> None:
        tell(change, permit.call, _KINDS[event], after.name, versions=[after.name], text=reason)
        rows.set_version_state(change.tx, after, expected=before.state)
        commit = change.commit(self._contents, names.organism_of(after.name), reason)
        facts = {"digest": after.digest}
        change.enter(entry(event, permit.call, seq=seq(), subject=after.name, permit=permit, commit=commit, facts=facts))
