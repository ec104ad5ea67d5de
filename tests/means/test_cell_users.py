"""The users that cells become: each is one cell's at a time, on the whole machine, and comes back when the cell has gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from model_organisms.cells import users
from model_organisms.errors import CellUnavailable

from tests.support.cells import eventually, jailed, said

ROOT = os.geteuid() == 0
OTHER = """
import sys, time
from pathlib import Path
from model_organisms.cells import users
users.FOLDER, users.USERS = Path(sys.argv[1]), range(61000, 61002)
print(users.take()[0], flush=True)
time.sleep(60)
"""


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two users, of whom nobody has one yet."""
    monkeypatch.setattr(users, "FOLDER", tmp_path / "users")
    monkeypatch.setattr(users, "USERS", range(61000, 61002))
    return {61000, 61001}


def test_what_another_process_has_taken_is_not_given_again_until_that_is_gone(two):
    other = subprocess.Popen([sys.executable, "-c", OTHER, str(users.FOLDER)], stdout=subprocess.PIPE)
    try:
        theirs = int(other.stdout.readline())
        ours, lock = users.take()
        assert {ours, theirs} == two
        with pytest.raises(CellUnavailable, match="All 2 users"):
            users.take()
        users.give_back(lock)
        assert users.take()[0] == ours
    finally:
        other.kill()
        other.communicate()
    assert users.take()[0] == theirs
    with pytest.raises(CellUnavailable):
        users.take()


def test_where_there_is_no_place_for_locks_chance_decides_and_the_log_says_so(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(users, "FOLDER", tmp_path / "file" / "users")
    number, lock = users.take()
    assert number in users.USERS
    assert lock == -1
    users.give_back(lock)
    assert "drawn at random" in caplog.text


def test_a_cell_has_its_user_for_as_long_as_it_lives(two):
    if not ROOT:
        pytest.skip("only root gives cells a user")
    code = "report(list(os.getresuid()))\nimport time\ntime.sleep(60)"
    with jailed(code) as first, jailed(code) as second:
        assert {first.user, second.user} == two
        assert (said(first), said(second)) == ([first.user] * 3, [second.user] * 3)
        with pytest.raises(CellUnavailable, match="All 2 users"), jailed(code):
            pass
        first.discard()
        assert eventually(lambda: free(first.user))
        with jailed(code) as third:
            assert third.user == first.user


def free(user):
    try:
        number, lock = users.take()
    except CellUnavailable:
        return False
    users.give_back(lock)
    return number == user
