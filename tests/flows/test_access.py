"""Ask, approve, amend, reject, revoke: several people over a real server."""

import pytest
from model_organisms import errors
from model_organisms.records import GrantState, RequestState

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
    request = world.person("rena").access.reject(request.name, reason="Say which control.")
    assert (request.state, request.reason) == (RequestState.REJECTED, "Say which control.")


def asked(world, version, rung="probe"):
    return world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY)


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


def test_a_revoked_grant_lists_with_its_reason(world):
    version, _ = published(world)
    request = world.person("ravi").access.approve(asked(world, version).name, reason="Fine.")
    world.person("rena").access.revoke(request.grant, reason="The project ended.")
    (grant,) = world.person("rosa").access.grants(version=version.name)
    assert (grant.state, grant.reason) == (GrantState.REVOKED, "The project ended.")
