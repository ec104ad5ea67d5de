"""Versions are stopped by one, at once; put back by another; withdrawn for good."""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_organisms.errors import Conflict, Denied, Destroyed, InvalidArgument, Quarantined, Withdrawn
from model_organisms.records import Level, Role, VersionState
from model_organisms_registry.domain import recall
from model_organisms_registry.domain.hazard import TABLE
from model_organisms_registry.domain.organisms import served

from tests.domain.cast import NOW, user, version

REX, ROSE = user("rex", Role.REVIEWER), user("rose", Role.REVIEWER)


def aside(made=None):
    return recall.quarantine(made or version(), reason="A trigger nobody knew of.", by=REX, now=NOW)


def gone(made=None):
    return recall.withdraw(made or version(), reason="Trained on leaked data.", by=REX, now=NOW)


def test_what_is_stopped_says_why_by_whom_and_since_when():
    for stopped, state in (
        (gone(), VersionState.WITHDRAWN),
        (aside(), VersionState.QUARANTINED),
        (gone(aside()), VersionState.WITHDRAWN),
    ):
        assert (stopped.state, stopped.stopped_by, stopped.stop_time) == (state, REX.name, NOW)
        assert stopped.note
        assert replace(stopped, state=VersionState.PUBLISHED, note="", stopped_by="", stop_time=None) == version()


@pytest.mark.parametrize("stop", [recall.withdraw, recall.quarantine])
@pytest.mark.parametrize("reason", ["", " \n", "\x1b[2J", "x" * 2001])
def test_nothing_is_stopped_without_a_reason_that_can_be_read(stop, reason):
    with pytest.raises(InvalidArgument):
        stop(version(), reason=reason, by=REX, now=NOW)
    with pytest.raises(InvalidArgument):
        recall.release(aside(), reason=reason, by=ROSE)


def test_a_withdrawal_is_for_good():
    for again in (gone, aside, lambda made: recall.release(made, reason="It was a mistake.", by=ROSE)):
        with pytest.raises(Conflict):
            again(gone())


def test_what_is_destroyed_was_withdrawn_and_is_what_was_meant():
    for other in (version(), aside(), recall.destroy(gone(), digest=version().digest)):
        with pytest.raises(Conflict):
            recall.destroy(other, digest=other.digest)
    with pytest.raises(Conflict, match="digest"):
        recall.destroy(gone(), digest="0" * 64)
    done = recall.destroy(gone(), digest=version().digest)
    assert replace(done, state=VersionState.WITHDRAWN) == gone()
    for again in (gone, aside, lambda made: recall.release(made, reason="It was a mistake.", by=ROSE)):
        with pytest.raises(Conflict):
            again(done)
    with pytest.raises(Destroyed):
        served(done.state, done.name)


def test_a_quarantine_is_lifted_by_another_than_whoever_set_it():
    with pytest.raises(Denied, match="another reviewer"):
        recall.release(aside(), reason="I was wrong.", by=REX)
    assert recall.release(aside(), reason="It was the test's own seed.", by=ROSE) == version()
    for not_aside in (version(), gone()):
        with pytest.raises(Conflict):
            recall.release(not_aside, reason="Nothing to lift.", by=ROSE)
    with pytest.raises(Conflict):
        aside(aside())


def test_nothing_out_of_service_is_served():
    served(VersionState.PUBLISHED, version().name)
    with pytest.raises(Withdrawn):
        served(VersionState.WITHDRAWN, version().name)
    with pytest.raises(Quarantined):
        served(VersionState.QUARANTINED, version().name)


@pytest.mark.parametrize("level", [*Level, 9, None])
def test_an_unmarked_copy_goes_on_at_cl1_only(level):
    recall.check_mark(level, marked=True, table=TABLE)
    if level == Level.CL1:
        recall.check_mark(level, marked=False, table=TABLE)
        return
    with pytest.raises(Conflict, match="new pull"):
        recall.check_mark(level, marked=False, table=TABLE)
