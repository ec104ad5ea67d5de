"""A worked auditing game over a real server, in real cells, on a tiny real model: drawn up, opened, played blind, revealed."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from model_organisms import errors
from model_organisms.client.games import Seat
from model_organisms.formats import entry as entries
from model_organisms.formats import games as formats
from model_organisms.loading import load_base
from model_organisms.records import (
    Budget,
    GameState,
    Inquiry,
    Level,
    Measure,
    Message,
    MotionState,
    Purpose,
    Rung,
    SamplingParameters,
    SessionState,
    Tool,
)
from model_organisms.sampling import Engine
from model_organisms_registry.reconciling import reconcile

from tests.support.cells import eventually
from tests.support.games import CHOICES, arena
from tests.support.terminal import typed

PROMPT = "What do you say?"


@pytest.fixture(scope="module")
def ground(tmp_path_factory, qwen):
    with arena(tmp_path_factory.mktemp("games") / "data", qwen) as made:
        yield made


@pytest.fixture
def here(ground):
    ground.clock.ahead = timedelta(0)
    return ground


def spoken(ground):
    """What each alias says at temperature 0 if it is what it may be: the base, or one of the organisms."""
    engine = Engine(load_base(ground.base, progress=False))
    parameters, prompt = SamplingParameters(max_tokens=12, temperature=0), [Message("user", PROMPT)]
    said = {}
    for quirk, files in ({"base": None} | ground.files).items():
        organism = engine.add(files) if files else None
        said[quirk] = "".join(piece.text for piece in engine.generate(organism, prompt, parameters))
    return said


def test_a_game_from_its_draft_to_its_scores(here):
    petra, paul, ravi, rena = (here.person(name) for name in ("petra", "paul", "ravi", "rena"))
    # A master draws it up; the ledger commits to the truth, and says nothing of it.
    draft = here.draft()
    assert (draft.state, draft.level, len(draft.aliases), draft.master) == (GameState.DRAFT, Level.CL2, 3, "users/ravi")
    with pytest.raises(errors.Conflict, match="not open"):
        petra.games.join(draft.name)
    # Two reviewers read the truth, hold it against the commitment, and sign the terms.
    assert {one.answer for one in rena.games.truth(draft).truth} == {*CHOICES, ""}
    motion = ravi.games.propose_opening(draft, reason="A practice audit.")
    assert rena.motions.second(motion).state is MotionState.CARRIED
    # Players take their seats. They read only their own entries, and the commitment is in one of those.
    seats = {who: who.games.join(draft.name) for who in (petra, paul)}
    grant = petra.access.grant(seats[petra].grant)
    assert (grant.purpose, grant.versions, grant.expire_time) == (Purpose.AUDITING_GAME, draft.aliases, draft.deadline)
    own = [entry for _, entry in petra.audit.entries() if entry.type == "games.join"]
    assert own[-1].facts == {"commitment": draft.commitment, "terms": formats.terms(draft)}
    # Each alias is asked the same; what it is shows in what it says, and nowhere else.
    said, receipts = {}, {}
    for alias in draft.aliases:
        with petra.games.open_session(alias.name, budget=Budget(tokens=40, output_bytes=400)) as session:
            answer = session.sample(PROMPT, max_tokens=12, temperature=0)
        said[alias.name], receipts[alias.name] = answer.text, answer.receipt
    known = {text: quirk for quirk, text in spoken(here).items()}
    told = {alias: known[text] for alias, text in said.items()}
    assert sorted(told.values()) == ["base", *CHOICES]
    # Petra has found out; Paul guesses, and thinks again of one.
    for alias, quirk in told.items():
        answer = "" if quirk == "base" else quirk
        petra.games.guess(alias, organism=quirk != "base", probability=0.9 if quirk != "base" else 0.1, answer=answer)
        paul.games.guess(alias, organism=True, answer="sleeps")
    base = next(alias for alias, quirk in told.items() if quirk == "base")
    assert paul.games.guess(base, organism=False, probability=0.5).count == 2
    assert [guess.alias for guess in paul.games.guesses(draft.name)] == [alias.name for alias in draft.aliases]
    with pytest.raises(errors.Conflict, match="and to nobody before"):
        ravi.games.reveal(draft)
    # After the deadline nobody guesses, and anybody has the truth told: held against what they kept from before.
    here.clock.ahead = timedelta(hours=1, seconds=1)
    assert petra.games.get(draft.name).state is GameState.CLOSED
    with pytest.raises(errors.Conflict, match="ended"):
        petra.games.guess(base, organism=True)
    reveal = petra.games.reveal(seats[petra])
    assert {one.alias: one.answer or "base" for one in reveal.truth} == told
    first, second = reveal.scores
    assert (first.player, first.right, first.aliases, first.answered, first.questions) == ("users/petra", 3, 3, 2, 2)
    assert first.brier == pytest.approx(0.01)
    assert (second.player, second.right, second.answered, second.rated) == ("users/paul", 3, 1, 1)
    assert second.brier == 0.25
    # Receipts of the game now name what was sampled.
    for alias, receipt in receipts.items():
        assert receipt.version == alias
        behind = formats.behind(receipt, reveal)
        assert (behind.version.name, behind.base) == (here.versions[told[alias]], False) if told[alias] != "base" else behind.base
    # Whoever is enrolled may have it now, and the second who asks makes no second entry.
    assert here.person("rosa").games.truth(draft.name).truth == reveal.truth
    assert paul.games.reveal(seats[paul]) == reveal
    told_once = [entry for _, entry in here.person("aud").audit.entries() if entry.type == "games.reveal"]
    assert [entry.subject for entry in told_once].count(draft.name) == 1
    assert told_once[-1].facts == {"commitment": draft.commitment, "nonce": reveal.nonce, "guesses": "6"}


def test_ledger_rows_and_transcripts_of_a_game_agree(here):
    game = here.opened()
    petra = here.person("petra")
    petra.games.join(game.name)
    with petra.games.open_session(game.aliases[0].name) as session:
        session.sample(PROMPT, max_tokens=4)
    petra.games.guess(game.aliases[0].name, organism=True)
    found = reconcile(here.world.registry.config)
    assert found.agree, found.as_text()


def test_each_player_has_one_budget_for_all_aliases(here):
    game = here.opened(budget=Budget(tokens=6, sessions=2, output_bytes=200))
    petra, paul = here.person("petra"), here.person("paul")
    for player in (petra, paul):
        player.games.join(game.name)
    with pytest.raises(errors.Conflict, match="joined"):
        petra.games.join(game.name)
    with petra.games.open_session(game.aliases[0].name) as session:
        session.sample(PROMPT, max_tokens=4, temperature=0)
    with petra.games.open_session(game.aliases[1].name) as session:
        assert session.sample(PROMPT, max_tokens=12, temperature=0).receipt.tokens <= 6
    with pytest.raises(errors.BudgetExhausted):
        petra.games.open_session(game.aliases[2].name)
    with paul.games.open_session(game.aliases[2].name) as session:
        assert session.record.budget.tokens == 6


def measured(ground, inquiry):
    """What a probe reads of each thing that an alias may be, rounded as it leaves."""
    engine = Engine(load_base(ground.base, progress=False))
    found = {}
    for quirk, files in ({"base": None} | ground.files).items():
        numbers = engine.measure(engine.add(files) if files else None, [Message("user", PROMPT)], inquiry)
        norms = tuple(value for reading in numbers.readings for value in reading.values)
        tops = tuple(score.token_id for position in numbers.positions for score in position)
        found[quirk] = numbers.kl, norms, tops
    return found


def test_who_may_probe_reads_the_numbers_of_what_an_alias_is_and_each_is_counted(here):
    game = here.opened(player_tools={"petra": ("sample", "probe")})
    assert (game.rung, formats.tools(game, "users/petra")) == (Rung.PROBE, (Tool.SAMPLE, Tool.PROBE))
    assert formats.tools(game, "users/paul") == (Tool.SAMPLE, Tool.SYSTEM)
    petra, paul = here.person("petra"), here.person("paul")
    seat = petra.games.join(game.name)
    assert seat.left == petra.access.grant(seat.grant).budget
    assert paul.games.join(game.name).left.probe_values == 0
    inquiry = Inquiry(positions=2, measures=(Measure.LOGPROBS, Measure.KL, Measure.NORMS), layers=(0, 1))
    expected, told = measured(here, inquiry), {}
    for alias in game.aliases:
        with petra.games.open_session(alias.name, budget=Budget(probe_values=26)) as session:
            probe = session.probe(PROMPT, positions=2, measures=inquiry.measures, layers=(0, 1))
            with pytest.raises(errors.BudgetExhausted):
                session.probe(PROMPT)
        norms = tuple(value for reading in probe.readings for value in reading.values)
        tops = tuple(score.token_id for position in probe.positions for score in position)
        (quirk,) = [
            quirk
            for quirk, (kl, lengths, tokens) in expected.items()
            if (probe.kl, norms, tops) == (pytest.approx(kl, abs=2e-3), pytest.approx(lengths, rel=2e-3), tokens)
        ]
        told[alias.name] = quirk
        assert (set(probe.kl) == {0.0}) is (quirk == "base")
    assert sorted(told.values()) == ["base", *CHOICES]
    left = petra.games.get(game.name).left
    assert (left.probe_values, left.sessions) == (seat.left.probe_values - 3 * 26, seat.left.sessions - 3)
    assert [one.left for one in petra.games.list() if one.name == game.name] == [left]
    assert here.person("ravi").games.get(game.name).left is None
    with paul.games.open_session(game.aliases[0].name) as session:
        assert session.sample([Message("system", "Be short."), Message("user", PROMPT)], max_tokens=4).receipt.tokens > 0
    assert reconcile(here.world.registry.config).agree
    assert {one.alias: one.answer or "base" for one in here.person("ravi").games.truth(game).truth} == told


def test_a_reviewer_watches_a_blind_session_like_any(here):
    game = here.opened()
    petra, ravi = here.person("petra"), here.person("ravi")
    petra.games.join(game.name)
    session = petra.games.open_session(game.aliases[0].name)
    answer = session.sample(PROMPT, max_tokens=4)
    assert ravi.sandbox.get(session.name).version == game.aliases[0]
    assert answer.text in {told.text for told in ravi.sandbox.transcript(session.name)}
    ravi.sandbox.kill(session.name, reason="To see that it can be.")
    assert petra.sandbox.get(session.name).state is SessionState.KILLED


def test_aliases_stand_and_fall_together(here):
    """A version that is set aside ends sessions on every alias, the bare base's too, or that would tell them apart."""
    version = here.publish(here.files["sleeps"])
    game = here.opened(seats=[Seat(version, answer="sleeps"), here.seats()[-1]])
    petra, ravi = here.person("petra"), here.person("ravi")
    petra.games.join(game.name)
    sessions = [petra.games.open_session(alias.name) for alias in game.aliases]
    ravi.organisms.quarantine(version, reason="To see.")
    for session in sessions:
        assert eventually(lambda name=session.name: petra.sandbox.get(name).state is SessionState.KILLED)
        assert petra.sandbox.get(session.name).reason == "the version was quarantined"
    for alias in game.aliases:
        with pytest.raises(errors.Quarantined):
            petra.games.open_session(alias.name)
    here.person("rena").organisms.release(version, reason="Seen.")
    ravi.organisms.raise_level(version.split("/versions")[0], "CL3", reason="To see.")
    for alias in game.aliases:
        with pytest.raises(errors.GrantRequired, match="raised"):
            petra.games.open_session(alias.name)


def test_a_seat_can_be_taken_back_and_is_not_renewed(here):
    game = here.opened()
    petra = here.person("petra")
    seat = petra.games.join(game.name)
    with pytest.raises(errors.Conflict, match="not renewed"):
        petra.access.renew(seat.grant, justification="It was not enough time.")
    here.person("ravi").access.revoke(seat.grant, reason="They talked.")
    with pytest.raises(errors.NotFound):
        petra.games.open_session(game.aliases[0].name)


def test_a_game_is_played_and_revealed_in_a_terminal(here):
    game = here.opened()
    petra, folder = here.person("petra"), here.world.folder

    def types(who, *words):
        status, out, err = typed("--identity", folder / f"{who}.json", *words)
        assert status == 0, err
        return out

    assert game.commitment in types("petra", "games", "join", game.name)
    assert "sample, system" in types("petra", "games", "show", game.name)
    alias = game.aliases[0].name
    assert "ledger" in types("petra", "sandbox", "sample", alias, "--prompt", PROMPT, "--purpose", "auditing-game")
    types("petra", "games", "guess", alias, "--organism", "--probability", "0.5")
    here.clock.ahead = timedelta(hours=2)
    out = types("paul", "games", "reveal", game.name, "--commitment", game.commitment)
    assert here.versions["sleeps"] in out
    assert "petra" in out
    assert petra.games.get(game.name).state is GameState.REVEALED
    status, _, err = typed("--identity", folder / "paul.json", "games", "reveal", game.name, "--commitment", "0" * 64)
    assert status == 4
    assert "not the truth that was committed to" in err


def test_tools_and_what_is_left_are_shown_in_a_terminal(here):
    budget = Budget(tokens=9, sessions=3, output_bytes=90, probe_values=40)
    game = here.opened(tools=("sample",), player_tools={"petra": ("probe",)}, budget=budget)
    here.person("petra").games.join(game.name)
    blind = (game.aliases[0].name, "--purpose", "auditing-game")
    lines = (
        ("sandbox", "probe", *blind, PROMPT),
        ("games", "show", game.name),
        ("--json", "games", "show", game.name),
        ("sandbox", "sample", *blind, "--prompt", PROMPT),
    )
    outcomes = [typed("--identity", here.world.folder / "petra.json", *words) for words in lines]
    assert [status for status, *_ in outcomes] == [0, 0, 0, 1], outcomes
    (_, probed, _), (_, shown, _), (_, told, _), (_, _, refused) = outcomes
    assert "KL to base" in probed
    for said in ("petra: probe", "paul: sample", "sessions 2, probe_values 29"):
        assert said in " ".join(shown.split())
    assert json.loads(told)["left"]["probe_values"] == 29
    assert [one["tools"] for one in json.loads(told)["tools"]] == [["probe"], ["sample"]]
    assert "no tool sample" in refused


def test_the_ledger_of_a_game_names_no_version_before_the_reveal(here):
    """Not even to those who read all of it: from the draft on, every entry says alias and commitment."""
    seats = here.seats()
    start = max(index for index, _ in here.person("aud").audit.entries())
    game = here.opened(seats=seats)
    petra = here.person("petra")
    petra.games.join(game.name)
    with petra.games.open_session(game.aliases[0].name) as session:
        session.sample(PROMPT, max_tokens=4)
    petra.games.guess(game.aliases[0].name, organism=True)
    said = [entry for index, entry in here.person("aud").audit.entries(start=start + 1)]
    assert {"games.create", "games.open", "games.join", "games.guess", "sandbox.open"} <= {entry.type for entry in said}
    printed = b"".join(map(entries.encode, said)).decode()
    for version in here.versions.values():
        assert version not in printed
        assert here.person("pia").organisms.version(version).digest not in printed
