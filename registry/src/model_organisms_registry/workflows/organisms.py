"""Naming, finding, grading and attesting organisms; bytes come by `publishing.py`, go by `pulling.py`, stop by `recall.py`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from model_organisms.errors import Conflict, InvalidProvenance
from model_organisms.formats import conditions, dsse, statements
from model_organisms.formats.destruction import DESTRUCTION_TYPE
from model_organisms.formats.erratum import ERRATUM_TYPE
from model_organisms.formats.evaluation import parse_evaluation
from model_organisms.records import Attestation, Level, NoticeKind, Role

from model_organisms_registry.domain import organisms as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.motions import Stakes
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import entities
from model_organisms_registry.storage.catalog import organisms as rows
from model_organisms_registry.storage.catalog import requests, search
from model_organisms_registry.storage.paging import every
from model_organisms_registry.workflows import finding
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.motions import Act
from model_organisms_registry.workflows.notices import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from model_organisms.records import Condition, Motion, Organism, Page, Purpose, Receipt, User, Version

    from model_organisms_registry.domain.permits import Call, Permit
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.catalog.search import OrganismFilter
    from model_organisms_registry.storage.contents import Contents
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Change, Changes


class Organisms:
    """Organisms and what is known of their versions.

    Args:
        changes: Opens transactions.
        gate: Decides who may.
        contents: Where reasons are kept, encrypted.
        raised: Told the name of an organism whose level was raised, so that what runs on it and may not, ends.
    """

    def __init__(
        self,
        changes: Changes,
        gate: Gate,
        *,
        contents: Contents,
        raised: Callable[[str, datetime], None],
    ) -> None:
        """Keep them."""
        self._changes = changes
        self._gate = gate
        self._contents = contents
        self._raised = raised

    def create(self, call: Call, name: str, **stated: Any) -> tuple[Organism, Receipt]:  # noqa: ANN401 - `rules.create` types them
        """Name a new line of models; `stated` is what `domain/organisms.create` asks for."""
        permit = self._gate.permit(call, Action.CREATE_ORGANISM, entities.registry())
        organism = rules.create(name, owner=call.user, now=call.time, **stated)
        with self._changes.open() as change:
            rows.add_organism(change.tx, organism)
            facts = {"level": organism.level.name, "hidden": str(organism.hidden).lower()}
            if organism.conditions or organism.purposes:
                facts["conditions"] = conditions.digest(organism.conditions, organism.purposes)
            change.enter(entry(Event.CREATE_ORGANISM, call, seq=seq(), subject=name, permit=permit, facts=facts))
        return organism, change.receipt

    def get(self, call: Call, name: str) -> Organism:
        """Read an organism."""
        with self._changes.database.read() as tx:
            organism, grants = finding.organism(tx, self._gate, call, Action.DESCRIBE, name)
        self._gate.permit(call, Action.DESCRIBE, entities.organism(organism), grants=grants)
        return organism

    def list(self, call: Call, wanted: OrganismFilter, *, page_size: int, page_token: str) -> Page[Organism]:
        """List the organisms that a caller may know of."""
        self._gate.permit(call, Action.LIST, entities.registry())
        everything = Role.REVIEWER in call.user.roles
        visible = search.Visibility(user=None if everything else call.user.name)
        with self._changes.database.read() as tx:
            return search.organisms(tx, filter=wanted, visible=visible, page_size=page_size, page_token=page_token)

    def set_conditions(
        self, call: Call, name: str, *, purposes: Sequence[Purpose], asked: Sequence[Condition]
    ) -> tuple[Organism, Receipt]:
        """Set what the owner asks of users."""
        with self._changes.open() as change:
            organism, grants = finding.organism(change.tx, self._gate, call, Action.SET_CONDITIONS, name)
            permit = self._gate.permit(call, Action.SET_CONDITIONS, entities.organism(organism), grants=grants)
            changed = rules.condition(organism, purposes=purposes, conditions=asked)
            rows.set_conditions(change.tx, changed)
            facts = {"conditions": conditions.digest(changed.conditions, changed.purposes)}
            change.enter(entry(Event.SET_CONDITIONS, call, seq=seq(), subject=name, permit=permit, facts=facts))
        return changed, change.receipt

    def set_level(self, call: Call, name: str, level: Level, *, reason: str) -> tuple[Organism, Receipt]:
        """Raise a level at once; sessions and pulls that the new level does not allow end.

        Raises:
            Denied: It would lower the level, which takes a motion of two reviewers.
        """
        reason = rules.plain(reason, "reason", limit=rules.REASON_LIMIT)
        with self._changes.open() as change:
            graded = self._graded(change.tx, call, name, level)
            commit = change.commit(self._contents, name, reason)
            told = f"Raised from {graded.now.name} to {level.name}: {reason}"
            tell(change, call, NoticeKind.RAISED, name, versions=[version.name for version in graded.versions], text=told)
            raised = _relevel(change, call, graded, level, by=[call.user], commit=commit)
        self._raised(name, call.time)
        return raised, change.receipt

    def lowering(self) -> Act:
        """What a motion to lower a level does."""
        return Act(self._weigh_lowering, self._lower)

    def _weigh_lowering(self, tx: Connection, call: Call, motion: Motion) -> Stakes:
        to = rules.level_of(motion.facts["to"])
        graded = self._graded(tx, call, motion.subject, to)
        if graded.now.name != motion.facts["from"] or to >= graded.now:
            msg = f"{motion.subject} is {graded.now.name}; propose to lower it from that, to a level below."
            raise Conflict(msg, organism=motion.subject)
        # Who waits for access would have it sooner: fewer reviewers are asked at a lower level.
        interested = rules.makers(graded.organism, graded.versions) | requests.waiting(tx, motion.subject)
        return Stakes(interested, distinct_organisations=graded.now >= Level.CL3)

    def _lower(self, change: Change, call: Call, motion: Motion) -> dict[str, str]:
        to = rules.level_of(motion.facts["to"])
        graded = self._graded(change.tx, call, motion.subject, to)
        _relevel(change, call, graded, to, by=finding.signers(change.tx, motion), motion=motion.name)
        return {"level": to.name}

    def _graded(self, tx: Connection, call: Call, name: str, level: Level) -> _Graded:
        """Read an organism with its versions, hold it, and ask whether the caller may set this level.

        Of two who raise it at one moment, the second must not lower what the first raised.
        """
        organism, grants = finding.organism(tx, self._gate, call, Action.SET_LEVEL, name, lock=True)
        versions = tuple(every(partial(rows.versions, tx, name)))
        now = max((rules.effective_level(organism, version) for version in versions), default=organism.level)
        permit = self._gate.permit(call, Action.SET_LEVEL, entities.organism(organism), grants=grants, lowering=level < now)
        return _Graded(organism, versions, now, permit)

    def version(self, call: Call, name: str) -> Version:
        """Read a version: manifest, facts, marks, provenance; never a byte of its files."""
        with self._changes.database.read() as tx:
            found = finding.version(tx, self._gate, call, Action.DESCRIBE, name)
        self._gate.permit(call, Action.DESCRIBE, found.resource, grants=found.grants)
        return found.subject.version

    def versions(self, call: Call, organism: str, *, page_size: int, page_token: str) -> Page[Version]:
        """List the versions of an organism, newest first."""
        self.get(call, organism)
        with self._changes.database.read() as tx:
            return rows.versions(tx, organism, page_size=page_size, page_token=page_token)

    def attest(self, call: Call, name: str, envelope: bytes) -> tuple[Attestation, Receipt]:
        """Add a statement that the caller signed about a version.

        Raises:
            SignatureInvalid: It is not signed by the caller's key.
            InvalidProvenance: It is not a statement about this version, or one that only its own workflow may add; or it is an
                evaluation that says what evaluations do not, or not all that they must.
        """
        payload = dsse.verify(envelope, call.user.identity_key, payload_type=statements.PAYLOAD_TYPE)
        statement = statements.parse_statement(payload)
        if statement.predicate_type in {statements.PROVENANCE_TYPE, statements.REVIEW_TYPE, DESTRUCTION_TYPE, ERRATUM_TYPE}:
            raise InvalidProvenance(
                "Provenance, reviews, errata and the end of copies are attested by calls of their own; attest something else."
            )
        if statement.predicate_type == statements.EVALUATION_TYPE:
            parse_evaluation(payload)  # figures without what makes them comparable are not taken in
        with self._changes.open() as change:
            found = finding.version(change.tx, self._gate, call, Action.ATTEST, name)
            permit = self._gate.permit(call, Action.ATTEST, found.resource, grants=found.grants)
            digest = found.subject.version.digest
            if statement.digests != (digest,):
                raise Conflict(f"The statement is not about {name}; its one subject must have the digest {digest}.")
            if statement.predicate_type == statements.EVALUATION_TYPE and statement.subjects[0].name != name:
                raise Conflict(f"The evaluation names another version than {name}; attest it of that one.")
            printed = hashlib.sha256(envelope).hexdigest()
            attestation = Attestation(
                f"{name}/attestations/{printed}", statement.predicate_type, call.user.name, envelope, call.time
            )
            rows.add_attestation(change.tx, attestation)
            facts = {"digest": digest, "predicate": statement.predicate_type, "envelope": printed}
            change.enter(entry(Event.ATTEST, call, seq=seq(), subject=name, permit=permit, facts=facts))
        return attestation, change.receipt

    def attestations(self, call: Call, name: str, *, page_size: int, page_token: str) -> Page[Attestation]:
        """List what is attested of a version."""
        self.version(call, name)
        with self._changes.database.read() as tx:
            return rows.attestations(tx, name, page_size=page_size, page_token=page_token)


@dataclass(frozen=True, slots=True)
class _Graded:
    """An organism with its versions, the level it counts as now, and the gate's yes to setting another."""

    organism: Organism
    versions: tuple[Version, ...]
    now: Level
    permit: Permit


def _relevel(
    change: Change, call: Call, graded: _Graded, level: Level, *, by: Sequence[User], commit: str = "", motion: str = ""
) -> Organism:
    """Set a level in the transaction that decided it."""
    name = graded.organism.name
    organism, changed = rules.relevel(graded.organism, graded.versions, level, by=by)
    rows.set_level(change.tx, name, organism.level)
    for version in changed:
        rows.set_level(change.tx, version.name, version.level)
    facts = {"from": graded.now.name, "to": level.name} | ({"motion": motion} if motion else {})
    change.enter(entry(Event.SET_LEVEL, call, seq=seq(), subject=name, permit=graded.permit, commit=commit, facts=facts))
    return organism
