"""How a request fits the conditions of organisms: each condition against each thing that can be stated, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import ApprovalRefused, Conflict, EvidenceExpired, InvalidArgument, PurposeRefused
from model_organisms.records import Condition, Level, Match, Modifier, Outcome, Purpose, RequestState, Role, Rung, Stated
from model_organisms_registry.domain import access, organisms, purposes
from model_organisms_registry.domain.hazard import TABLE
from model_organisms_registry.domain.organisms import Subject

from tests.domain.cast import DAY, HOUR, NOW, WHY, opaque, organism, statement, user, version
from tests.support.conditions import conditions

APPROVE, DENY, ABSTAIN = Outcome.APPROVE, Outcome.DENY, Outcome.ABSTAIN
TUNE, BLIND = Condition(Modifier.NO_FINETUNE), Condition(Modifier.BLINDED)
WEEK, DELAY = Condition(Modifier.TIME_LIMIT, 604_800), Condition(Modifier.PUBLISH_DELAY, 1000)
OURS, THEIRS = (Condition(Modifier.INSTITUTION, name=f"organisations/{name}") for name in ("lab-a", "lab-b"))
PROBE, OTHER = Condition(Modifier.PROJECT, name="probe"), Condition(Modifier.PROJECT, name="other")
REVIEWERS = [user(name, Role.REVIEWER, organisation=f"house-{name}") for name in ("rex", "eve")]


def asked(rung=Rung.PULL, *, duration=None, organisation="organisations/lab-a", purpose=Purpose.TEACHING, **stated):
    return purposes.Asked(organisation, rung, purpose, duration, Stated(**stated))


def outcome(*asks, permitted=(), **more):
    of = replace(organism(), conditions=asks, purposes=permitted)
    return purposes.match([of], asked(more.pop("rung", Rung.PULL), **more)).outcome


@pytest.mark.parametrize(
    ("condition", "stated", "expected"),
    [
        (TUNE, {"accepts": (TUNE,)}, APPROVE),
        (TUNE, {"declines": (Modifier.NO_FINETUNE,)}, DENY),
        (TUNE, {}, ABSTAIN),
        (TUNE, {"rung": Rung.PROBE}, APPROVE),
        (TUNE, {"rung": Rung.PROBE, "declines": (Modifier.NO_FINETUNE,)}, DENY),
        (Condition(Modifier.NO_DERIVATIVE_WEIGHTS), {"rung": Rung.SAMPLE}, ABSTAIN),
        (BLIND, {"accepts": (TUNE,)}, ABSTAIN),
        (DELAY, {"accepts": (Condition(Modifier.PUBLISH_DELAY, 1000),)}, APPROVE),
        (DELAY, {"accepts": (Condition(Modifier.PUBLISH_DELAY, 999),)}, DENY),
        (DELAY, {}, ABSTAIN),
        (WEEK, {"duration": 7 * DAY}, APPROVE),
        (WEEK, {"duration": 7 * DAY + timedelta(seconds=1)}, DENY),
        (WEEK, {}, APPROVE),
        (OURS, {}, APPROVE),
        (OURS, {"organisation": "organisations/lab-c"}, DENY),
        (PROBE, {"project": "probe"}, ABSTAIN),
        (PROBE, {"project": "probe-2"}, DENY),
        (PROBE, {}, DENY),
        (Condition(Modifier.UNSPECIFIED), {}, DENY),
        (Condition(Modifier.TIME_LIMIT), {"duration": DAY}, DENY),
        (Condition(Modifier.PROJECT), {"project": ""}, DENY),
        (Condition("invented-later"), {}, DENY),
    ],
)
def test_one_condition_against_what_is_stated(condition, stated, expected):
    assert outcome(condition, **stated) is expected


def test_of_several_projects_or_institutions_any_one_will_do():
    assert outcome(THEIRS, OURS) is APPROVE
    assert outcome(OTHER, PROBE, project="probe") is ABSTAIN
    assert outcome(THEIRS, PROBE, project="probe") is DENY


@pytest.mark.parametrize(
    ("permitted", "expected"), [((), APPROVE), ((Purpose.TEACHING,), APPROVE), ((Purpose.REPLICATION,), DENY)]
)
def test_a_purpose_is_permitted_or_not(permitted, expected):
    assert outcome(permitted=permitted) is expected


ASKED = st.builds(
    purposes.Asked,
    st.sampled_from(["organisations/lab-a", "organisations/lab-b"]),
    st.sampled_from([Rung.SAMPLE, Rung.PULL]),
    st.sampled_from(Purpose),
    st.none() | st.sampled_from([HOUR, 400 * DAY]),
    st.builds(Stated, project=st.sampled_from(["", "probe"]), accepts=st.lists(conditions(), max_size=4).map(tuple)),
)
ORGANISMS = st.builds(
    lambda number, asks, permitted: replace(organism(f"o-{number}"), conditions=tuple(asks), purposes=tuple(permitted)),
    st.integers(0, 3),
    st.lists(conditions(), max_size=4),
    st.lists(st.sampled_from(Purpose), max_size=3),
)


@given(st.lists(ORGANISMS, max_size=3), ASKED, conditions())
def test_one_more_condition_never_makes_it_fit_better_but_another_project_or_institution(found, what, more):
    order = [APPROVE, ABSTAIN, DENY]
    before = purposes.match(found, what)
    assert before.outcome is max((reason.outcome for reason in before.reasons), key=order.index, default=APPROVE)
    tighter = [replace(of, conditions=(*of.conditions, more)) for of in found]
    if more.modifier not in {Modifier.PROJECT, Modifier.INSTITUTION}:
        assert order.index(purposes.match(tighter, what).outcome) >= order.index(before.outcome)
    unknown = [replace(of, conditions=(*of.conditions, Condition(Modifier.UNSPECIFIED))) for of in found]
    assert not found or purposes.match(unknown, what).outcome is DENY


@pytest.mark.parametrize(
    "stated",
    [
        Stated(project="Probe 2026"),
        Stated(accepts=(WEEK,)),
        Stated(accepts=(Condition(Modifier.UNSPECIFIED),)),
        Stated(accepts=(Condition(Modifier.NO_MERGE, 7),)),
        Stated(accepts=(DELAY, replace(DELAY, duration_s=7))),
        Stated(declines=(Modifier.INSTITUTION,)),
        Stated(declines=(Modifier.UNSPECIFIED,)),
        Stated(accepts=(TUNE,), declines=(Modifier.NO_FINETUNE,)),
        Stated(until=NOW),
    ],
)
def test_what_cannot_be_stated(stated):
    with pytest.raises(InvalidArgument):
        purposes.state(stated, now=NOW)


def test_the_registry_says_when_it_was_stated():
    made = purposes.state(Stated("probe", until=NOW + DAY, assert_time=NOW + 9 * DAY), now=NOW + timedelta(microseconds=7))
    assert (made.assert_time, made.until) == (NOW, NOW + DAY)


@pytest.mark.parametrize("stated", [Stated("probe", until=NOW + 10 * DAY, assert_time=NOW), Stated("probe", assert_time=NOW)])
def test_access_ends_before_what_it_was_given_for(stated):
    end = stated.until or NOW + purposes.ASSERTION_LIFETIME
    purposes.still_so(stated, end - NOW - timedelta(seconds=1), now=NOW)
    for late in (timedelta(0), DAY):
        with pytest.raises(EvidenceExpired, match="state it anew"):
            purposes.still_so(stated, end - NOW - late, now=NOW + late)
    purposes.still_so(Stated(assert_time=NOW - 1000 * DAY), 365 * DAY, now=NOW)


# what becomes of a request


def subject(*asks, level=Level.CL1, permitted=()):
    of = replace(organism(level=level), conditions=asks, purposes=permitted)
    return Subject(of, version(of))


def opened(*subjects, rung=Rung.SAMPLE, **more):
    given_ = {"purpose": Purpose.TEACHING, "justification": WHY, "need": WHY, "requester": user(), "now": NOW}
    return access.open_request(opaque("requests"), subjects=subjects, rung=rung, **given_ | more)


def signed(request, *subjects, by=REVIEWERS[0], now=NOW):
    return access.review(
        request, statement(request, expires=now + DAY), by, reviewers=REVIEWERS, envelope=b"", subjects=subjects, now=now
    )


def test_deny_refuses_as_it_is_opened_with_every_reason():
    with pytest.raises(PurposeRefused, match=r"probe.*lab-b|lab-b.*probe") as refused:
        opened(subject(PROBE, THEIRS, TUNE))
    assert refused.value.details["about"] == "project, institution"


def test_abstain_brings_a_reviewer_in_where_the_table_asks_nobody():
    fits, open_ = opened(subject(BLIND), stated=Stated(accepts=(BLIND,))), opened(subject(BLIND))
    assert [(one.match.outcome, one.needed) for one in (fits, open_)] == [(APPROVE, 0), (ABSTAIN, 1)]
    assert access.complete(fits, now=NOW, reviewers=())
    assert not access.complete(open_, now=NOW, reviewers=())
    assert access.complete(signed(open_, subject(BLIND)), now=NOW, reviewers=REVIEWERS)


@pytest.mark.parametrize(
    ("level", "rung"), [cell for cell in product(Level, [Rung.SAMPLE, Rung.PROBE, Rung.PULL]) if cell != (4, 4)]
)
def test_approve_spares_nobody_an_approval(level, rung):
    made = opened(subject(BLIND, level=level), rung=rung, stated=Stated(accepts=(BLIND,)))
    assert made.match.outcome is APPROVE
    assert made.needed == TABLE.of(level, rung).approvals


def test_the_limit_of_an_owner_sets_the_default_and_the_grant_carries_what_it_was_given_under():
    made = opened(subject(WEEK))
    assert made.duration_s == 604_800
    grant = access.grant_from(made, opaque("grants"), now=NOW, reviewers=())
    assert (grant.conditions, grant.expire_time) == ((WEEK,), NOW + 7 * DAY)
    again = access.renew(
        replace(grant, expire_time=NOW + 100 * DAY),
        opaque("requests", 2),
        requester=user(),
        subjects=[subject(WEEK)],
        justification=WHY,
        now=NOW,
    )
    assert again.duration_s == 604_800


@pytest.mark.parametrize(
    "now_asks", [subject(TUNE, BLIND, level=2), subject(level=2), subject(TUNE, level=2, permitted=(Purpose.REPLICATION,))]
)
def test_conditions_that_were_changed_tighter_or_looser_wait_for_the_requester(now_asks):
    made = opened(subject(TUNE, level=Level.CL2))
    with pytest.raises(Conflict, match="conditions"):
        signed(made, now_asks)
    changed = {"revision": 1, "subjects": [now_asks], "now": NOW}
    if now_asks.organism.purposes:
        with pytest.raises(PurposeRefused):
            access.amend(made, **changed)
        return
    amended = access.amend(made, **changed)
    assert (amended.conditions, amended.revision) == (now_asks.organism.conditions, 2)
    assert len(signed(amended, now_asks).approvals) == 1


@pytest.mark.parametrize("change", [{"conditions": ()}, {"stated": Stated()}, {"conditions": (TUNE, BLIND)}])
def test_a_signature_over_other_conditions_or_statements_counts_for_nothing(change):
    of = subject(TUNE, level=Level.CL2)
    made = opened(of, stated=Stated("probe"))
    elsewhere = statement(replace(made, **change), expires=NOW + DAY)
    with pytest.raises(ApprovalRefused, match="another"):
        access.review(made, elsewhere, REVIEWERS[0], reviewers=REVIEWERS, envelope=b"", subjects=[of], now=NOW)


def test_no_signature_helps_once_what_was_stated_is_over_too_soon():
    of = subject(PROBE, level=Level.CL2)
    made = opened(of, stated=Stated("probe", until=NOW + 11 * DAY), duration=10 * DAY)
    signed(made, of, now=NOW + DAY - HOUR)
    with pytest.raises(EvidenceExpired):
        signed(made, of, now=NOW + DAY)
    no = statement(made, approve=False, expires=NOW + 2 * DAY)
    refused = access.review(made, no, REVIEWERS[0], reviewers=REVIEWERS, envelope=b"", subjects=[of], now=NOW + DAY)
    assert refused.state is RequestState.REJECTED
    early = signed(made, of)
    with pytest.raises(EvidenceExpired):
        access.grant_from(
            replace(early, approvals=tuple(replace(one, expire_time=NOW + 9 * DAY) for one in early.approvals)),
            opaque("grants"),
            now=NOW + DAY,
            reviewers=REVIEWERS,
        )


def test_a_renewal_does_not_make_an_old_statement_young():
    old = purposes.state(Stated("probe"), now=NOW)
    of, later = subject(PROBE, level=Level.CL1), NOW + 300 * DAY
    with pytest.raises(EvidenceExpired):
        opened(of, stated=old, duration=200 * DAY, now=later)
    assert opened(of, stated=Stated("probe"), duration=200 * DAY, now=later).stated.assert_time == later


# what an owner may ask


def test_conditions_of_an_organism_are_set_whole_and_changed_for_real():
    made = organisms.condition(organism(), purposes=[Purpose.TEACHING] * 2, conditions=[TUNE, PROBE, OTHER])
    assert (made.purposes, made.conditions) == ((Purpose.TEACHING,), (TUNE, PROBE, OTHER))
    with pytest.raises(Conflict):
        organisms.condition(made, purposes=made.purposes, conditions=made.conditions)


@pytest.mark.parametrize(
    "asks",
    [
        [TUNE, TUNE],
        [WEEK, replace(WEEK, duration_s=7)],
        [PROBE, PROBE],
        [Condition(Modifier.UNSPECIFIED)],
        [Condition(Modifier.PROJECT)],
    ],
)
def test_conditions_that_cannot_be_judged_are_not_taken(asks):
    with pytest.raises(InvalidArgument):
        organisms.condition(organism(), purposes=(), conditions=asks)
    with pytest.raises(InvalidArgument):
        organisms.create("organisms/x", owner=user(), level=Level.CL1, base_model="b", conditions=asks, now=NOW)
    many = [Condition(Modifier.PROJECT, name=f"p-{number}") for number in range(organisms.MOST_CONDITIONS + 1)]
    with pytest.raises(InvalidArgument):
        organisms.condition(organism(), purposes=(), conditions=many)


def test_nothing_asked_fits_everything():
    assert purposes.match([organism()], asked()) == Match(APPROVE)
