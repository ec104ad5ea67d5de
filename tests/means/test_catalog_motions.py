"""Motions and their signatures, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from model_organisms.errors import AlreadyExists, Conflict, NotFound
from model_organisms.records import Motion, MotionKind, MotionState, Signature
from model_organisms_registry.storage.catalog import motions
from model_organisms_registry.storage.catalog.motions import MotionFilter

from tests.support import catalog as make

OPEN, EXPIRED, WITHDRAWN = MotionState.OPEN, MotionState.EXPIRED, MotionState.WITHDRAWN
NAME = make.opaque("motions", 1)


def motion(number=1, **changes):
    values = {
        "name": make.opaque("motions", number),
        "kind": MotionKind.APPOINT,
        "subject": "users/new",
        "facts": {"roles": "reviewer", "display_name": "Zoë ☂"},
        "proposer": "users/ada",
        "state": OPEN,
        "create_time": make.NOW,
        "expire_time": make.LATER,
        "needed": 2,
    }
    return Motion(**values | changes)


def signature(who="ada", **changes):
    values = {"organisation": "organisations/lab", "key_id": "0" * 16, "approve": True, "reason": "Yes.", "envelope": b"signed"}
    return Signature(**{"signer": f"users/{who}", "create_time": make.NOW} | values | changes)


@pytest.fixture
def tx(database):
    """One open transaction on a populated database."""
    with database.write() as opened:
        make.populate(opened, people=("ada", "bob", "cleo"))
        yield opened


def test_a_motion_comes_back_with_its_signatures_in_their_order(tx):
    motions.add_motion(tx, motion())
    late, early = signature("ada", create_time=make.NOW + timedelta(1)), signature("bob", approve=False)
    for given in (late, early):
        motions.add_signature(tx, NAME, given)
    assert motions.motion(tx, NAME) == replace(motion(), signatures=(early, late))
    with pytest.raises(AlreadyExists):
        motions.add_motion(tx, motion(proposer="users/bob"))
    with pytest.raises(NotFound):
        motions.motion(tx, make.opaque("motions", 9))


def test_one_person_has_one_voice(tx):
    motions.add_motion(tx, motion())
    motions.add_signature(tx, NAME, signature("bob"))
    with pytest.raises(AlreadyExists, match="one voice"):
        motions.add_signature(tx, NAME, signature("bob", approve=False))
    with pytest.raises(NotFound):
        motions.add_signature(tx, make.opaque("motions", 9), signature("bob"))
    assert motions.motion(tx, NAME).signatures == (signature("bob"),)


def test_a_motion_ends_once(tx):
    motions.add_motion(tx, motion())
    motions.end_motion(tx, NAME, MotionState.CARRIED)
    with pytest.raises(Conflict, match="carried by now"):
        motions.end_motion(tx, NAME, MotionState.CARRIED)
    assert motions.motion(tx, NAME).state is MotionState.CARRIED
    with pytest.raises(NotFound):
        motions.end_motion(tx, make.opaque("motions", 9), WITHDRAWN)


def test_a_signature_of_nobody_known_is_refused(database):
    with database.write() as tx:
        make.populate(tx)
        motions.add_motion(tx, motion())
    with pytest.raises(Conflict), database.write() as tx:
        motions.add_signature(tx, NAME, signature("nobody"))
    with database.read() as tx:
        assert motions.motion(tx, NAME).signatures == ()


def test_motions_are_listed_newest_first_by_state_kind_and_proposer(tx):
    motions.add_motion(tx, motion(1))
    motions.add_motion(tx, motion(3, proposer="users/bob", kind=MotionKind.LOWER_LEVEL))
    motions.add_motion(tx, motion(2, expire_time=make.NOW))
    motions.add_motion(tx, motion(4, state=WITHDRAWN))
    for conditions, expected in (
        ({}, [4, 3, 2, 1]),
        ({"proposer": "users/bob"}, [3]),
        ({"state": OPEN}, [3, 1]),
        ({"state": EXPIRED}, [2]),
        ({"state": WITHDRAWN}, [4]),
        ({"state": MotionState.REJECTED}, []),
        ({"kind": MotionKind.APPOINT, "state": OPEN}, [1]),
    ):
        page = motions.motions(tx, now=make.NOW, filter=MotionFilter(**conditions))
        assert [item.name for item in page.items] == [make.opaque("motions", number) for number in expected], conditions
    first = motions.motions(tx, now=make.NOW, page_size=3)
    rest = motions.motions(tx, now=make.NOW, page_size=3, page_token=first.next_page_token)
    assert [len(first.items), len(rest.items), rest.next_page_token] == [3, 1, ""]
