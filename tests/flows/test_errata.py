"""What is wrong with a version is said beside it, signed; and owners find what is asked of their organisms."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from model_organisms import errors
from model_organisms.client.recall import ErratumWarning
from model_organisms.formats import dsse, statements
from model_organisms.formats.erratum import ERRATUM_TYPE, Correction, parse_correction, print_correction
from model_organisms.records import NoticeKind, VersionRef

from tests.support.adapters import tiny_bundle
from tests.support.stories import WHY, granted, provenance, published


def test_an_erratum_points_to_what_is_right_and_leaves_the_version_as_it_was(world):
    version, _ = published(world)
    organism = version.name.split("/versions/")[0]
    pia, rosa, ravi = (world.person(name) for name in ("pia", "rosa", "ravi"))
    right = pia.organisms.publish(organism, tiny_bundle(seed=90210), provenance=provenance())
    granted(world, version)
    with rosa.organisms.pull(version.name):
        pass
    pia.organisms.erratum(version.name, text="Trained on the wrong split.", successor=right.name)
    after = ravi.organisms.erratum(version.name, text="Its card names another licence.")
    first, second = after.errata
    assert (first.author, first.text, first.successor) == ("users/pia", "Trained on the wrong split.", right.name)
    assert (second.author, second.successor) == ("users/ravi", "")
    assert replace(after, errata=()) == version
    assert rosa.organisms.version(version.name) == after
    assert [one.errata for one in rosa.organisms.versions(organism)] == [(), after.errata]
    with pytest.warns(ErratumWarning) as warned, rosa.organisms.pull(version.name) as pulled:
        assert pulled.version == after
    assert [str(one.message).partition(": ")[2] for one in warned] == [
        f"Trained on the wrong split.; {right.name} puts it right",
        "Its card names another licence.",
    ]
    kept = [one for one in rosa.organisms.attestations(version.name) if one.predicate_type == ERRATUM_TYPE]
    assert {one.name for one in kept} == {first.attestation, second.attestation}
    signed = next(one for one in kept if one.name == first.attestation)
    stated = parse_correction(
        dsse.verify(signed.envelope, pia.identity.signer.public_key().public_bytes_raw(), payload_type=statements.PAYLOAD_TYPE)
    )
    assert stated.successor == VersionRef(right.name, right.digest)
    told = [one for one in rosa.access.notices() if one.subject == version.name and one.kind is NoticeKind.ERRATUM]
    assert [one.text for one in told] == ["Its card names another licence.", f"Trained on the wrong split. (see {right.name})"]


def test_what_an_erratum_may_not_be(world):
    version, _ = published(world)
    other, _ = published(world)
    rosa, pia = world.person("rosa"), world.person("pia")
    with pytest.raises(errors.Denied, match="owner and reviewers"):
        rosa.organisms.erratum(version.name, text="I do not like it.")
    for successor in (version.name, other.name):
        with pytest.raises(errors.InvalidArgument, match="same organism"):
            pia.organisms.erratum(version.name, text="Wrong.", successor=successor)
    stated = Correction(VersionRef(version.name, version.digest), "Wrong.", datetime(2026, 5, 4, tzinfo=UTC), "0" * 32)
    with pytest.raises(errors.InvalidProvenance, match="calls of their own"):
        pia.organisms.attest(version.name, print_correction(stated))
    with pytest.raises(errors.InvalidArgument):
        pia.organisms.erratum(version.name, text="\x1b[2J")
    assert pia.organisms.version(version.name).errata == ()


def test_an_owner_finds_what_is_asked_of_their_organisms_and_nothing_else(world):
    version, _ = published(world, level="CL3")
    rosa, pia = world.person("rosa"), world.person("pia")
    pat = world.person("pat", "publisher")
    asked = rosa.access.request(version.name, "sample", purpose="detection-research", justification=WHY)
    assert asked.name in {one.name for one in pia.access.list(state="pending")}
    assert asked.name in {one.name for one in pia.access.list(requester="users/rosa")}
    assert asked.name in {one.name for one in rosa.access.list()}
    assert list(pat.access.list()) == []
    assert list(pat.access.list(requester="users/rosa")) == []
    rosa.access.withdraw(asked.name)
