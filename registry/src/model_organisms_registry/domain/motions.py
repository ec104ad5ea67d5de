"""Acts that take two people: what a motion may say, who may sign it, when there are enough. What an act does is its workflow's.

- A motion is what its proposer signed, all of it: registry, name, kind, subject, facts and expiry. Nothing of it changes later;
  whoever means something else proposes something else.
- A signature counts only while its signer is active, with the same key, and in a role that may sign motions of this kind.
- One person counts once, one key counts once, and where houses must differ, one house counts once.
- Whoever has an interest in the subject does not sign.
- One signed no ends a motion. It lapses 72 hours after it was proposed, and every signature with it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

from model_organisms import names
from model_organisms.errors import ApprovalRefused, Conflict, InvalidArgument
from model_organisms.formats.dsse import key_id
from model_organisms.formats.motions import vote_of
from model_organisms.records import Motion, MotionKind, MotionState, Role, Signature, User, UserState

from model_organisms_registry.domain.approvals import APPROVAL_LIFETIME, CLOCK_SKEW, REASON_LIMIT, SHORTEST_REFUSAL
from model_organisms_registry.domain.audit import FACT_LIMIT
from model_organisms_registry.domain.organisms import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from model_organisms.formats.motions import Vote


@dataclass(frozen=True, slots=True)
class Rule:
    """What a motion of one kind says, and who signs it."""

    subject: str
    """Kind of name of what it is done to, as in `names.PATTERNS`."""
    facts: frozenset[str]
    """Exactly these; a fact that nobody expects could mean anything."""
    roles: frozenset[Role]
    """Signers have one of them."""
    signatures: int = 2


def _rule(subject: str, facts: str, *roles: Role) -> Rule:
    return Rule(subject, frozenset(facts.split()), frozenset(roles))


RULES: Mapping[MotionKind, Rule] = MappingProxyType(
    {
        MotionKind.LOWER_LEVEL: _rule("organism", "from to", Role.REVIEWER),
        MotionKind.DESTROY_KEY: _rule("version", "digest", Role.REVIEWER, Role.ADMIN),
        MotionKind.ADOPT_POLICIES: _rule("registry", "from to", Role.ADMIN),
        MotionKind.REPLACE_KEYS: _rule("user", "key", Role.ADMIN),
        MotionKind.APPOINT: _rule("user", "display_name organisation roles", Role.ADMIN),
        MotionKind.OPEN_GAME: _rule("game", "terms", Role.REVIEWER),
    }
)
"""The table. `policies/motions.cedar` says the same of roles."""


@dataclass(frozen=True, slots=True)
class Stakes:
    """What the subject of a motion, as it stands now, demands of the signers."""

    barred: frozenset[str] = frozenset()
    """Users who do not sign, because they have an interest in it."""
    distinct_organisations: bool = False


def propose(
    vote: Vote,
    proposer: User,
    *,
    kind: MotionKind,
    subject: str,
    facts: Mapping[str, str],
    origin: str,
    now: datetime,
) -> Motion:
    """Make a motion that nobody has signed yet, of what its proposer says in their vote; `sign` adds that vote.

    Args:
        vote: What the proposer signed. It names the motion, which must be new, and says when it lapses.
        proposer: Whose key that is.
        kind: What shall be done.
        subject: To what.
        facts: How exactly.
        origin: Name of this registry.
        now: The call's time.

    Raises:
        InvalidArgument: Facts or subject do not fit the kind.
        ApprovalRefused: The vote is about something else, is a no, or lives too long.
    """
    rule = RULES[kind]
    if facts.keys() != rule.facts:
        raise InvalidArgument(f"A motion to {kind} states {', '.join(sorted(rule.facts))}, and nothing else.", field="facts")
    for name, value in facts.items():
        if not value or len(value) > FACT_LIMIT or not value.isprintable():
            raise InvalidArgument(f"The fact {name} is one line of 1 to {FACT_LIMIT} printable characters.", field="facts")
    motion = Motion(
        name=names.check("motion", vote.motion),
        kind=kind,
        subject=names.check(rule.subject, subject),
        facts=dict(facts),
        proposer=proposer.name,
        state=MotionState.OPEN,
        create_time=now,
        expire_time=vote.expires,
        needed=rule.signatures,
    )
    if not vote.approve:
        _refuse("A motion begins with its proposer's yes; sign that.", motion)
    if vote.expires > now + APPROVAL_LIFETIME + CLOCK_SKEW:
        _refuse("A motion lives 72 h at most; propose it with an earlier expiry.", motion)
    _about(motion, vote, origin, now)
    return motion


def sign(
    motion: Motion,
    vote: Vote,
    signer: User,
    *,
    signers: Iterable[User],
    stakes: Stakes,
    origin: str,
    envelope: bytes,
    now: datetime,
) -> Motion:
    """Take one person's yes or no.

    1. The motion is open.
    2. The vote is about this motion of this registry, as it stands.
    3. This person may sign it, and has not yet; a yes adds a person, a key and, where houses must differ, a house.
    4. A no ends it; a yes is added. Whether there are enough is `complete`'s to say.

    Args:
        motion: As it stands in this transaction.
        vote: What the signer signed; the caller has verified the signature with the signer's own key.
        signer: Whose key that is.
        signers: Who has signed so far, as their accounts stand now.
        stakes: What the subject demands, as it stands now.
        origin: Name of this registry.
        envelope: The signed bytes, kept as proof.
        now: The call's time.

    Returns:
        The motion with the signature as its last: open still, or rejected.

    Raises:
        Conflict: It is no longer open.
        ApprovalRefused: The vote is about something else, has lapsed, or this person may not sign.
        InvalidArgument: A no without a reason.
    """
    pending(motion, now=now)
    _about(motion, vote, origin, now)
    if not _stands(signer, motion.kind):
        _refuse(f"Only {_roles(motion.kind)} sign a motion to {motion.kind}; ask one.", motion)
    if signer.name in stakes.barred:
        _refuse("You have an interest in what this motion is about; others must sign it.", motion)
    if any(given.signer == signer.name for given in motion.signatures):
        _refuse("You have signed this motion already; another person must.", motion)
    given = counted(motion, signers=signers, stakes=stakes, now=now)
    if key_id(signer.identity_key) in {signature.key_id for signature in given}:
        _refuse("A signature by this key is there already; another person must sign, with their own.", motion)
    if vote.approve and stakes.distinct_organisations and signer.organisation in {item.organisation for item in given}:
        _refuse("Somebody of your organisation has signed; somebody of another one must.", motion)
    signature = Signature(
        signer=signer.name,
        organisation=signer.organisation,
        key_id=key_id(signer.identity_key),
        approve=vote.approve,
        reason=plain(vote.reason, "reason", limit=REASON_LIMIT),
        envelope=envelope,
        create_time=now,
    )
    signed = replace(motion, signatures=(*motion.signatures, signature))
    if vote.approve:
        return signed
    if len(signature.reason) < SHORTEST_REFUSAL:
        msg = f"Say in at least {SHORTEST_REFUSAL} characters why, so that its proposer knows what to change."
        raise InvalidArgument(msg, field="reason")
    return replace(signed, state=MotionState.REJECTED)


def pending(motion: Motion, *, now: datetime) -> Motion:
    """Return a motion that can still be signed.

    Raises:
        Conflict: It is carried, rejected, withdrawn or lapsed.
    """
    if lapse(motion, now=now).state is not MotionState.OPEN:
        msg = f"The motion is {lapse(motion, now=now).state.value}; propose a new one."
        raise Conflict(msg, motion=motion.name)
    return motion


def lapse(motion: Motion, *, now: datetime) -> Motion:
    """The motion as it reads at this time: an open one lapses by itself."""
    over = motion.state is MotionState.OPEN and now >= motion.expire_time
    return replace(motion, state=MotionState.EXPIRED) if over else motion


def withdraw(motion: Motion, *, now: datetime) -> Motion:
    """Take an open motion back. That it is its proposer who does, the gate says.

    Raises:
        Conflict: It is no longer open.
    """
    return replace(pending(motion, now=now), state=MotionState.WITHDRAWN)


def counted(motion: Motion, *, signers: Iterable[User], stakes: Stakes, now: datetime) -> tuple[Signature, ...]:
    """Signatures that count: a yes, not lapsed, of somebody without an interest who still stands with that key and role.

    Args:
        motion: As it stands in this transaction.
        signers: Who has signed it, as their accounts stand in this transaction.
        stakes: What the subject demands, as it stands now.
        now: The call's time.
    """
    if now >= motion.expire_time:
        return ()
    keys = {user.name: key_id(user.identity_key) for user in signers if _stands(user, motion.kind)}
    yes = (item for item in motion.signatures if item.approve and item.signer not in stakes.barred)
    return tuple(item for item in yes if keys.get(item.signer) == item.key_id)


def complete(motion: Motion, *, signers: Iterable[User], stakes: Stakes, now: datetime) -> bool:
    """Whether an open motion has the signatures its kind takes, of those that count."""
    given = counted(motion, signers=signers, stakes=stakes, now=now)
    people, keys = {item.signer for item in given}, {item.key_id for item in given}
    houses = {item.organisation for item in given}
    enough = len(houses) if stakes.distinct_organisations else len(people)
    return motion.state is MotionState.OPEN and min(len(people), len(keys), enough) >= RULES[motion.kind].signatures


def carried(motion: Motion) -> Motion:
    """The motion after its act was done.

    Raises:
        Conflict: It is not open.
    """
    if motion.state is not MotionState.OPEN:
        raise Conflict(f"The motion is {motion.state.value}; it is carried out once.", motion=motion.name)
    return replace(motion, state=MotionState.CARRIED)


def _about(motion: Motion, vote: Vote, origin: str, now: datetime) -> None:
    stands = vote_of(motion, origin=origin, approve=vote.approve, reason=vote.reason, nonce=vote.nonce)
    for field in fields(stands):
        if getattr(vote, field.name) != getattr(stands, field.name):
            _refuse(f"What you signed has another {field.name} than the motion; read it again and sign that.", motion)
    if now >= vote.expires:
        _refuse("What you signed has lapsed; propose it anew.", motion)


def _stands(user: User, kind: MotionKind) -> bool:
    return user.state is UserState.ACTIVE and not RULES[kind].roles.isdisjoint(user.roles)


def _roles(kind: MotionKind) -> str:
    return " and ".join(f"{role.value}s" for role in sorted(RULES[kind].roles))


def _refuse(why: str, motion: Motion) -> NoReturn:
    raise ApprovalRefused(why, motion=motion.name)
