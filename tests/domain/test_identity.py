"""Accounts: invited once, enrolled once, stopped and started by somebody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import (
    CertificateRefused,
    Conflict,
    Denied,
    EnrolmentRefused,
    InvalidArgument,
    InvalidName,
    Suspended,
    Unauthenticated,
)
from model_organisms.formats.dsse import key_id
from model_organisms.records import Role, Rung, UserState
from model_organisms_registry.domain import identity

from tests.domain.cast import NOW, user

CODE = identity.print_code(bytes(range(20)))
SEALING = bytes(1216)
FRESH = {"identity_key": b"\1" * 32, "sealing_key": b"\1" * 1216}
SECOND = identity.ENROLMENT_LIFETIME.resolution


def invited(name="ada", *roles):
    return identity.invite(
        f"users/{name}", display_name=name, organisation="organisations/lab-a", roles=roles or [Role.RESEARCHER], now=NOW
    )


def enrolled(account=None, **changes):
    said = {"replaces": "", "identity_key": bytes(32), "sealing_key": SEALING} | changes
    return identity.enrol(account or invited(), **said)


def test_an_invited_account_has_no_keys_and_no_role_gives_more_than_describe():
    made = invited("ada", *[role for role in Role if role is not Role.SERVICE])
    assert made.state is UserState.INVITED
    assert made.identity_key == made.sealing_key == b""
    assert identity.RUNG_OF_A_ROLE is Rung.DESCRIBE


@pytest.mark.parametrize("roles", [[], [Role.SERVICE, Role.RESEARCHER], [Role.SERVICE, Role.ADMIN]])
def test_roles_that_make_no_account(roles):
    with pytest.raises(InvalidArgument):
        identity.invite("users/ada", display_name="Ada", organisation="organisations/lab-a", roles=roles, now=NOW)


@pytest.mark.parametrize("shown", ["", "  ", "a" * 201, "Ada\nadmin", "\x1b[2JAda", "Ada\u202etxt"])
def test_a_display_name_is_one_plain_line(shown):
    with pytest.raises(InvalidArgument):
        identity.invite("users/ada", display_name=shown, organisation="organisations/lab-a", roles=[Role.ADMIN], now=NOW)


@pytest.mark.parametrize(("name", "organisation"), [("users/Ada", "organisations/lab-a"), ("users/ada", "lab-a")])
def test_names_are_resource_names(name, organisation):
    with pytest.raises(InvalidName):
        identity.invite(name, display_name="Ada", organisation=organisation, roles=[Role.ADMIN], now=NOW)


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20))
def test_codes_and_their_hashes_differ_as_their_entropy_does(one, other):
    codes = identity.print_code(one), identity.print_code(other)
    assert (codes[0] == codes[1]) == (one == other)
    assert (identity.code_hash(codes[0]) == identity.code_hash(codes[1])) == (one == other)
    assert identity.code_hash(codes[0].upper().replace("-", " ")) == identity.code_hash(codes[0])


def test_a_code_carries_all_its_entropy_or_is_not_printed():
    assert len(CODE.replace("-", "")) * 5 == 160
    with pytest.raises(InvalidArgument):
        identity.print_code(bytes(8))


def test_a_code_lasts_72_hours():
    assert identity.hand_out(invited(), CODE, now=NOW).expire_time - NOW == identity.ENROLMENT_LIFETIME


def test_only_an_invited_account_gets_a_code_and_keys():
    with pytest.raises(Conflict):
        identity.hand_out(user(), CODE, now=NOW)
    active = enrolled()
    assert active.state is UserState.ACTIVE
    for again in (active, replace(active, state=UserState.INVITED), replace(active, state=UserState.SUSPENDED)):
        with pytest.raises(EnrolmentRefused):
            enrolled(again, **FRESH)


@pytest.mark.parametrize(("key", "sealing"), [(b"", SEALING), (bytes(31), SEALING), (bytes(32), b""), (bytes(32), bytes(1217))])
def test_keys_have_their_lengths(key, sealing):
    with pytest.raises(InvalidArgument):
        enrolled(identity_key=key, sealing_key=sealing)
    with pytest.raises(InvalidArgument):
        identity.rotate(enrolled(), identity_key=key or b"", sealing_key=sealing)


def test_a_lost_key_is_replaced_by_its_own_code_only_and_the_account_stands_as_before():
    active = enrolled()
    for state in (UserState.ACTIVE, UserState.SUSPENDED):
        held = replace(active, state=state)
        assert identity.hand_out(held, CODE, now=NOW, replaces=key_id(bytes(32))).replaces == key_id(bytes(32))
        again = enrolled(held, replaces=key_id(bytes(32)), **FRESH)
        assert (again.state, again.identity_key, again.sealing_key) == (state, *FRESH.values())
        for spent in (again, invited()):
            with pytest.raises(EnrolmentRefused):
                enrolled(spent, replaces=key_id(bytes(32)), **FRESH)
    for who in (invited(), active):
        with pytest.raises(Conflict, match="is not the key of"):
            identity.hand_out(who, CODE, now=NOW, replaces="0123456789abcdef")


@pytest.mark.parametrize("same", [{"identity_key": bytes(32)}, {"sealing_key": SEALING}])
def test_new_keys_are_both_new(same):
    with pytest.raises(InvalidArgument, match="both of them"):
        identity.rotate(enrolled(), **FRESH | same)
    with pytest.raises(InvalidArgument, match="both of them"):
        enrolled(enrolled(), replaces=key_id(bytes(32)), **FRESH | same)
    assert identity.rotate(enrolled(), **FRESH).identity_key == FRESH["identity_key"]


def test_who_shows_another_key_or_a_denied_certificate_is_not_admitted():
    ada = enrolled()
    assert identity.admitted(ada, key=key_id(bytes(32)), denied=False) == ada
    for key, denied in ((key_id(bytes(32)), True), ("0123456789abcdef", False), ("", False)):
        with pytest.raises(CertificateRefused):
            identity.admitted(ada, key=key, denied=denied)
    with pytest.raises(Suspended):
        identity.admitted(replace(ada, state=UserState.SUSPENDED), key=key_id(bytes(32)), denied=False)


@pytest.mark.parametrize("roles", [[Role.REVIEWER], [Role.ADMIN], [Role.RESEARCHER, Role.REVIEWER]])
def test_two_admins_make_reviewers_and_admins_and_one_does_only_while_there_is_one(roles):
    assert identity.appointed_alone(invited("ada", *roles), admins=1)
    with pytest.raises(Denied, match="mo motions propose appoint users/ada --fact organisation=organisations/lab-a"):
        identity.appointed_alone(invited("ada", *roles), admins=2)
    assert not identity.appointed_alone(invited("ada", Role.RESEARCHER, Role.PUBLISHER, Role.AUDITOR), admins=2)


@pytest.mark.parametrize("text", ["", "king", "reviewer, admin", "reviewer,", "Reviewer"])
def test_roles_of_a_motion_are_roles(text):
    with pytest.raises(InvalidArgument):
        identity.roles_of(text)
    assert identity.roles_of("admin,reviewer") == {Role.ADMIN, Role.REVIEWER}


def test_who_stands_is_served():
    assert identity.standing(user()) == user()
    with pytest.raises(Suspended):
        identity.standing(user(state=UserState.SUSPENDED))
    with pytest.raises(Unauthenticated):
        identity.standing(invited())


def test_a_certificate_lives_twelve_hours():
    begins, ends = identity.certificate_times(NOW)
    assert begins < NOW < ends
    assert (ends - NOW).total_seconds() == 12 * 3600


def test_nobody_stops_or_starts_themself_and_one_admin_stays():
    root, other = user("root", Role.ADMIN), user("other", Role.ADMIN)
    with pytest.raises(Conflict, match="your own"):
        identity.suspend(root, by=root, other_active_admins=3)
    with pytest.raises(Conflict, match="last active admin"):
        identity.suspend(root, by=other, other_active_admins=0)
    stopped = identity.suspend(root, by=other, other_active_admins=1)
    assert stopped.state is UserState.SUSPENDED
    with pytest.raises(Conflict, match="already"):
        identity.suspend(stopped, by=other, other_active_admins=1)
    with pytest.raises(Conflict, match="your own"):
        identity.reinstate(stopped, by=stopped)
    assert identity.reinstate(stopped, by=other) == root
    with pytest.raises(Conflict):
        identity.reinstate(root, by=other)


def test_an_account_without_keys_is_reinstated_as_invited():
    stopped = identity.suspend(invited(), by=user("root", Role.ADMIN), other_active_admins=0)
    assert identity.reinstate(stopped, by=user("root", Role.ADMIN)).state is UserState.INVITED
