"""How a version is taken out of service and put back; who is told, and what of it ends at once, the workflow sees to.

- Stopping takes one person and a reason, at once. Starting again takes another: whoever set it aside does not release it.
- An erratum is added beside a version and never taken away; the version stays as it was.
- A quarantine ends by a release or a withdrawal; a withdrawal ends by nothing.
- What is withdrawn can be destroyed, by two people; that ends by nothing either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import Conflict, Denied, InvalidArgument
from model_organisms.records import VersionRef, VersionState

from model_organisms_registry.domain.hazard import level_rules
from model_organisms_registry.domain.organisms import REASON_LIMIT, plain

if TYPE_CHECKING:
    from datetime import datetime

    from model_organisms.formats.erratum import Correction
    from model_organisms.records import User, Version

    from model_organisms_registry.domain.hazard import HazardTable


TAKEN_BACK = (VersionState.WITHDRAWN, VersionState.DESTROYED)
"""For good: whoever holds a copy owes an attestation that it is destroyed."""
MOST_ERRATA = 32


def withdraw(version: Version, *, reason: str, by: User, now: datetime) -> Version:
    """Take a version back, for good. Whoever may (the gate says), everybody who holds it reads the reason.

    Raises:
        Conflict: It is withdrawn already.
        InvalidArgument: No reason.
    """
    if version.state in TAKEN_BACK:
        raise Conflict(f"{version.name} is {version.state.value} already.", version=version.name)
    return _stopped(version, VersionState.WITHDRAWN, reason, by, now)


def check_destruction(version: Version, *, digest: str) -> None:
    """Refuse to destroy what may yet be served, or what two people did not mean.

    Raises:
        Conflict: It is not withdrawn, or destroyed already, or its digest is another.
    """
    if version.state is VersionState.DESTROYED:
        raise Conflict(f"{version.name} is destroyed already.", version=version.name)
    if version.state is not VersionState.WITHDRAWN:
        raise Conflict(
            f"{version.name} is {version.state.value}; withdraw it first, then propose to destroy it.", version=version.name
        )
    if version.digest != digest:
        raise Conflict(f"{version.name} has the digest {version.digest}; propose it with that.", version=version.name)


def destroy(version: Version, *, digest: str) -> Version:
    """Withdraw what is withdrawn from every copy too: its state says so from now on, and nothing of who stopped it is lost.

    Raises:
        Conflict: As for `check_destruction`.
    """
    check_destruction(version, digest=digest)
    return replace(version, state=VersionState.DESTROYED)


def quarantine(version: Version, *, reason: str, by: User, now: datetime) -> Version:
    """Set a version aside while somebody looks into it.

    Raises:
        Conflict: It is not in service.
        InvalidArgument: No reason.
    """
    if version.state is not VersionState.PUBLISHED:
        raise Conflict(f"{version.name} is {version.state.value} already.", version=version.name)
    return _stopped(version, VersionState.QUARANTINED, reason, by, now)


def release(version: Version, *, reason: str, by: User) -> Version:
    """Put a quarantined version back into service. That this person is a reviewer and did not make it, the gate says.

    Raises:
        Conflict: It is not quarantined.
        Denied: They set it aside themselves.
        InvalidArgument: No reason.
    """
    if version.state is not VersionState.QUARANTINED:
        raise Conflict(f"{version.name} is {version.state.value}; only a quarantine is lifted.", version=version.name)
    if version.stopped_by == by.name:
        raise Denied("You set this version aside; another reviewer must look and release it.", version=version.name)
    checked_reason(reason)
    return replace(version, state=VersionState.PUBLISHED, note="", stopped_by="", stop_time=None)


def check_successor(version: Version, successor: VersionRef) -> None:
    """Refuse a successor by its name alone, before it is looked for: whether another organism's is there, is not told.

    Raises:
        InvalidArgument: It is the version itself or another organism's.
    """
    if names.organism_of(successor.name) != names.organism_of(version.name) or successor.name == version.name:
        raise InvalidArgument("A version is put right by another one of the same organism; name that.", field="successor")


def check_erratum(version: Version, stated: Correction, successor: Version | None) -> None:
    """Hold an erratum against the version it is about, and the one it points to. Whoever may, the gate says.

    Raises:
        Conflict: It is about other bytes, points to other bytes, or there are as many as a version has.
        InvalidArgument: Its text is not plain.
    """
    if stated.version != VersionRef(version.name, version.digest):
        raise Conflict(f"The erratum is not about {version.name} as it is; make it anew.", version=version.name)
    if len(version.errata) >= MOST_ERRATA:
        raise Conflict(f"{version.name} has {MOST_ERRATA} errata; withdraw it, and publish what is right.", version=version.name)
    plain(stated.text, "text", limit=REASON_LIMIT)
    if successor is None:
        return
    if stated.successor != VersionRef(successor.name, successor.digest):
        raise Conflict(f"The erratum points to other bytes than {successor.name} has; make it anew.", version=successor.name)


def check_mark(level: object, *, marked: bool, table: HazardTable) -> None:
    """Refuse to go on with an unmarked copy of what is marked by now.

    Raises:
        Conflict: The level was raised since the copy was begun.
    """
    if not marked and level_rules(level, table=table).fingerprinted:
        raise Conflict("The level was raised since this copy was begun, and copies carry a mark from now on; begin a new pull.")


def checked_reason(reason: str) -> str:
    """Return a reason that people can read.

    Raises:
        InvalidArgument: There is none, it is too long, or it is not plain.
    """
    text = plain(reason, "reason", limit=REASON_LIMIT)
    if not text:
        raise InvalidArgument("Say why; everybody who holds the version reads it.", field="reason")
    return text


def _stopped(version: Version, state: VersionState, reason: str, by: User, now: datetime) -> Version:
    return replace(version, state=state, note=checked_reason(reason), stopped_by=by.name, stop_time=now)
