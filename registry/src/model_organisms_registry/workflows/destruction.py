"""Destroying what was withdrawn: a motion of two people, then the version's key, whoever keeps it. Its bytes are never touched.

1. the motion is carried: state and entry `organisms.destroy`, in one transaction; from here on nothing of it is served
2. the key is destroyed, with all its rotations
3. entry `organisms.destroyed`

A crash, or a keeper that is away, between 1 and 2 leaves a version that is called destroyed and a key that lives: the next start,
or the next second, finishes it; one between 2 and 3 leaves the third entry out. What is not bytes remains: card, manifest,
provenance, attestations, history.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from model_organisms.errors import Unavailable
from model_organisms.records import Level, VersionState

from model_organisms_registry.domain import recall as rules
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.motions import Stakes
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.storage.bundles import Stored
from model_organisms_registry.storage.catalog import organisms as rows
from model_organisms_registry.storage.paging import every
from model_organisms_registry.workflows import finding
from model_organisms_registry.workflows.changes import seq
from model_organisms_registry.workflows.motions import Act

if TYPE_CHECKING:
    from datetime import datetime

    from model_organisms.records import Motion, Version

    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.gate.gate import Gate
    from model_organisms_registry.storage.bundles import Bundles
    from model_organisms_registry.storage.database import Connection
    from model_organisms_registry.workflows.changes import Change, Changes

_LOG = logging.getLogger(__name__)


class Destruction:
    """Destroys keys of versions.

    Args:
        changes: Opens transactions.
        gate: Decides who sees the version; who may move this, and how many, the motion's rules say.
        bundles: Where the keys hang.
    """

    def __init__(self, changes: Changes, gate: Gate, bundles: Bundles) -> None:
        """Keep what the steps need."""
        self._changes = changes
        self._gate = gate
        self._bundles = bundles
        self._due: list[Version] = []
        self._busy = threading.Lock()

    def act(self) -> Act:
        """What a motion to destroy a key does."""
        return Act(self._weigh, self._carry, self._carried)

    def recover(self, now: datetime) -> None:
        """Find what a crash left called destroyed with a key that lives, and finish it."""
        with self._changes.database.read() as tx:
            self._due += every(partial(rows.versions_in, tx, VersionState.DESTROYED))
        self.end_due(now)

    def end_due(self, now: datetime) -> None:
        """Destroy what is called destroyed; a keeper that is away is asked again in the next round."""
        with self._busy:
            while self._due:
                version = self._due[0]
                try:
                    was_there = self._bundles.destroy(Stored.of(version))
                except Unavailable as error:
                    _LOG.warning("The key of %s cannot be destroyed yet: %s", version.name, error.message)
                    return
                if was_there:
                    facts = {"digest": version.digest, "key": Stored.of(version).key_id}
                    done = entry(Event.KEY_DESTROYED, None, time=now, seq=seq(), subject=version.name, facts=facts)
                    self._changes.enter(done)
                self._due.pop(0)

    def _weigh(self, tx: Connection, call: Call, motion: Motion) -> Stakes:
        found = finding.version(tx, self._gate, call, Action.DESCRIBE, motion.subject)
        self._gate.permit(call, Action.DESCRIBE, found.resource, grants=found.grants)
        rules.check_destruction(found.subject.version, digest=motion.facts["digest"])
        interested = frozenset({found.subject.organism.owner, *found.subject.authors})
        return Stakes(interested, distinct_organisations=found.subject.level >= Level.CL3)

    def _carry(self, change: Change, call: Call, motion: Motion) -> dict[str, str]:
        before = finding.subject(change.tx, motion.subject).version
        after = rules.destroy(before, digest=motion.facts["digest"])
        rows.set_version_state(change.tx, after, expected=before.state)
        facts = {"digest": after.digest, "key": Stored.of(after).key_id, "motion": motion.name}
        change.enter(entry(Event.DESTROY_KEY, call, seq=seq(), subject=after.name, facts=facts))
        return {"key": Stored.of(after).key_id}

    def _carried(self, motion: Motion, now: datetime) -> None:
        with self._changes.database.read() as tx:
            self._due.append(rows.version(tx, motion.subject))
        self.end_due(now)
