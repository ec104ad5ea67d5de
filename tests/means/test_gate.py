"""The gate: a permit or a recorded refusal, one answer for hidden and absent, and the same answers as the rules of the domain."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import (
    ApprovalRefused,
    Denied,
    GrantExpired,
    GrantRequired,
    GrantRevoked,
    InvalidArgument,
    InvalidName,
    JailMissing,
    LedgerUnavailable,
    ModelOrganismsError,
    NotFound,
    Quarantined,
    Suspended,
    Withdrawn,
)
from model_organisms.records import GrantState, Level, Role, Rung, UserState, VersionState
from model_organisms_registry.domain import access, organisms
from model_organisms_registry.domain.permits import Action
from model_organisms_registry.gate import Conditions, Gate, PolicySet, entities
from model_organisms_registry.gate.cedar import FAULT, SCHEMA, shipped_folder

from tests.domain.cast import (
    DAY,
    HOUR,
    NOW,
    call,
    grant,
    opaque,
    organism,
    request,
    session,
    statement,
    subject,
    user,
    version,
)

POLICIES = PolicySet.read()
UP = Conditions(ledger=True, jail=True, witness=True)
PULL = grant(rung=Rung.PULL)
ADA, PAT, REX = user(), user("pat", Role.PUBLISHER), user("rex", Role.REVIEWER, organisation="lab-b")


class Book:
    """A record of refusals, in memory; a full one refuses to take more."""

    def __init__(self, *, full=False):
        self.entries = []
        self.full = full

    def record(self, entry):
        if self.full:
            raise OSError(28, "No space left on device")
        self.entries.append(entry)


def gate(book=None, conditions=UP, policies=POLICIES):
    return Gate(policies, record_denial=(book or Book()).record, conditions=lambda: conditions)


def refused(error, action, resource, *, by=ADA, book=None, conditions=UP, now=NOW, **facts):
    with pytest.raises(ModelOrganismsError) as caught:
        gate(book, conditions).permit(call(by, now=now), action, resource, **facts)
    assert type(caught.value) is error
    return caught.value


def test_a_permit_says_who_what_by_which_policies_and_under_which_grant():
    book = Book()
    permit = gate(book).permit(call(), Action.PULL, entities.version(version(), organism()), grants=[PULL])
    assert (permit.action, permit.resource, permit.grant) == ("pull", version().name, PULL.name)
    assert (permit.policies, permit.reasons, permit.call) == (POLICIES.digest, ("access-pull",), call())
    assert type(permit.action) is str
    assert book.entries == []


def test_a_permit_serves_only_what_it_was_given_for():
    permit = gate().permit(call(), Action.LIST, entities.registry())
    permit.demand(Action.LIST, "registry")
    for action, resource in ((Action.CREATE_ORGANISM, "registry"), (Action.LIST, "ledger")):
        with pytest.raises(Denied):
            permit.demand(action, resource)


def test_a_refusal_is_recorded_before_it_is_raised():
    book = Book()
    held = replace(PULL, state=GrantState.REVOKED)
    refused(GrantRevoked, Action.PULL, entities.version(version(), organism()), grants=[held], book=book)
    (entry,) = book.entries
    assert (entry.type, entry.decision, entry.actor, entry.time) == ("gate.deny", "deny", "users/ada", NOW)
    assert (entry.subject, entry.grant, entry.policies) == (version().name, held.name, POLICIES.digest)
    assert (entry.facts, entry.reasons) == ({"action": "pull", "reason": "GRANT_REVOKED"}, ("never-revoked",))
    assert {type(value) for value in entry.facts.values()} == {str}


def test_two_refusals_of_the_same_differ_in_their_entries():
    book = Book()
    for _ in range(2):
        refused(Denied, Action.CREATE_ORGANISM, entities.registry(), book=book)
    assert book.entries[0].seq != book.entries[1].seq


@pytest.mark.parametrize("hidden", [True, False])
def test_a_refusal_that_cannot_be_recorded_is_a_closed_registry(hidden):
    resource = entities.version(version(), organism(hidden=hidden))
    refused(LedgerUnavailable, Action.PULL, resource, book=Book(full=True))
    with pytest.raises(LedgerUnavailable):
        gate(Book(full=True)).absent(call(), Action.PULL, "version", version().name)


def test_each_invariant_has_its_error():
    it, of = version(), organism()
    plain = entities.version(it, of)
    wild = organism(level=Level.CL2)
    cl4 = organism(level=Level.CL4)
    refused(Suspended, Action.PULL, plain, by=user(state=UserState.SUSPENDED), grants=[PULL])
    refused(Suspended, Action.PULL, plain, by=user(state=UserState.INVITED), grants=[PULL])
    refused(LedgerUnavailable, Action.PULL, plain, grants=[PULL], conditions=replace(UP, ledger=False))
    refused(Withdrawn, Action.PULL, entities.version(version(state=VersionState.WITHDRAWN), of), grants=[PULL])
    refused(Quarantined, Action.PULL, entities.version(version(state=VersionState.QUARANTINED), of), grants=[PULL])
    refused(GrantRequired, Action.PULL, plain)
    refused(GrantRequired, Action.PULL, plain, grants=[grant(rung=Rung.PROBE)])
    refused(GrantRequired, Action.PULL, plain, grants=[grant(rung=Rung.PULL, holder="eve")])
    refused(GrantRequired, Action.PULL, entities.version(version(wild), wild), grants=[replace(PULL, level=Level.CL1)])
    refused(GrantExpired, Action.PULL, plain, grants=[PULL], now=PULL.expire_time)
    refused(GrantRevoked, Action.PULL, plain, grants=[replace(PULL, state=GrantState.REVOKED)])
    refused(Denied, Action.PULL, entities.version(version(cl4), cl4), grants=[PULL])
    jailed = entities.version(version(wild), wild)
    refused(JailMissing, Action.OPEN_SESSION, jailed, grants=[PULL], conditions=replace(UP, jail=False))
    unwitnessed = replace(UP, witness=False)
    refused(Denied, Action.OPEN_SESSION, entities.version(version(cl4), cl4), grants=[PULL], conditions=unwitnessed)
    refused(ApprovalRefused, Action.REVIEW, entities.request(request(requester="rex"), owners=[], authors=[]), by=REX)


def test_what_is_not_known_of_the_registry_counts_as_missing():
    refused(LedgerUnavailable, Action.LIST, entities.registry(), conditions=Conditions())


def test_a_session_is_decided_by_its_own_cell_where_that_is_known():
    of = organism(level=Level.CL3)
    it = version(of)
    resource = entities.session(session(it), of, it)
    held = [grant(it)]
    refused(JailMissing, Action.SAMPLE, resource, grants=held, conditions=replace(UP, jail=False))
    gate(conditions=Conditions(ledger=True)).permit(call(), Action.SAMPLE, resource, grants=held, conditions=UP)


def test_a_refusal_says_what_to_do():
    plain = entities.version(version(), organism())
    assert "client.access.request" in refused(GrantRequired, Action.PULL, plain).message
    assert "renew" in refused(GrantExpired, Action.PULL, plain, grants=[PULL], now=PULL.expire_time).message
    for action in set(Action) - {Action.LIST, Action.DESCRIBE}:
        kind = {"readLedger": entities.ledger(), "createOrganism": entities.registry()}.get(str(action))
        told = gate().explain(call(user("x", Role.SERVICE)), action, kind or plain)
        assert told.error.message.endswith(".")


# hidden and absent


def outcome(action):
    with pytest.raises(NotFound) as caught:
        action()
    error = caught.value
    return type(error), error.message, error.details, error.__cause__, error.__context__


HIDDEN = {
    "organism": (entities.organism(organism(hidden=True)), [Action.DESCRIBE, Action.PUBLISH, Action.SET_LEVEL]),
    "version": (
        entities.version(version(), organism(hidden=True)),
        [Action.DESCRIBE, Action.ATTEST, Action.WITHDRAW_VERSION, Action.REQUEST, Action.OPEN_SESSION, Action.PULL],
    ),
    "request": (
        entities.request(request(), owners=["users/pat"], authors=[]),
        [Action.VIEW_REQUEST, Action.AMEND_REQUEST, Action.WITHDRAW_REQUEST, Action.REVIEW],
    ),
    "grant": (entities.grant(PULL, owners=["users/pat"]), [Action.VIEW_GRANT, Action.REVOKE_GRANT]),
    "session": (
        entities.session(session(), organism(), version()),
        [
            Action.VIEW_SESSION,
            Action.WATCH_SESSION,
            Action.SAMPLE,
            Action.PROBE,
            Action.CLOSE_SESSION,
            Action.KILL_SESSION,
        ],
    ),
    "user": (entities.account("users/bob"), [Action.VIEW_USERS, Action.MANAGE_USERS]),
}


@pytest.mark.parametrize(("kind", "action"), [(kind, action) for kind, (_, actions) in HIDDEN.items() for action in actions])
def test_what_is_hidden_and_what_is_absent_are_told_and_recorded_alike(kind, action):
    resource = HIDDEN[kind][0]
    here, gone = Book(), Book()
    eve = call(user("eve"))
    extra = {"rung": Rung.SAMPLE} if action is Action.REQUEST else {}
    hidden = outcome(lambda: gate(here).permit(eve, action, resource, **extra))
    absent = outcome(lambda: gate(gone).absent(eve, action, kind, resource.name))
    assert hidden == absent
    assert hidden[1] == NotFound.named(resource.name).message
    for entry in (*here.entries, *gone.entries):
        assert (entry.subject, entry.facts) == (resource.name, {"action": str(action), "reason": "NOT_FOUND"})


def test_what_is_absent_is_absent_for_everybody():
    for by in (user("root", Role.ADMIN), REX, PAT, user("aud", Role.AUDITOR)):
        for kind, (resource, actions) in HIDDEN.items():
            outcome(
                lambda by=by, kind=kind, resource=resource, actions=actions: gate().absent(
                    call(by), actions[0], kind, resource.name
                )
            )


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("by", "conditions", "error"),
    [(user("eve", state=UserState.SUSPENDED), UP, Suspended), (user("eve"), replace(UP, ledger=False), LedgerUnavailable)],
)
def test_what_is_about_the_caller_is_told_alike_too(there, by, conditions, error):
    resource = HIDDEN["version"][0]
    asked = gate(conditions=conditions)
    refuse = asked.permit if there else asked.absent
    what = (resource,) if there else ("version", resource.name)
    with pytest.raises(error):
        refuse(call(by), Action.PULL, *what)


def test_owner_grantee_and_reviewer_see_what_is_hidden_and_a_revoked_grantee_does_not():
    of = organism(hidden=True)
    resource = entities.version(version(), of)
    assert gate().sees(call(PAT), resource)
    assert gate().sees(call(REX), resource)
    assert not gate().sees(call(ADA), resource)
    assert gate().sees(call(ADA), resource, grants=[PULL])
    assert gate().sees(call(ADA, now=NOW + 2 * DAY), resource, grants=[PULL])
    assert not gate().sees(call(ADA), resource, grants=[replace(PULL, state=GrantState.REVOKED)])
    assert not gate().sees(call(ADA), resource, grants=[replace(PULL, user="users/eve")])
    refused(GrantExpired, Action.PULL, resource, grants=[PULL], now=PULL.expire_time)
    refused(NotFound, Action.PULL, resource, grants=[replace(PULL, state=GrantState.REVOKED)])


@given(
    st.sets(st.sampled_from(Role)),
    st.sampled_from(UserState),
    st.booleans(),
    st.sampled_from([None, *GrantState]),
    st.sampled_from(["pat", "ada"]),
)
def test_listings_filter_by_the_rule_that_single_calls_obey(roles, state, hidden, held, name):
    seer = replace(user(name, state=state), roles=frozenset(roles))
    grants = [grant(holder=name, state=held)] if held else []
    of = organism(hidden=hidden)
    grantee = held is not None and held is not GrantState.REVOKED
    assert gate().sees(call(seer), entities.organism(of), grants=grants) == organisms.visible(seer, of, grantee=grantee)


# the gate and the domain say the same


@pytest.mark.parametrize("action", [Action.OPEN_SESSION, Action.OPEN_LOCAL_SESSION, Action.PULL])
def test_the_gate_and_the_rules_of_grants_agree(action):
    rung = entities.RUNG_OF[action]
    states = [(GrantState.ACTIVE, DAY), (GrantState.ACTIVE, -DAY), (GrantState.REVOKED, DAY)]
    for level, held_level, held_rung, (state, ends) in product([1, 2, 3], Level, [Rung.SAMPLE, Rung.PROBE, Rung.PULL], states):
        of = organism(level=Level(level))
        it = version(of)
        held = grant(it, held_rung, level=held_level, state=state, expire_time=NOW + ends)
        said = []
        for ask in (
            lambda of=of, it=it, held=held: gate().permit(call(), action, entities.version(it, of), grants=[held]).grant,
            lambda held=held, level=level: (
                access.require([held], subject().ref, user="users/ada", level=level, rung=rung, now=NOW).name
            ),
        ):
            try:
                said.append(ask())
            except Denied as error:
                said.append((type(error), error.message))
        assert said[0] == said[1]


@pytest.mark.parametrize(("level", "rung"), list(product(Level, [Rung.SAMPLE, Rung.PROBE, Rung.PULL])))
def test_whom_the_gate_lets_decide_the_rules_may_still_refuse_but_never_the_other_way_round(level, rung):
    stands = subject(level, owner="olga", publisher="pat", co_authors=["carl"])
    of = request(level, rung)
    resource = entities.request(of, owners=["users/olga"], authors=sorted(stands.authors), level=level)
    for name, role in product(["ada", "olga", "pat", "carl", "rex"], [Role.REVIEWER, Role.ADMIN]):
        by = user(name, role, organisation="lab-x")
        try:
            access.review(of, statement(of), by, reviewers=[by], envelope=b"", subjects=[stands], now=NOW)
        except ApprovalRefused:
            continue
        gate().permit(call(by), Action.REVIEW, resource)


# what reaches Cedar


@pytest.mark.parametrize(
    "build",
    [
        lambda: entities.version(replace(version(), name='organisms/x/versions/1", "id": "y'), organism("x")),
        lambda: entities.organism(replace(organism(), name='organisms/x"')),
        lambda: entities.organism(replace(organism(), owner="users/pat\nusers/eve")),
        lambda: entities.organism(replace(organism(), owner="users/PAT")),
        lambda: entities.account("organisms/x"),
        lambda: entities.grant(PULL, owners=["pat"]),
        lambda: entities.grant(replace(PULL, name=opaque("requests")), owners=[]),
        lambda: entities.request(replace(request(), requester="users/"), owners=[], authors=[]),
        lambda: entities.principal(replace(ADA, name='users/ada"}')),
        lambda: entities.principal(replace(ADA, organisation="lab-a")),
        lambda: entities.nothing("version", "organisms/x/versions/0"),
    ],
)
def test_a_name_that_is_none_does_not_reach_cedar(build):
    with pytest.raises(InvalidName):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: entities.organism(version()),
        lambda: entities.version(organism(), organism()),
        lambda: entities.organism(replace(organism(), hidden="no")),
        lambda: entities.organism(replace(organism(), hidden=0)),
        lambda: entities.organism(replace(organism(), owner=None)),
        lambda: entities.version(replace(version(), state="published"), organism()),
        lambda: entities.version(replace(version(), digest=None), organism()),
        lambda: entities.version(version(), organism("other")),
        lambda: entities.session(session(), organism(), version(number=2)),
        lambda: entities.session(session(), organism(), replace(version(), digest="0" * 64)),
        lambda: entities.request(replace(request(), rung=4), owners=[], authors=[]),
        lambda: entities.principal(replace(ADA, roles=frozenset({"admin"}))),
        lambda: [entities.principal(user("zoe", role)) for role in (Role.ADMIN, "admin")],
        lambda: entities.principal("users/ada"),
        lambda: entities.held(replace(PULL, rung=4), now=NOW),
        lambda: entities.held("grant", now=NOW),
        lambda: entities.nothing("ledger", "ledger"),
    ],
)
def test_a_record_of_the_wrong_type_is_refused_and_not_read_as_harmless(build):
    with pytest.raises(InvalidArgument):
        build()


@pytest.mark.parametrize("level", [0, 5, -1, 99, "CL1", None])
def test_an_unknown_level_reaches_cedar_as_cl4(level):
    assert entities.organism(replace(organism(), level=level)).attributes["level"] == 4
    assert entities.version(replace(version(), level=level), organism()).attributes["level"] == 4
    assert entities.request(request(), owners=[], authors=[], level=level or 0).attributes["level"] == 4


def test_a_request_never_counts_below_the_level_it_was_asked_under():
    assert entities.request(request(Level.CL3), owners=[], authors=[], level=Level.CL1).attributes["level"] == 3
    assert entities.request(request(Level.CL3), owners=[], authors=[]).attributes["level"] == 3


def test_another_account_is_acted_on_by_name_only():
    root = user("root", Role.ADMIN)
    gate().permit(call(root), Action.MANAGE_USERS, entities.account("users/newcomer"))
    refused(Denied, Action.MANAGE_USERS, entities.account("users/root"), by=root)
    gate().permit(call(ADA), Action.VIEW_USERS, entities.account("users/ada"))


def test_what_cedar_cannot_evaluate_is_denied_and_recorded_as_a_fault():
    book = Book()
    refused(Denied, Action.PUBLISH, entities.registry(), book=book)
    assert book.entries[0].reasons == (FAULT,)


def test_an_explanation_decides_and_records_nothing():
    book = Book()
    told = gate(book).explain(call(), Action.PULL, entities.version(version(), organism()))
    assert (told.error.reason, told.reasons[0]) == ("GRANT_REQUIRED", "never-pull-without-grant")
    yes = gate(book).explain(call(), Action.REQUEST, entities.version(version(), organism()), rung=Rung.PULL)
    assert (yes.error, yes.reasons, yes.remedies) == (None, ("access-request",), None)
    assert book.entries == []


def test_facts_of_an_action_reach_it():
    pat = user("pat", Role.REVIEWER)
    line = entities.organism(organism(level=Level.CL2))
    gate().permit(call(pat), Action.SET_LEVEL, line)
    refused(Denied, Action.SET_LEVEL, line, by=pat, lowering=True)
    gate().permit(call(), Action.READ_LEDGER, entities.ledger(), own=True)
    refused(Denied, Action.READ_LEDGER, entities.ledger())
    of = organism(level=Level.CL4)
    wild = entities.version(version(of), of)
    gate().permit(call(), Action.REQUEST, wild, rung=Rung.SAMPLE)
    refused(Denied, Action.REQUEST, wild, rung=Rung.PULL)


def test_a_deployments_own_forbid_speaks_in_its_own_words():
    text = 'forbid (principal, action in Action::"use", resource);'
    text = f'@id("local-night") @advice("Nobody samples before the audit is over.")\n{text}\n'
    own = PolicySet(POLICIES.texts | {"local.cedar": text}, (shipped_folder() / SCHEMA).read_text())
    with pytest.raises(Denied, match="before the audit"):
        gate(policies=own).permit(call(now=NOW + HOUR), Action.PULL, entities.version(version(), organism()), grants=[PULL])
