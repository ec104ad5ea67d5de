"""What may become an organism or a version, and how its level changes; how its state does, `recall.py` says.

- A level is stated, never guessed; a version is as dangerous as the higher of its own level and its organism's.
- A level is raised by any reviewer at once, and lowered only by two.
- A version is admitted only if what was claimed of it, what was signed and what the bytes say are the same.
- A version never changes; it can be taken out of service.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import (
    Conflict,
    Denied,
    Destroyed,
    InvalidArgument,
    InvalidBundle,
    InvalidName,
    Quarantined,
    Withdrawn,
)
from model_organisms.formats import provenance
from model_organisms.formats.conditions import NAMED, check
from model_organisms.records import (
    FileKind,
    Level,
    Organism,
    Role,
    User,
    UserState,
    Version,
    VersionRef,
    VersionState,
)

from model_organisms_registry.domain.hazard import known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from model_organisms.formats.manifest import Manifest
    from model_organisms.records import AdapterFacts, Condition, Purpose

MOST_TRAITS = 32
MOST_CONDITIONS = 32
TRAIT_LIMIT = 64
DESCRIPTION_LIMIT = 10_000
LINE_LIMIT = 200
REASON_LIMIT = 2_000
REVIEWERS_TO_LOWER = 2


@dataclass(frozen=True, slots=True)
class Subject:
    """A version with its organism as they stand now: what a request is about."""

    organism: Organism
    version: Version
    behind: Subject | None = None
    """Of an alias in a game: what it stands for, which is loaded, and named nowhere."""
    base: bool = False
    """Of an alias: only the base model answers."""

    @property
    def level(self) -> Level:
        """How dangerous it counts."""
        return effective_level(self.organism, self.version)

    @property
    def ref(self) -> VersionRef:
        """What a request, an approval and a grant bind."""
        return VersionRef(self.version.name, self.version.digest)

    @property
    def authors(self) -> set[str]:
        """Who made it, as far as they have accounts here."""
        return {self.version.publisher, *self.version.co_authors}

    @property
    def weights(self) -> int:
        """Bytes of its adapters."""
        return sum(file.size for file in self.version.files if file.kind is FileKind.WEIGHTS)

    @property
    def parameters(self) -> int:
        """Numbers in its adapters."""
        return sum(fact.parameters for fact in self.version.facts)


def effective_level(organism: Organism, version: Version) -> Level:
    """The higher of the two levels; one that is not known is CL4."""
    return max(known(organism.level), known(version.level))


def level_of(text: str) -> Level:
    """Read a level that a motion names.

    Raises:
        InvalidArgument: It is none.
    """
    if text not in Level.__members__:
        raise InvalidArgument("A level is one of CL1, CL2, CL3 and CL4.", field="level")
    return Level[text]


def create(
    name: str,
    *,
    owner: User,
    level: Level | None,
    base_model: str,
    display_name: str = "",
    description: str = "",
    traits: Iterable[str] = (),
    hidden: bool = False,
    purposes: Sequence[Purpose] = (),
    conditions: Sequence[Condition] = (),
    now: datetime,
) -> Organism:
    """Make an organism that has no version yet.

    Args:
        name: Its resource name.
        owner: Who answers for it.
        level: Its containment level. There is no default: whoever made it must say.
        base_model: Hub id of the base model.
        display_name: One line; by default the last part of the name.
        description: Plain text.
        traits: Short words to find it by.
        hidden: Shown to reviewers, its owner and its grantees only.
        purposes: What it may be used for; none permits every purpose.
        conditions: What is asked of everybody who uses it.
        now: The call's time.

    Raises:
        InvalidArgument: No level, or a text that is too long or not plain.
        InvalidName: A malformed name.
    """
    if level is None or level not in set(Level):
        raise InvalidArgument("State the containment level, CL1 to CL4; nobody guesses it for you.", field="level")
    tags = tuple(dict.fromkeys(tag.strip() for tag in traits))
    if len(tags) > MOST_TRAITS:
        raise InvalidArgument(f"An organism has at most {MOST_TRAITS} traits.", field="traits")
    for tag in tags:
        _line(tag, "traits", limit=TRAIT_LIMIT)
    return Organism(
        name=names.check("organism", name),
        display_name=_line(display_name.strip() or names.short(name), "display_name"),
        description=plain(description, "description", limit=DESCRIPTION_LIMIT),
        owner=owner.name,
        level=Level(level),
        base_model=_line(base_model, "base_model"),
        traits=tags,
        hidden=hidden,
        create_time=now,
        purposes=tuple(dict.fromkeys(purposes)),
        conditions=asked_of_users(conditions),
    )


def asked_of_users(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """Return conditions that can be judged together.

    Raises:
        InvalidArgument: Too many, one that is not understood, or one of a kind twice, but for project and institution.
    """
    if len(conditions) > MOST_CONDITIONS:
        raise InvalidArgument(f"An organism has at most {MOST_CONDITIONS} conditions.", field="conditions")
    kinds = [condition if condition.modifier in NAMED else condition.modifier for condition in map(check, conditions)]
    if len(set(kinds)) < len(kinds):
        msg = "Name a condition once; only projects and institutions may be several, of which any one will do."
        raise InvalidArgument(msg, field="conditions")
    return tuple(conditions)


def condition(organism: Organism, *, purposes: Sequence[Purpose], conditions: Sequence[Condition]) -> Organism:
    """Set what the owner of an organism asks of its users, tighter or looser.

    Requests that wait, wait for their requester from then on: reviewers signed other conditions. Grants keep those they were
    given under; who wants them ended takes them back.

    Args:
        organism: As it stands.
        purposes: All that are permitted; none permits every one.
        conditions: All that are asked.

    Raises:
        InvalidArgument: As for `asked_of_users`.
        Conflict: They are so already.
    """
    changed = replace(organism, purposes=tuple(dict.fromkeys(purposes)), conditions=asked_of_users(conditions))
    if changed == organism:
        raise Conflict(f"{organism.name} asks this already; nothing is left to do.", organism=organism.name)
    return changed


def admit(
    organism: Organism,
    *,
    number: int,
    publisher: User,
    manifest: Manifest,
    facts: Sequence[AdapterFacts],
    envelope: bytes,
    largest: int,
    now: datetime,
    unchecked: Sequence[str] = (),
) -> Version:
    """Admit a bundle as the next version of an organism.

    1. It is within the bounds of this registry, and has weights.
    2. Its provenance is signed by the publisher's own key, and about these very bytes.
    3. What the provenance claims the bytes bear out; what cannot be held against them is marked.

    That the bytes hash to the manifest, and what they say, was read in `formats/`; that this publisher may, the gate says.

    Args:
        organism: What it becomes a version of.
        number: The next free one.
        publisher: Who publishes.
        manifest: Of the bytes as they arrived.
        facts: What the bytes say of each adapter.
        envelope: The signed provenance.
        largest: Bytes of a bundle that this registry takes.
        now: The call's time.
        unchecked: Marks of what could not be held against the base model.

    Raises:
        InvalidBundle: It is too large, or there is no adapter in it.
        SignatureInvalid: The publisher's key did not sign the provenance.
        InvalidProvenance: It is not about these bytes.
        ClaimMismatch: The bytes contradict it.
    """
    size = sum(file.size for file in manifest.files)
    if size > largest:
        raise InvalidBundle(f"The bundle has {size:,} bytes, this registry takes {largest:,}; publish fewer checkpoints.")
    if not facts or not any(file.kind is FileKind.WEIGHTS for file in manifest.files):
        raise InvalidBundle("There is no adapter in the bundle; add adapter_model.safetensors and adapter_config.json.")
    stated = provenance.verify(envelope, publisher.identity_key, digest=manifest.digest)
    marks = provenance.compare(stated, facts)
    if stated.base.id != organism.base_model:
        marks = (*marks, "the provenance names another base model than the organism")
    return Version(
        name=names.version(organism.name, number),
        digest=manifest.digest,
        state=VersionState.PUBLISHED,
        level=known(organism.level),
        publisher=publisher.name,
        files=manifest.files,
        facts=tuple(facts),
        marks=(*marks, *unchecked),
        provenance=envelope,
        create_time=now,
        publisher_key=publisher.identity_key,
        co_authors=tuple(dict.fromkeys(_accounts(stated.co_authors))),
    )


def _accounts(named: Iterable[str]) -> Iterator[str]:
    """Those of the co-authors who are named as accounts are, in full or by the last part; `Jane Doe` is nobody's account."""
    for text in named:
        with suppress(InvalidName):
            yield names.user(text)


def visible(user: User, organism: Organism, *, grantee: bool) -> bool:
    """Whether a user may know of an organism. Listings filter by this; `organisms.cedar` says the same to single calls."""
    if user.state is not UserState.ACTIVE:
        return False
    return not organism.hidden or organism.owner == user.name or grantee or Role.REVIEWER in user.roles


def relevel(
    organism: Organism, versions: Sequence[Version], level: Level, *, by: Sequence[User]
) -> tuple[Organism, tuple[Version, ...]]:
    """Change the level of an organism and its versions.

    Raising takes one reviewer, at once: approvals of pending requests and grants given under the lower level stop counting.
    Lowering takes two different ones who neither own nor made it, and of different organisations where it was CL3 or above.

    Args:
        organism: The organism.
        versions: All its versions.
        level: The new level.
        by: The reviewers who signed for this very change.

    Returns:
        The organism, and its versions in the same order.

    Raises:
        Denied: Somebody who is no reviewer, or a lowering that lacks its second reviewer.
        Conflict: It has that level already.
    """
    highest = max((effective_level(organism, version) for version in versions), default=known(organism.level))
    if level == known(organism.level) == highest:
        raise Conflict(f"{organism.name} is {level.name} already.", organism=organism.name)
    strangers = [user.name for user in by if user.state is not UserState.ACTIVE or Role.REVIEWER not in user.roles]
    if strangers or not by:
        raise Denied("A level is set by active reviewers; ask one.", organism=organism.name)
    # Raising the line leaves a version that is higher still where it is; naming the line's own level brings it down.
    lowering = level <= known(organism.level)
    if lowering:
        _check_lowering(organism, versions, highest, by)
    changed = (replace(version, level=level if lowering else max(known(version.level), level)) for version in versions)
    return replace(organism, level=level), tuple(changed)


def makers(organism: Organism, versions: Iterable[Version]) -> frozenset[str]:
    """The owner of an organism, and whoever made a version of it."""
    return frozenset({organism.owner}.union(*(Subject(organism, version).authors for version in versions)))


def _check_lowering(organism: Organism, versions: Sequence[Version], highest: Level, by: Sequence[User]) -> None:
    interested = makers(organism, versions)
    people = {user.name: user.organisation for user in by if user.name not in interested}
    if len(people) < REVIEWERS_TO_LOWER:
        advice = "`mo motions propose lower-level NAME`"
        msg = f"Lowering a level takes {REVIEWERS_TO_LOWER} reviewers who neither own nor made it: {advice}."
        raise Denied(msg, organism=organism.name)
    if highest >= Level.CL3 and len(set(people.values())) < REVIEWERS_TO_LOWER:
        msg = f"Lowering from {highest.name} takes reviewers of different organisations; ask one of another organisation."
        raise Denied(msg, organism=organism.name)


def served(state: VersionState, version: str) -> None:
    """Refuse what is out of service.

    Raises:
        Withdrawn: Nothing of it is served any more.
        Destroyed: Nor could it be.
        Quarantined: Nothing of it is served until a reviewer releases it.
    """
    if state is VersionState.QUARANTINED:
        msg = f"{version} is quarantined while somebody looks into it; wait for its release, or use another version."
        raise Quarantined(msg, version=version)
    if state is VersionState.DESTROYED:
        raise destroyed(version)
    if state is not VersionState.PUBLISHED:
        raise Withdrawn(f"{version} is {state.value}; use another version of the organism.", version=version)


def destroyed(version: str) -> Destroyed:
    """Make the error for what nothing opens any more."""
    msg = f"{version} was destroyed by two people: its key is gone, so nothing opens it; its card, provenance and history remain."
    return Destroyed(msg, version=version)


def plain(text: str, field: str, *, limit: int) -> str:
    """Return text of at most `limit` characters without control characters but newline and tab, trimmed.

    Raises:
        InvalidArgument: It is longer, or holds others: they would run in somebody's terminal.
    """
    trimmed = text.strip()
    if len(trimmed) > limit:
        raise InvalidArgument(f"{field} has {len(trimmed)} characters; at most {limit} are kept.", field=field)
    if not all(character.isprintable() or character in "\n\t" for character in trimmed):
        raise InvalidArgument(f"{field} holds control characters; send plain text.", field=field)
    return trimmed


def _line(text: str, field: str, *, limit: int = LINE_LIMIT) -> str:
    if not text or len(text) > limit or not text.isprintable():
        raise InvalidArgument(f"{field} is one line of 1 to {limit} printable characters.", field=field)
    return text
