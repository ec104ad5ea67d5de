"""What the ledger says about each thing that can happen: the one table of events, and the only makers of entries.

- An entry names, counts and commits; it carries no content. A prompt, a completion, a reason or a justification is sealed in
  the blob store, and the entry holds its commitment.
- An entry has exactly the facts its event lists: nothing forgotten, nothing smuggled in.
- Whoever did something may read that they did it; the rest is for auditors, reviewers and admins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from model_organisms.errors import InvalidArgument
from model_organisms.records import Entry, User, UserState

from model_organisms_registry.domain.identity import OVERSIGHT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from model_organisms_registry.domain.permits import Call, Permit

SEQ_BITS = 63
FACT_LIMIT = 300
"""Characters of one fact: a resource name, a digest, a count or a short list of them."""
REGISTRY = "registry"
"""Actor of what the registry does by itself: it starts, it lets a session expire."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What an entry of one event holds besides time, type, actor and subject."""

    type: str
    facts: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    commit: bool | None = False
    """It commits to content that is kept elsewhere; None: where there was any."""
    intent: bool = False
    """It answers an earlier intent entry."""


def _shape(kind: str, facts: str = "", *, optional: str = "", commit: bool | None = False, intent: bool = False) -> Shape:
    return Shape(kind, frozenset(facts.split()), frozenset(optional.split()), commit, intent)


_RERUN = "reason position output engine engine_then"


class Event(Enum):
    """Everything that is written down. The value says which facts are there."""

    REGISTRY_START = _shape("registry.start", "version policies")
    REGISTRY_STOP = _shape("registry.stop")
    LOST = _shape("registry.lost", "kind parent tokens bytes values", intent=True)
    DESTROY_KEY = _shape("organisms.destroy", "digest key motion")
    KEY_DESTROYED = _shape("organisms.destroyed", "digest key")
    REWRAP_INTENT = _shape("registry.rewrap.intent", "keeper of")
    REWRAP_RESULT = _shape("registry.rewrap.result", "keys records failed", intent=True)

    INVITE = _shape("identity.invite", "organisation roles", optional="alone motion issuer subject")
    RECOVER = _shape("identity.recover", "key motion")
    ENROL = _shape("identity.enrol", "identity_key sealing_key certificate expires", optional="replaces issuer subject")
    ROTATE = _shape("identity.rotate", "identity_key sealing_key certificate expires replaces")
    DENY_CERTIFICATE = _shape("identity.deny", "certificate", commit=None)
    CERTIFICATE = _shape("identity.certificate", "certificate expires", optional="issuer subject")
    SUSPEND = _shape("identity.suspend", commit=None)
    REINSTATE = _shape("identity.reinstate", commit=None)

    CREATE_ORGANISM = _shape("organisms.create", "level hidden", optional="conditions")
    SET_CONDITIONS = _shape("organisms.conditions", "conditions")
    PUBLISH = _shape("organisms.publish", "digest level size provenance", optional="parameters marks upload")
    REFUSE_UPLOAD = _shape("organisms.refuse", "reason", optional="digest upload")
    ATTEST = _shape("organisms.attest", "digest predicate envelope")
    WITHDRAW_VERSION = _shape("organisms.withdraw", "digest", commit=None)
    QUARANTINE_VERSION = _shape("organisms.quarantine", "digest", commit=None)
    ERRATUM = _shape("organisms.erratum", "digest envelope", optional="successor")
    RELEASE_VERSION = _shape("organisms.release", "digest", commit=None)
    SET_LEVEL = _shape("organisms.level", "from to", optional="motion", commit=None)
    PULL_INTENT = _shape("organisms.pull.intent", "version digest recipient size", optional="mark into")
    PULL_RESULT = _shape("organisms.pull.result", "version digest bytes outcome", optional="capsule into", intent=True)

    REQUEST = _shape("access.request", "rung level purpose revision versions", optional="conditions", commit=None)
    AMEND = _shape("access.amend", "revision", optional="conditions", commit=None)
    WITHDRAW_REQUEST = _shape("access.withdraw", "revision")
    APPROVE = _shape("access.approve", "revision envelope given needed", optional="organisation")
    REJECT = _shape("access.reject", "revision envelope", optional="organisation", commit=None)
    LAPSE = _shape("access.lapse", "revision")
    GRANT = _shape("access.grant", "rung level purpose versions expires request", optional="budget conditions")
    REVOKE = _shape("access.revoke", commit=None)
    DESTROYED = _shape("access.destroyed", "version digest pulls envelope")
    NOTICE = _shape("access.notice", "kind users")
    READ_NOTICES = _shape("access.notice.read", "newest count")

    PROPOSE_MOTION = _shape("motions.propose", "kind subject facts expires envelope")
    SECOND_MOTION = _shape("motions.second", "kind envelope given needed", optional="organisation")
    REJECT_MOTION = _shape("motions.reject", "kind envelope", optional="organisation")
    WITHDRAW_MOTION = _shape("motions.withdraw", "kind")
    CARRY_MOTION = _shape("motions.carry", "kind subject facts signers")

    CREATE_GAME = _shape("games.create", "commitment terms level aliases players deadline")
    OPEN_GAME = _shape("games.open", "commitment terms motion")
    JOIN_GAME = _shape("games.join", "commitment terms")
    GUESS = _shape("games.guess", "alias guess count")
    REVEAL_GAME = _shape("games.reveal", "commitment nonce guesses")

    OPEN_SESSION = _shape("sandbox.open", "version digest purpose expires", optional="budget walls claimed_walls place")
    SAMPLE_INTENT = _shape("sandbox.sample.intent", "session parameters seed", optional="steer scale", commit=True)
    SAMPLE_RESULT = _shape(
        "sandbox.sample.result", "session outcome tokens bytes output receipt", optional="rerun", commit=True, intent=True
    )
    SAMPLE_RELEASE = _shape("sandbox.sample.release", "session bytes", optional="tokens", commit=True, intent=True)
    PROBE_INTENT = _shape("sandbox.probe.intent", "session", optional="values asked steer scale direction", commit=True)
    PROBE_RESULT = _shape(
        "sandbox.probe.result", "session outcome values output receipt", optional="direction", commit=True, intent=True
    )
    RERUN = _shape("sandbox.rerun", "session verdict result", optional=_RERUN, intent=True)
    RERUN_DIFFERS = _shape("sandbox.rerun.differs", "session verdict result", optional=_RERUN, intent=True)
    WATCH = _shape("sandbox.watch", "follow")
    END_SESSION = _shape("sandbox.end", "state", optional="tokens bytes values", commit=None)

    ADOPT_POLICIES = _shape("policies.adopt", "from to", optional="motion")
    ERASE_SESSION = _shape("sandbox.erase", "key texts")

    DENY = _shape("gate.deny", "action reason")

    @property
    def type(self) -> str:
        """The `type` field of its entries."""
        return self.value.type


BY_TYPE = {event.type: event for event in Event}
"""Entry type to event, for readers of the log."""


def entry(
    event: Event,
    call: Call | None,
    *,
    seq: int,
    subject: str,
    time: datetime | None = None,
    permit: Permit | None = None,
    grant: str = "",
    commit: str = "",
    intent: int = -1,
    facts: Mapping[str, str] | None = None,
) -> Entry:
    """Make the entry of something that happened or is about to.

    Args:
        event: What it is.
        call: In which call; None where the registry acts by itself, which then gives `time`.
        seq: Random 63-bit number.
        subject: Resource it happened to.
        time: Only without a call.
        permit: The gate's yes, where one was needed: its policies and reasons are kept.
        grant: Grant it is done under; by default the permit's.
        commit: Commitment to content kept elsewhere, 64 hex digits.
        intent: Index of the intent entry that this one answers.
        facts: What the event's shape lists.

    Returns:
        The entry.

    Raises:
        InvalidArgument: Facts, commitment or intent that do not fit the event: a fault of the calling workflow.
    """
    when = call.time if call else time
    if when is None:
        raise InvalidArgument(f"{event.type} without a call needs the time it happened at.")
    shape: Shape = event.value
    said = dict(facts or {})
    _check(shape, said, commit, intent)
    if not 0 <= seq < 1 << SEQ_BITS:
        raise InvalidArgument(f"{shape.type} needs a random number of {SEQ_BITS} bits as seq.")
    return Entry(
        seq=seq,
        time=when,
        type=shape.type,
        actor=call.user.name if call else REGISTRY,
        key=call.key_id if call else "",
        subject=subject,
        decision="allow" if permit else "",
        grant=grant or (permit.grant if permit else ""),
        policies=permit.policies if permit else "",
        reasons=permit.reasons if permit else (),
        commit=commit,
        intent=intent,
        facts=said,
    )


def denial(
    call: Call,
    *,
    seq: int,
    action: str,
    subject: str,
    reason: str,
    policies: str,
    reasons: tuple[str, ...] = (),
    grant: str = "",
) -> Entry:
    """Make the entry of a refusal by the gate.

    Args:
        call: In which call.
        seq: Random 63-bit number.
        action: What was asked.
        subject: Of which resource; here the true name stands, also where the caller was told that there is none.
        reason: Reason of the error the caller got.
        policies: Digest of the policy set.
        reasons: Ids of the policies that forbade it; none where no policy allowed it, or the caller was told that there is none.
        grant: The grant that did not suffice, if there was one and the caller may know of it.
    """
    _check(Event.DENY.value, {"action": action, "reason": reason}, "", -1)
    return Entry(
        seq=seq,
        time=call.time,
        type=Event.DENY.type,
        actor=call.user.name,
        key=call.key_id,
        subject=subject,
        decision="deny",
        grant=grant,
        policies=policies,
        reasons=reasons,
        facts={"action": action, "reason": reason},
    )


def _check(shape: Shape, facts: Mapping[str, str], commit: str, intent: int) -> None:
    missing = shape.facts - facts.keys()
    foreign = facts.keys() - shape.facts - shape.optional
    if missing or foreign:
        msg = f"An entry {shape.type} lacks {sorted(missing)} and may not hold {sorted(foreign)}; see domain/audit.py."
        raise InvalidArgument(msg, type=shape.type)
    for name, value in facts.items():
        if not isinstance(value, str) or len(value) > FACT_LIMIT or not value.isascii() or not value.isprintable():
            msg = f"Fact '{name}' of {shape.type} must be up to {FACT_LIMIT} printable ASCII characters; content is committed to."
            raise InvalidArgument(msg, type=shape.type)
    if shape.commit not in {None, bool(commit)} or (commit and not _is_digest(commit)):
        raise InvalidArgument(f"An entry {shape.type} {'needs' if shape.commit else 'has no'} commitment (64 hex digits).")
    if (intent >= 0) is not shape.intent:
        raise InvalidArgument(f"An entry {shape.type} {'needs the index of its' if shape.intent else 'answers no'} intent.")


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")  # noqa: PLR2004 - SHA-256 in hex


def reads_all(user: User) -> bool:
    """Whether a user may read every entry, not only their own."""
    return user.state is UserState.ACTIVE and not OVERSIGHT.isdisjoint(user.roles)


def readable(user: User, what: Entry) -> bool:
    """Whether a user may read one entry: their own deeds, what was done to their account, or all for those who read all."""
    return reads_all(user) or (user.state is UserState.ACTIVE and user.name in {what.actor, what.subject})
