"""Ask, approve, amend, reject, revoke: several people over a real server."""

from dataclasses import replace

import pytest
from model_organisms import errors
from model_organisms.records import Budget, GrantState, Purpose, RequestState, Rung

from tests.support.stories import WHY, published


def test_two_organisations_approve_at_cl3(world):
    version, _ = published(world, level="CL3")
    rosa, ravi, rena = (world.person(name) for name in ("rosa", "ravi", "rena"))
    request = rosa.access.request(
        version.name,
        "sample",
        purpose="detection-research",
        justification=WHY,
    )
    assert request.needed == 2
    request = ravi.access.approve(request.name, reason="Sound.")
    assert request.state is RequestState.PENDING
    with pytest.raises(errors.ModelOrganismsError):
        ravi.access.approve(request.name, reason="Sound again.")
    request = rena.access.approve(request.name, reason="Contained.")
    assert request.state is RequestState.GRANTED


def test_an_amendment_voids_approvals_and_a_rejection_says_why(world):
    version, _ = published(world, level="CL3")
    rosa, ravi = world.person("rosa"), world.person("ravi")
    request = rosa.access.request(version.name, "sample", purpose="detection-research", justification=WHY)
    ravi.access.approve(request.name, reason="Sound.")
    request = rosa.access.amend(rosa.access.get(request.name), justification=WHY + " Also its control.")
    assert request.revision == 2
    assert request.approvals == ()
    request = world.person("rena").access.reject(request, reason="Say which control.")
    assert (request.state, request.reason) == (RequestState.REJECTED, "Say which control.")


def asked(world, version, rung="probe"):
    return world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY)


def test_a_reviewer_signs_what_they_read_and_nothing_that_came_after(world):
    version, _ = published(world, level="CL2")
    ravi, read = world.person("ravi"), asked(world, version)
    amended = world.person("rosa").access.amend(read, justification=WHY + " And much more than that.")
    for answer in (ravi.access.approve, ravi.access.reject):
        with pytest.raises(errors.Conflict, match="read it again"):
            answer(read, reason="Ten tokens are fine.")
        with pytest.raises(errors.Conflict, match="read its revision 2 first"):
            answer(read.name, reason="Ten tokens are fine.")
    assert replace(world.person("rosa").access.get(read.name), clock=None) == amended
    assert ravi.access.approve(amended, reason="That is fine too.").state is RequestState.GRANTED


@pytest.mark.parametrize(
    "shown",
    [
        {"budget": Budget(tokens=10, sessions=1, output_bytes=100, probe_values=1)},
        {"purpose": Purpose.TEACHING},
        {"duration_s": 60},
        {"justification": "Something harmless, said to the reviewer only."},
        {"need": "None."},
        {"rung": Rung.SAMPLE},
    ],
)
def test_a_signature_over_anything_else_than_was_asked_counts_for_nothing(world, shown):
    version, _ = published(world, level="CL2")
    request = asked(world, version)
    with pytest.raises(errors.ApprovalRefused, match="another"):
        world.person("ravi").access.approve(replace(request, **shown), reason="Fine.")
    assert world.person("rosa").access.get(request.name).approvals == ()


def test_the_signature_of_a_suspended_reviewer_counts_no_more(world):
    version, _ = published(world, level="CL3")
    request = asked(world, version)
    stolen, rena = world.person("stan", "reviewer", organisation="s-lab"), world.person("rena")
    stolen.access.approve(request.name, reason="Signed by a thief.")
    world.admin.users.suspend("stan", reason="The key was stolen.")
    request = rena.access.approve(request.name, reason="Contained.")
    assert (request.state, len(request.approvals)) == (RequestState.PENDING, 2)
    assert world.person("ravi").access.approve(request.name, reason="Sound.").state is RequestState.GRANTED


def test_nobody_answers_a_request_that_was_taken_back(world):
    version, _ = published(world)
    request = asked(world, version)
    withdrawn = world.person("rosa").access.withdraw(request.name)
    assert withdrawn.state is RequestState.WITHDRAWN
    with pytest.raises(errors.Conflict):
        world.person("ravi").access.approve(request.name, reason="Fine.")
    assert world.person("rosa").access.get(request.name).approvals == ()


def test_a_requester_sees_their_own_requests_and_a_reviewer_all(world):
    version, _ = published(world)
    request = asked(world, version)
    names = {who: {item.name for item in world.person(who).access.list()} for who in ("rosa", "ravi")}
    assert request.name in names["rosa"] & names["ravi"]
    stranger = world.person("sam", "researcher", organisation="elsewhere")
    assert list(stranger.access.list()) == []
    with pytest.raises(errors.NotFound):
        stranger.access.get(request.name)


def test_a_requester_cannot_review_even_as_a_reviewer(world):
    version, _ = published(world)
    both = world.person("rory", "researcher", "reviewer", organisation="detection-lab")
    request = both.access.request(version.name, "probe", purpose="replication", justification=WHY)
    with pytest.raises(errors.ApprovalRefused):
        both.access.approve(request.name, reason="I agree with myself.")
    assert both.access.get(request.name).state is RequestState.PENDING


def test_a_renewal_asks_again_for_the_same(world):
    version, _ = published(world)
    request = world.person("ravi").access.approve(asked(world, version).name, reason="Fine.")
    again = world.person("rosa").access.renew(request.grant, justification="One more seed.")
    assert again.name != request.name
    assert (again.versions, again.rung, again.budget) == (request.versions, request.rung, request.budget)
    assert again.state is RequestState.PENDING


def test_another_persons_grant_is_renewed_in_the_words_for_one_that_is_not_there(world):
    version, _ = published(world)
    grant = world.person("ravi").access.approve(asked(world, version), reason="Fine.").grant
    stranger = world.person("sybil", "researcher", organisation="elsewhere")
    told = []
    for name in (grant, "grants/" + "0" * 26):
        with pytest.raises(errors.NotFound) as refused:
            stranger.access.renew(name)
        told.append(refused.value.message.replace(name, "it"))
    assert told[0] == told[1]
    with pytest.raises(errors.Denied):
        world.person("rena").access.renew(grant)


def test_a_revoked_grant_lists_with_its_reason(world):
    version, _ = published(world)
    request = world.person("ravi").access.approve(asked(world, version).name, reason="Fine.")
    world.person("rena").access.revoke(request.grant, reason="The project ended.")
    (grant,) = world.person("rosa").access.grants(version=version.name)
    assert (grant.state, grant.reason) == (GrantState.REVOKED, "The project ended.")
