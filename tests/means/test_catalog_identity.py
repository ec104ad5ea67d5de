"""Accounts, keys, enrolment codes and denied certificates, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from model_organisms.errors import AlreadyExists, Conflict, EnrolmentRefused, NotFound
from model_organisms.records import Role, UserState
from model_organisms_registry.storage.catalog import identity

from tests.support import catalog as make
from tests.support.databases import undone

CODE = make.digest("code")


def test_a_user_comes_back_as_it_was_put_in(database):
    invited = make.user("bob", identity_key=b"", sealing_key=b"", state=UserState.INVITED, roles=frozenset())
    with database.write() as tx:
        identity.add_user(tx, make.user("ada"))
        identity.add_user(tx, invited)
    with database.read() as tx:
        assert identity.user(tx, "users/ada") == make.user("ada")
        assert identity.user(tx, "users/bob") == invited
        with pytest.raises(NotFound):
            identity.user(tx, "users/cleo")


def test_several_users_may_be_without_a_key(database):
    with database.write() as tx:
        for name in ("ada", "bob", "cleo"):
            identity.add_user(tx, make.user(name, identity_key=b""))
        assert len(identity.users(tx).items) == 3


def test_a_name_is_given_once_and_the_transaction_goes_on(database):
    with database.write() as tx:
        identity.add_user(tx, make.user("ada"))
        with pytest.raises(AlreadyExists):
            identity.add_user(tx, make.user("ada", organisation="organisations/other", identity_key=b"other"))
        identity.add_user(tx, make.user("bob"))
    with database.read() as tx:
        assert identity.user(tx, "users/ada").organisation == "organisations/example-lab"
        assert [user.name for user in identity.users(tx).items] == ["users/ada", "users/bob"]


def test_state_and_keys_change(database):
    ada = make.user("ada", roles=frozenset({Role.ADMIN}))
    with database.write() as tx:
        identity.add_user(tx, ada)
        stopped = replace(ada, state=UserState.SUSPENDED)
        identity.change_user(tx, stopped, expected=ada)
        changed = replace(stopped, identity_key=b"k" * 32, sealing_key=b"s" * 1216)
        identity.change_user(tx, changed, expected=stopped)
        assert identity.user(tx, ada.name) == changed
        identity.change_user(tx, replace(changed, sealing_key=b"t" * 1216), expected=changed)
        for read in (ada, stopped, replace(changed, state=UserState.ACTIVE), replace(changed, identity_key=b"")):
            with pytest.raises(Conflict, match="changed meanwhile"):
                identity.change_user(tx, replace(read, state=UserState.ACTIVE), expected=read)
        assert identity.user(tx, ada.name) == replace(changed, sealing_key=b"t" * 1216)


def test_who_has_no_key_yet_is_stopped_and_stands_again(database):
    waiting = make.user("ada", identity_key=b"", sealing_key=b"", state=UserState.INVITED)
    with database.write() as tx:
        identity.add_user(tx, waiting)
        identity.add_user(tx, make.user("bob", identity_key=b"", sealing_key=b""))
        stopped = replace(waiting, state=UserState.SUSPENDED)
        identity.change_user(tx, stopped, expected=waiting)
        assert identity.user(tx, "users/ada") == stopped
        identity.change_user(tx, waiting, expected=stopped)
        assert identity.user(tx, "users/ada") == waiting


def test_the_other_active_admins_are_counted_however_many_accounts_there_are(database):
    both = frozenset({Role.ADMIN, Role.REVIEWER})
    accounts = [make.user(f"a{number:04d}", identity_key=b"") for number in range(1100)]
    accounts += [make.user(name, identity_key=b"", roles=both) for name in ("zoe", "zac", "admin")]
    accounts += [make.user("zed", identity_key=b"", roles=both, state=UserState.SUSPENDED)]
    with database.write() as tx:
        for account in accounts:
            identity.add_user(tx, account)
        assert identity.other_active_admins(tx, "users/zoe") == 2
        assert identity.other_active_admins(tx, "users/a0000") == 3
        for name in ("users/zac", "users/admin"):
            stands = identity.user(tx, name)
            identity.change_user(tx, replace(stands, state=UserState.SUSPENDED), expected=stands)
        assert identity.other_active_admins(tx, "users/zoe") == 0


def test_admins_count_who_are_enrolled_and_stand_or_were_stopped_only_lately(database):
    admin, yesterday = frozenset({Role.ADMIN}), make.NOW - timedelta(days=1)
    with database.write() as tx:
        for name, roles in (("ada", admin), ("bob", admin | {Role.REVIEWER}), ("cleo", frozenset({Role.REVIEWER}))):
            identity.add_user(tx, make.user(name, roles=roles))
        identity.add_user(tx, make.user("dora", roles=admin, identity_key=b"", state=UserState.INVITED))
        assert identity.counted_admins(tx, suspended_since=yesterday) == 2
        bob = identity.user(tx, "users/bob")
        stopped = replace(bob, state=UserState.SUSPENDED)
        identity.change_user(tx, stopped, expected=bob, suspend_time=make.NOW)
        fresh = replace(stopped, identity_key=b"k" * 32)
        identity.change_user(tx, fresh, expected=stopped)  # what does not change his state says nothing of since when
        assert identity.counted_admins(tx, suspended_since=yesterday) == 2
        assert identity.counted_admins(tx, suspended_since=make.NOW) == 1
        identity.change_user(tx, replace(fresh, state=UserState.ACTIVE), expected=fresh)
        assert identity.counted_admins(tx, suspended_since=make.LATER) == 2


def test_a_code_says_which_key_it_may_replace(database):
    with database.write() as tx:
        identity.add_user(tx, make.user("ada"))
        identity.add_enrolment(tx, CODE, "users/ada", make.LATER, "0123456789abcdef")
        assert identity.use_enrolment(tx, CODE, make.NOW) == ("users/ada", "0123456789abcdef")


def test_a_key_belongs_to_one_user(database):
    with database.write() as tx:
        identity.add_user(tx, make.user("ada"))
        identity.add_user(tx, make.user("bob"))
        taken = replace(make.user("bob"), identity_key=make.user("ada").identity_key)
        with pytest.raises(AlreadyExists, match="mo login"):
            identity.change_user(tx, taken, expected=make.user("bob"))
        with pytest.raises(AlreadyExists):
            identity.add_user(tx, make.user("cleo", identity_key=make.user("ada").identity_key))
        assert identity.user(tx, "users/bob") == make.user("bob")


def test_what_is_not_there_cannot_change(database):
    ada = make.user("ada")
    with database.write() as tx, pytest.raises(NotFound):
        identity.change_user(tx, replace(ada, state=UserState.SUSPENDED), expected=ada)


def test_a_code_enrols_once_and_in_time(database):
    with database.write() as tx:
        identity.add_user(tx, make.user("ada"))
        identity.add_enrolment(tx, CODE, "users/ada", make.LATER)
        with pytest.raises(AlreadyExists):
            identity.add_enrolment(tx, CODE, "users/ada", make.LATER)
        told = set()
        for code, now in ((make.digest("wrong"), make.NOW), (CODE, make.LATER), (CODE, make.LATER + timedelta(1))):
            with pytest.raises(EnrolmentRefused) as caught:
                identity.use_enrolment(tx, code, now)
            told.add(str(caught.value))
        assert identity.use_enrolment(tx, CODE, make.LATER - timedelta(microseconds=1)) == ("users/ada", "")
        with pytest.raises(EnrolmentRefused) as caught:
            identity.use_enrolment(tx, CODE, make.NOW)
    assert {*told, str(caught.value)} == told
    assert len(told) == 1


def test_a_code_of_nobody_cannot_be(database):
    with pytest.raises(Conflict), database.write() as tx:
        identity.add_enrolment(tx, CODE, "users/nobody", make.LATER)


def test_a_code_whose_use_failed_is_fresh_again(database):
    with database.write() as tx:
        identity.add_user(tx, make.user("ada"))
        identity.add_enrolment(tx, CODE, "users/ada", make.LATER)
    with undone(database) as tx:
        identity.use_enrolment(tx, CODE, make.NOW)
    with database.write() as tx:
        assert identity.use_enrolment(tx, CODE, make.NOW) == ("users/ada", "")


def test_a_denied_certificate_stays_denied(database):
    with database.write() as tx:
        identity.add_user(tx, make.user("ada"))
        assert identity.caller(tx, "users/ada", "aa") == (make.user("ada"), False)
        identity.deny_certificate(tx, "aa", "lost laptop", make.NOW)
        identity.deny_certificate(tx, "aa", "again", make.LATER)
        assert identity.caller(tx, "users/ada", "aa") == (make.user("ada"), True)
        assert identity.caller(tx, "users/ada", "bb") == (make.user("ada"), False)
        with pytest.raises(NotFound):
            identity.caller(tx, "users/bob", "aa")
