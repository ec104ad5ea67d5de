"""What may be in an auditing game, who plays it, and when it moves."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from model_organisms import errors
from model_organisms.formats import games as formats
from model_organisms.records import (
    Budget,
    Condition,
    FileKind,
    GameState,
    GrantState,
    Guess,
    Level,
    Modifier,
    PlayerTools,
    Purpose,
    Role,
    Rung,
    Tool,
    UserState,
    VersionState,
)
from model_organisms_registry.domain import games as rules
from model_organisms_registry.domain.hazard import TABLE, tightened

from tests.domain.cast import NOW, subject, user

NAME, NONCE = "games/" + "0" * 25 + "1", "ab" * 32
END = NOW + timedelta(days=1)
RAVI, ADA, BOB = user("ravi", Role.REVIEWER), user("ada", Role.RESEARCHER), user("bob", Role.RESEARCHER)
BOTH = (Tool.SAMPLE, Tool.PROBE)
SHEET = rules.Sheet("Which?", "What does it do?", (), None, END)


def secret(name="a", level=Level.CL2, **changes):
    made = subject(level, name=name, **changes)
    return replace(made, organism=replace(made.organism, hidden=True))


def seated(*subjects):
    return [rules.Seated(one, base=False, organism=True, answer="flatters") for one in subjects or (secret(),)]


def drawn(*, seats=None, players=(ADA, BOB), master=RAVI, knowing=(), table=TABLE, **sheet):
    return rules.draw(
        NAME,
        replace(SHEET, **sheet),
        seats or seated(),
        master=master,
        players=players,
        knowing=knowing,
        nonce=NONCE,
        now=NOW,
        table=table,
    )


def opened(**changes):
    return rules.opened(drawn(**changes).game)


def test_a_draft_binds_its_truth_and_says_nothing_of_it():
    made = drawn(seats=[*seated(secret("a"), secret("b")), rules.Seated(secret("a"), base=True, organism=False, answer="")])
    game = made.game
    assert (game.state, game.level, game.rung, game.players) == (
        GameState.DRAFT,
        Level.CL2,
        Rung.SAMPLE,
        ("users/ada", "users/bob"),
    )
    assert game.commitment == formats.commitment(NAME, made.truth, NONCE)
    assert [alias.digest for alias in game.aliases] == [formats.blind(one, NONCE) for one in made.truth]
    assert "organisms/" not in repr(game)
    assert made.truth[2].base


def words(kind):
    made = secret()
    file = replace(made.version.files[0], kind=kind)
    return replace(made, version=replace(made.version, files=(*made.version.files, file)))


REFUSED = {
    "a version everybody sees": (errors.Denied, {"seats": seated(subject(Level.CL1))}),
    "CL3": (errors.Denied, {"seats": seated(secret(level=Level.CL3))}),
    "two bases": (
        errors.InvalidArgument,
        {"seats": seated(secret("a"), replace(secret("b"), organism=replace(secret("b").organism, base_model="test/other")))},
    ),
    "a withdrawn version": (
        errors.Withdrawn,
        {"seats": seated(replace(secret(), version=replace(secret().version, state=VersionState.WITHDRAWN)))},
    ),
    "a base that is an organism": (
        errors.InvalidArgument,
        {"seats": [rules.Seated(secret(), base=True, organism=True, answer="")]},
    ),
    "a base with a prompt": (
        errors.InvalidArgument,
        {"seats": [rules.Seated(words(FileKind.PROMPT), base=True, organism=False, answer="")]},
    ),
    "an answer that is no choice": (errors.InvalidArgument, {"choices": ("sleeps",)}),
    "no player": (errors.InvalidArgument, {"players": ()}),
    "a player twice": (errors.InvalidArgument, {"players": (ADA, ADA)}),
    "a player who oversees": (errors.Denied, {"players": (replace(ADA, roles=frozenset({Role.RESEARCHER, Role.AUDITOR})),)}),
    "a player who is stopped": (errors.Denied, {"players": (replace(ADA, state=UserState.SUSPENDED),)}),
    "a player who is no researcher": (errors.Denied, {"players": (user("pat", Role.PUBLISHER),)}),
    "a player who knows one": (errors.Denied, {"knowing": {"users/bob"}}),
    "a player who owns one": (errors.Denied, {"players": (replace(ADA, name=secret().organism.owner),)}),
    "its master": (
        errors.Denied,
        {
            "master": replace(ADA, roles=frozenset({Role.RESEARCHER, Role.PUBLISHER}), name=secret().organism.owner),
            "players": (replace(ADA, name=secret().organism.owner),),
        },
    ),
    "another publisher's organism": (errors.Denied, {"master": user("pat2", Role.PUBLISHER)}),
    "a deadline that is over": (errors.InvalidArgument, {"deadline": NOW}),
    "a deadline too far": (errors.InvalidArgument, {"deadline": NOW + timedelta(days=181)}),
    "a budget beyond the level's": (errors.InvalidArgument, {"budget": Budget(tokens=10**9)}),
    "numbers, at the rung sample": (errors.InvalidArgument, {"budget": Budget(probe_values=1)}),
    "more approvals than two": (errors.Denied, {"table": tightened(TABLE, {"CL2.sample": {"approvals": 3}})}),
    "more than two for a probe": (errors.Denied, {"tools": BOTH, "table": tightened(TABLE, {"CL2.probe": {"approvals": 3}})}),
    "a tool twice": (errors.InvalidArgument, {"tools": (Tool.SAMPLE, Tool.SAMPLE)}),
    "tools of no use": (errors.InvalidArgument, {"tools": (Tool.SYSTEM,)}),
    "a player with none": (errors.InvalidArgument, {"player_tools": (PlayerTools("users/ada", ()),)}),
    "tools of who does not play": (errors.InvalidArgument, {"player_tools": (PlayerTools("users/cyd", BOTH),)}),
    "tools said twice": (
        errors.InvalidArgument,
        {"player_tools": (PlayerTools("users/ada", BOTH),) * 2},
    ),
    "a probe and no numbers": (errors.InvalidArgument, {"tools": BOTH, "budget": Budget(tokens=10, probe_values=10)}),
    "a probe of a prompt": (errors.InvalidArgument, {"tools": BOTH, "seats": seated(words(FileKind.PROMPT))}),
    "a probe of a tokenizer": (errors.InvalidArgument, {"tools": BOTH, "seats": seated(words(FileKind.TOKENIZER))}),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_has_no_place_in_a_game(why):
    error, changes = REFUSED[why]
    with pytest.raises(error):
        drawn(**changes)


def test_what_owners_ask_holds_in_a_game_too():
    def asking(*conditions, purposes=()):
        made = secret()
        return seated(replace(made, organism=replace(made.organism, conditions=conditions, purposes=purposes)))

    promised = drawn(seats=asking(Condition(Modifier.NO_AGENTIC_TOOLS), Condition(Modifier.BLINDED)))
    assert len(promised.game.conditions) == 2
    with pytest.raises(errors.PurposeRefused):
        drawn(seats=asking(Condition(Modifier.INSTITUTION, name="organisations/elsewhere")))
    with pytest.raises(errors.PurposeRefused):
        drawn(seats=asking(purposes=(Purpose.TEACHING,)))
    with pytest.raises(errors.InvalidArgument):
        drawn(seats=asking(Condition(Modifier.TIME_LIMIT, duration_s=3600)))


def test_a_game_opens_on_the_terms_that_are_signed_and_no_others():
    game = drawn().game
    terms = formats.terms(game)
    assert rules.opening(game, [secret()], terms, knowing=(), table=TABLE, now=NOW) == TABLE.of(Level.CL2, Rung.SAMPLE)
    with pytest.raises(errors.Conflict, match="terms"):
        rules.opening(replace(game, deadline=END + timedelta(days=1)), [secret()], terms, knowing=(), table=TABLE, now=NOW)
    with pytest.raises(errors.Denied, match="users/bob knows"):
        rules.opening(game, [secret()], terms, knowing={"users/bob", "users/cyd"}, table=TABLE, now=NOW)
    with pytest.raises(errors.Denied):
        rules.opening(game, [secret(level=Level.CL3)], terms, knowing=(), table=TABLE, now=NOW)
    with pytest.raises(errors.Conflict, match="raised"):
        rules.opening(
            replace(game, level=Level.CL1),
            [secret()],
            formats.terms(replace(game, level=Level.CL1)),
            knowing=(),
            table=TABLE,
            now=NOW,
        )
    for late in (END, END + timedelta(days=1)):
        with pytest.raises(errors.Conflict, match="draft"):
            rules.opening(game, [secret()], terms, knowing=(), table=TABLE, now=late)
    with pytest.raises(errors.Conflict, match="draft"):
        rules.opening(rules.opened(game), [secret()], terms, knowing=(), table=TABLE, now=NOW)


def test_who_joins_gets_a_grant_on_aliases_until_the_deadline():
    game = opened()
    grant = rules.join(game, ADA, grant="grants/" + "0" * 26, now=NOW)
    assert (grant.state, grant.user, grant.request) == (GrantState.ACTIVE, "users/ada", NAME)
    assert (grant.versions, grant.expire_time, grant.level, grant.rung) == (game.aliases, END, Level.CL2, Rung.SAMPLE)
    assert grant.budget == game.budget
    for other, when in ((drawn().game, NOW), (game, END), (replace(game, state=GameState.REVEALED), NOW)):
        with pytest.raises(errors.Conflict):
            rules.join(other, ADA, grant="grants/" + "0" * 26, now=when)


def test_each_player_has_their_own_tools_and_of_the_grant_what_these_spend():
    budget = Budget(tokens=50, sessions=3, output_bytes=500, probe_values=200)
    cyd = user("cyd", Role.RESEARCHER)
    own = (PlayerTools("users/bob", (Tool.PROBE, Tool.SYSTEM, Tool.SAMPLE)), PlayerTools("users/cyd", (Tool.PROBE,)))
    game = opened(players=(ADA, BOB, cyd), budget=budget, player_tools=own)
    assert game.rung is Rung.PROBE
    assert game.tools == (
        PlayerTools("users/ada", (Tool.SAMPLE, Tool.SYSTEM)),
        PlayerTools("users/bob", (Tool.SAMPLE, Tool.SYSTEM, Tool.PROBE)),
        PlayerTools("users/cyd", (Tool.PROBE,)),
    )
    seats = [rules.join(game, player, grant="grants/" + "0" * 26, now=NOW) for player in (ADA, BOB, cyd)]
    assert [seat.rung for seat in seats] == [Rung.SAMPLE, Rung.PROBE, Rung.PROBE]
    assert [seat.budget for seat in seats] == [
        Budget(tokens=50, sessions=3, output_bytes=500),
        budget,
        Budget(sessions=3, probe_values=200),
    ]


def test_to_open_a_game_in_which_somebody_may_probe_takes_what_that_rung_takes():
    table = tightened(TABLE, {"CL2.probe": {"approvals": 2, "distinct_organisations": True}})
    for given, houses in (((), False), (BOTH, True)):
        game = drawn(table=table, tools=given).game
        assert (
            rules.opening(game, [secret()], formats.terms(game), knowing=(), table=table, now=NOW).distinct_organisations
            is houses
        )
    with pytest.raises(errors.InvalidArgument, match="prompt"):
        rules.opening(game, [words(FileKind.PROMPT)], formats.terms(game), knowing=(), table=table, now=NOW)


def test_numbers_are_in_a_budget_only_where_somebody_may_probe():
    assert drawn().game.budget.probe_values == 0
    assert drawn(tools=BOTH).game.budget.probe_values > 0
    assert (drawn(tools=(Tool.PROBE,)).game.budget.tokens, drawn(tools=(Tool.PROBE,)).game.budget.output_bytes) == (0, 0)


def said(**changes):
    return replace(Guess(f"{NAME}/aliases/1", "users/ada", True, 0.5, "flatters", 1, NOW), **changes)


def test_guesses_are_of_who_joined_in_time_and_in_bounds():
    game = replace(opened(choices=("flatters", "sleeps")), grant="grants/" + "0" * 26)
    assert rules.guess(game, said(answer=" flatters "), now=END - timedelta(seconds=1)).answer == "flatters"
    assert rules.guess(game, said(answer="", probability=None), now=NOW).answer == ""
    assert rules.guess(game, said(count=rules.MOST_GUESSES), now=NOW)
    for organism, probability in ((True, 0.5), (False, 0.5), (True, 1.0), (False, 0.0)):
        assert rules.guess(game, said(organism=organism, probability=probability), now=NOW).probability == probability
    for wrong in (
        {"alias": f"{NAME}/aliases/2"},
        {"answer": "sings"},
        {"probability": 1.1},
        {"probability": float("nan")},
        {"organism": True, "probability": 0.0},
        {"organism": True, "probability": 0.499},
        {"organism": False, "probability": 0.501},
        {"organism": False, "probability": 1.0},
        {"answer": "\x1b[2J"},
    ):
        with pytest.raises(errors.InvalidArgument):
            rules.guess(game, said(**wrong), now=NOW)
    for other, when, count in ((game, END, 1), (replace(game, grant=""), NOW, 1), (game, NOW, rules.MOST_GUESSES + 1)):
        with pytest.raises(errors.Conflict):
            rules.guess(other, said(count=count), now=when)


def test_the_truth_is_told_after_the_deadline_of_a_game_that_opened():
    game = opened()
    for other, when in ((game, END - timedelta(seconds=1)), (drawn().game, END), (drawn().game, NOW)):
        with pytest.raises(errors.Conflict):
            rules.reveal(other, now=when)
    told = rules.reveal(game, now=END)
    assert told.state is rules.reveal(told, now=END).state is GameState.REVEALED
    assert rules.state_of(game, now=END).state is GameState.CLOSED
    assert rules.state_of(told, now=END) == told


def test_from_above_all_aliases_look_alike_whatever_they_stand_for():
    low, high = secret("a", level=Level.CL1), secret("b", level=Level.CL2)
    game = drawn(seats=seated(low, high)).game
    stopped = replace(high, version=replace(high.version, state=VersionState.QUARANTINED))
    stand_ins = [
        rules.veiled(game, alias, base=base, behind=behind, others=(low, stopped))
        for alias, behind, base in zip(game.aliases, (low, high), (True, False), strict=True)
    ]
    for alias, one in zip(game.aliases, stand_ins, strict=True):
        assert one.ref == alias
        assert (one.level, one.version.state) == (Level.CL2, VersionState.QUARANTINED)
        assert one.organism.name == NAME
        assert one.authors == {"users/ravi"}
    one, other = (replace(item, behind=None, base=False) for item in stand_ins)
    assert repr(one).replace(game.aliases[0].name, "it").replace(game.aliases[0].digest, "d") == repr(other).replace(
        game.aliases[1].name, "it"
    ).replace(game.aliases[1].digest, "d")
