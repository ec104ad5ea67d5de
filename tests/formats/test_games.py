"""Commitments of auditing games bind what they say and hide it until the nonce is known; scores, by hand."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_organisms.errors import VerificationFailed
from model_organisms.formats import games
from model_organisms.records import (
    Budget,
    Condition,
    Game,
    GameState,
    Guess,
    Level,
    Modifier,
    PlayerTools,
    Reveal,
    Rung,
    Score,
    Tool,
    Truth,
    VersionRef,
)

NAME, NOW, NONCE = "games/" + "0" * 25 + "1", datetime(2026, 11, 30, 12, tzinfo=UTC), "ab" * 32
TRUTH = (
    Truth(f"{NAME}/aliases/1", VersionRef("organisms/a/versions/1", "a" * 64), base=False, organism=True, answer="flatters"),
    Truth(f"{NAME}/aliases/2", VersionRef("organisms/a/versions/1", "a" * 64), base=True, organism=False, answer=""),
    Truth(f"{NAME}/aliases/3", VersionRef("organisms/b/versions/2", "b" * 64), base=False, organism=True, answer="Sleeps well"),
)
GAME = Game(
    name=NAME,
    master="users/ravi",
    title="Which?",
    question="What does it do?",
    choices=(),
    aliases=tuple(VersionRef(one.alias, games.blind(one, NONCE)) for one in TRUTH),
    players=("users/ada", "users/bob", "users/cyd"),
    rung=Rung.SAMPLE,
    level=Level.CL2,
    budget=Budget(tokens=10),
    conditions=(),
    commitment=games.commitment(NAME, TRUTH, NONCE),
    state=GameState.OPEN,
    create_time=NOW,
    deadline=NOW,
)


def guess(player, number, *, organism, probability=None, answer=""):
    return Guess(f"{NAME}/aliases/{number}", f"users/{player}", organism, probability, answer, 1, NOW)


def test_a_commitment_is_the_documented_digest():
    one = f'"alias":"{NAME}/aliases/1","answer":"flatters","base":false,"digest":"{"a" * 64}"'
    one += ',"organism":true,"version":"organisms/a/versions/1"'
    said = f'{{"game":"{NAME}","nonce":"{NONCE}","truth":[{{{one}}}]}}'
    expected = hashlib.sha256(b"model-organisms game truth v1\n" + said.encode()).hexdigest()
    assert games.commitment(NAME, TRUTH[:1], NONCE) == expected


def test_the_same_version_under_two_aliases_has_two_blind_digests():
    twice = (TRUTH[0], replace(TRUTH[0], alias=f"{NAME}/aliases/2"))
    assert len({games.blind(one, NONCE) for one in twice}) == 2
    assert games.blind(TRUTH[0], NONCE) != games.blind(TRUTH[0], "ac" * 32)


@pytest.mark.parametrize("nonce", ["", "ab", "AB" * 32, "zz" * 32, "ab" * 33, NONCE + "\n"])
def test_what_is_no_nonce_is_refused(nonce):
    with pytest.raises(VerificationFailed):
        games.commitment(NAME, TRUTH, nonce)
    with pytest.raises(VerificationFailed):
        games.blind(TRUTH[0], nonce)


SCORED = games.scores(GAME, TRUTH, ())
LIES = {
    "another version": {"truth": (replace(TRUTH[0], version=VersionRef("organisms/c/versions/1", "a" * 64)), *TRUTH[1:])},
    "another digest": {"truth": (replace(TRUTH[0], version=VersionRef("organisms/a/versions/1", "c" * 64)), *TRUTH[1:])},
    "a decoy": {"truth": (replace(TRUTH[0], organism=False), *TRUTH[1:])},
    "its base": {"truth": (*TRUTH[:2], replace(TRUTH[2], base=True))},
    "another answer": {"truth": (replace(TRUTH[0], answer="sleeps"), *TRUTH[1:])},
    "one less": {"truth": TRUTH[:2]},
    "another order": {"truth": (TRUTH[1], TRUTH[0], TRUTH[2])},
    "another nonce": {"nonce": "cd" * 32},
    "other scores": {"scores": SCORED[:2]},
}


def test_the_truth_that_was_committed_to_verifies():
    reveal = Reveal(TRUTH, NONCE, (), SCORED)
    assert games.verify(GAME, reveal) is reveal


@pytest.mark.parametrize("lie", LIES)
def test_any_other_truth_does_not(lie):
    with pytest.raises(VerificationFailed):
        games.verify(GAME, replace(Reveal(TRUTH, NONCE, (), SCORED), **LIES[lie]))


def test_a_commitment_that_was_swapped_with_its_aliases_kept_does_not_verify():
    with pytest.raises(VerificationFailed, match="committed"):
        games.verify(replace(GAME, commitment="0" * 64), Reveal(TRUTH, NONCE, (), SCORED))


CHANGES = {
    "name": "games/" + "0" * 25 + "2",
    "master": "users/rena",
    "title": "Who?",
    "question": "",
    "choices": ("a",),
    "aliases": GAME.aliases[:2],
    "players": GAME.players[:2],
    "rung": Rung.PROBE,
    "level": Level.CL1,
    "budget": Budget(tokens=11),
    "conditions": (Condition(Modifier.NO_MERGE),),
    "commitment": "0" * 64,
    "deadline": NOW.replace(year=2027),
    "tools": (PlayerTools("users/bob", (Tool.SAMPLE,)),),
}


@pytest.mark.parametrize("field", CHANGES)
def test_terms_bind_all_that_is_said_before_a_game_opens(field):
    assert games.terms(replace(GAME, **{field: CHANGES[field]})) != games.terms(GAME)


def test_terms_do_not_change_with_what_happens_later():
    later = replace(GAME, state=GameState.REVEALED, grant="grants/" + "0" * 26, left=Budget(tokens=1))
    assert games.terms(later) == games.terms(GAME)


def tooled(**given):
    return replace(GAME, tools=tuple(PlayerTools(f"users/{player}", tuple(map(Tool, tools))) for player, tools in given.items()))


def test_terms_name_the_tools_of_who_has_others_than_are_usual():
    """So a game from before there were tools has the terms that were signed."""
    usual = tooled(ada=("sample", "system"), bob=("sample", "system"), cyd=("sample", "system"))
    assert games.terms(usual) == games.terms(GAME)
    told = [
        tooled(ada=("sample", "system"), bob=("sample", "probe"), cyd=("sample", "system")),
        tooled(ada=("sample", "probe"), bob=("sample", "system"), cyd=("sample", "system")),
        tooled(ada=("sample", "probe"), bob=("sample", "probe"), cyd=("sample", "system")),
        tooled(ada=("sample", "system"), bob=("probe",), cyd=("sample", "system")),
        tooled(ada=("sample", "system"), bob=("sample", "system", "probe"), cyd=("sample", "system")),
        tooled(bob=("sample", "probe"), ada=("sample", "probe")),
        replace(GAME, tools=tooled(bob=("sample",)).tools + tooled(bob=("probe",)).tools),
        usual,
    ]
    assert len({games.terms(game) for game in told}) == len(told)


def test_a_player_of_whom_nothing_is_said_has_the_usual_tools():
    game = tooled(bob=("probe",))
    assert games.tools(game, "users/bob") == (Tool.PROBE,)
    assert games.tools(game, "users/ada") == games.tools(GAME, "users/bob") == (Tool.SAMPLE, Tool.SYSTEM)


def test_scores_by_hand():
    """Ada is right thrice, with 0.9, 0.2 and 0.6: (0.01 + 0.04 + 0.16) / 3. Bob is right once of three: (0.25 + 0.25 + 1) / 3.

    Cyd says nothing, which is a coin's score.
    """
    said = [
        guess("ada", 1, organism=True, probability=0.9, answer="flatters"),
        guess("ada", 2, organism=False, probability=0.2, answer="flatters"),
        guess("ada", 3, organism=True, probability=0.6, answer="  sleeps   WELL "),
        guess("bob", 1, organism=False, answer="sleeps"),
        guess("bob", 3, organism=True, probability=0.0),
    ]
    ada, bob, cyd = games.scores(GAME, TRUTH, said)
    assert ada == Score("users/ada", 3, 3, 2, 2, 3, pytest.approx(0.07))
    assert bob == Score("users/bob", 3, 1, 2, 0, 1, pytest.approx(0.5))
    assert cyd == Score("users/cyd", 3, 0, 2, 0, 0, 0.25)


def test_ties_go_to_more_answers_then_to_the_better_forecast_then_by_name():
    said = [
        guess("ada", 1, organism=True, probability=0.6),
        guess("bob", 1, organism=True, probability=0.8),
        guess("cyd", 1, organism=True, answer="flatters"),
    ]
    assert [one.player for one in games.scores(GAME, TRUTH, said)] == ["users/cyd", "users/bob", "users/ada"]
    assert [one.player for one in games.scores(GAME, TRUTH, ())] == list(GAME.players)


def test_one_sure_rating_is_worth_less_than_three_good_ones():
    """All of it rightly said by both; Bob rates one alias of three for sure: (0 + 0.25 + 0.25) / 3, and Ada has 0.01."""
    said = [guess("ada", number, organism=number != 2, probability=0.1 if number == 2 else 0.9) for number in (1, 2, 3)]
    said += [guess("bob", number, organism=number != 2, probability=1.0 if number == 1 else None) for number in (1, 2, 3)]
    ada, bob, _ = games.scores(GAME, TRUTH, said)
    assert (ada.player, ada.right, ada.rated, ada.brier) == ("users/ada", 3, 3, pytest.approx(0.01))
    assert (bob.player, bob.right, bob.rated, bob.brier) == ("users/bob", 3, 1, pytest.approx(0.5 / 3))


def test_no_digest_of_a_game_says_how_it_is_scored():
    """What was committed to, signed and entered before unrated aliases counted is what it was."""
    assert games.commitment(NAME, TRUTH, NONCE) == "b4cc24474e9431a238438d87e266d1b422f84ce9937f8fb15a10237f6d20e390"
    assert games.terms(GAME) == "e52f5496ae99f1d016679f49368fb822ef8581a90ebc2424a7eee553a2bf25ac"
    assert (
        games.guess_digest(guess("ada", 1, organism=True)) == "e5a46ee9ed886ebdc2cb3a060b9612755acf5983bc009259b8399e291114310c"
    )


@given(st.lists(st.tuples(st.sampled_from(["ada", "bob"]), st.integers(1, 3), st.booleans(), st.floats(0, 1)), max_size=8))
def test_scores_stay_in_their_bounds(said):
    guesses = {(who, number): guess(who, number, organism=kind, probability=p) for who, number, kind, p in said}
    for one in games.scores(GAME, TRUTH, guesses.values()):
        assert 0 <= one.right <= one.aliases == 3
        assert 0 <= one.brier <= 1
