"""Attacks on the tools of auditing games: a player probes without the tool, in another game, late, or for more than is left.

And one who has it looks for the truth in what comes with the numbers; a master, or who writes in the database, gives tools later.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from model_organisms import errors
from model_organisms.cli.render import plain
from model_organisms.client.games import Seat
from model_organisms.formats import games as formats
from model_organisms.records import Budget, Measure, Message, SampleReceipt, Steer, Tool
from model_organisms_registry.reconciling import reconcile

from tests.support.games import arena

PROMPT = "What do you say?"
SPOKEN = [Message("system", "Say less."), Message("user", PROMPT)]
SOME = Budget(tokens=60, output_bytes=600, probe_values=60)
EACH = Budget(tokens=2000, sessions=40, output_bytes=20_000, probe_values=2000)
ONE = 11
"""Numbers of a probe of one position: five tokens with their log-probabilities, and the divergence."""


def pair(version):
    return [Seat(version, answer="flatters"), Seat(version, organism=False, base=True)]


@pytest.fixture(scope="module")
def ground(tmp_path_factory, qwen):
    """A game of one organism and its bare base: petra may sample and probe, paul only sample."""
    with arena(tmp_path_factory.mktemp("tools") / "data", qwen) as made:
        made.version = made.versions["flatters"]
        made.game = made.opened(
            seats=pair(made.version), budget=EACH, tools=["sample"], player_tools={"petra": ["probe", "sample"]}
        )
        made.seats = {name: made.person(name).games.join(made.game.name) for name in ("petra", "paul")}
        yield made


@pytest.fixture
def petra(ground):
    return ground.person("petra")


@pytest.fixture
def paul(ground):
    return ground.person("paul")


def refused(call, *arguments, **options):
    with pytest.raises(errors.ModelOrganismsError) as error:
        call(*arguments, **options)
    return error.value


def secrets_of(ground):
    """What no player may read before the reveal: the names and digests of what is behind the aliases."""
    found = ground.person("pia").organisms.version(ground.version)
    return {found.name, found.name.split("/versions")[0], found.digest, *(file.sha256 for file in found.files)}


def unsaid(ground, error):
    said = error.message + json.dumps(error.details)
    return not any(secret in said for secret in secrets_of(ground))


def numbers_of(player, ground):
    return player.games.get(ground.game.name).left.probe_values


def test_who_has_not_the_tool_gets_no_numbers_and_no_system_and_pays_nothing(ground, paul):
    seat = paul.access.grant(ground.seats["paul"].grant)
    assert (seat.rung.name, seat.budget.probe_values) == ("SAMPLE", 0)
    for alias in ground.game.aliases:
        with paul.games.open_session(alias.name, budget=Budget(tokens=20, output_bytes=200)) as session:
            for asked in ({}, {"measures": ("norms",), "layers": (0,)}, {"measures": ("activations",), "layers": (0,)}):
                error = refused(session.probe, PROMPT, **asked)
                assert isinstance(error, errors.GrantRequired)
                assert "terms" in error.message
                assert unsaid(ground, error)
            error = refused(session.sample, SPOKEN, max_tokens=4)
            assert (type(error), error.details["lacking"]) == (errors.Denied, "system")
            assert isinstance(refused(session.sample, PROMPT, max_tokens=4, scale=0.5), errors.GrantRequired)
            assert paul.sandbox.get(session.name).spent == Budget()
            why = paul.access.explain("probe", session.name)
            assert not why.allowed
            assert any("seat" in change for change in why.changes)
    spent = paul.access.grant(seat.name).spent
    assert spent == Budget(sessions=2)
    denied = [entry for _, entry in paul.audit.entries() if entry.facts.get("action") == "probe"]
    assert len(denied) >= 6


def test_who_may_probe_says_nothing_for_the_system_without_that_tool(ground, petra):
    with petra.games.open_session(ground.game.aliases[0].name, budget=SOME) as session:
        for call in (session.probe, session.sample):
            error = refused(call, SPOKEN)
            assert (type(error), error.details["lacking"]) == (errors.Denied, "system")
        assert petra.sandbox.get(session.name).spent == Budget()


def test_the_tool_of_one_game_is_of_no_use_in_another(ground, petra):
    other = ground.opened(seats=pair(ground.publish(ground.files["flatters"])))
    petra.games.join(other.name)
    here, there = ground.game.aliases[0].name, other.aliases[0].name
    assert isinstance(
        refused(petra.sandbox.open, there, purpose="auditing-game", grant=ground.seats["petra"].grant), errors.NotFound
    )
    before = numbers_of(petra, ground)
    with petra.games.open_session(there, budget=SOME) as plain_one, petra.games.open_session(here, budget=SOME) as probing:
        assert plain_one.record.budget.probe_values == 0
        assert isinstance(refused(plain_one.probe, PROMPT), errors.GrantRequired)
        assert plain_one.sample(SPOKEN, max_tokens=4).receipt.tokens > 0  # what that game gives, it gives
        assert probing.probe(PROMPT).positions
    assert numbers_of(petra, ground) == before - ONE


def test_numbers_run_out_for_all_at_once_and_never_below_nothing(ground):
    """Two probes and a little are left, and six come in one moment, in two sessions: two get theirs, the rest buys one number."""
    budget = Budget(tokens=100, sessions=4, output_bytes=1000, probe_values=2 * ONE + 1)
    game = ground.opened(seats=pair(ground.publish(ground.files["flatters"])), budget=budget, tools=["sample", "probe"])
    petra = ground.person("petra")
    petra.games.join(game.name)
    sessions = [petra.games.open_session(alias.name) for alias in game.aliases]

    def ask(session):
        try:
            return session.probe(PROMPT).receipt
        except errors.BudgetExhausted:
            return None

    with ThreadPoolExecutor(6) as pool:
        answers = [*pool.map(ask, sessions * 3)]
    assert sum(answer is not None for answer in answers) == 2
    left = petra.games.get(game.name).left
    assert left.probe_values == 1
    assert sum(petra.sandbox.get(session.name).spent.probe_values for session in sessions) == 2 * ONE
    one, other = sessions
    assert one.probe(PROMPT, measures=("norms",), layers=(0,)).readings[0].values
    error = refused(other.probe, PROMPT, measures=("norms",), layers=(0,))
    assert isinstance(error, errors.BudgetExhausted)
    assert unsaid(ground, error)
    assert petra.games.get(game.name).left.probe_values == 0
    assert one.sample(PROMPT, max_tokens=2).text is not None  # text is another budget
    for session in sessions:
        session.close()


def test_after_the_deadline_nobody_probes(ground):
    game = ground.opened(seats=pair(ground.publish(ground.files["flatters"])), tools=["sample", "probe"])
    petra = ground.person("petra")
    petra.games.join(game.name)
    session = petra.games.open_session(game.aliases[0].name, budget=SOME)
    assert session.probe(PROMPT).positions
    ground.clock.ahead = timedelta(hours=1, seconds=5)
    try:
        assert isinstance(refused(session.probe, PROMPT), errors.GrantExpired)
        assert isinstance(refused(petra.games.open_session, game.aliases[0].name), errors.GrantExpired)
        assert petra.games.get(game.name).left.probe_values == game.budget.probe_values - ONE
    finally:
        ground.clock.ahead = timedelta(0)
        with suppress(errors.Conflict):  # it has ended already
            session.close()


def test_what_comes_with_numbers_says_nothing_of_what_was_probed(ground, petra):
    """Receipts, sessions and entries of an organism and of its bare base are equal, but for where, when, and the numbers."""
    free = {"sample", "session", "version", "version_digest", "ledger_index", "output_sha256", "parameters"}
    probes, spent = [], []
    for alias in ground.game.aliases:
        with petra.games.open_session(alias.name, budget=SOME) as session:
            probes.append(session.probe(PROMPT, positions=2, measures=("logprobs", "kl", "norms"), layers=(0, 1)))
            spent.append(petra.sandbox.get(session.name).spent)
    one, other = (probe.receipt for probe in probes)
    same = {item.name for item in dataclasses.fields(SampleReceipt)} - free
    assert {name: getattr(one, name) for name in same} == {name: getattr(other, name) for name in same}
    assert replace(one.parameters, seed=None) == replace(other.parameters, seed=None)
    assert one.parameters.scale is None
    assert (one.adapter_digests, one.modules_applied, one.tokenizer_digest, one.template_digest) == ((), 0, "", "")
    assert spent[0] == spent[1] == Budget(probe_values=26)
    assert [[len(row) for row in probe.positions] for probe in probes] == [[5, 5]] * 2
    mine = {probe.receipt.session for probe in probes}
    varying = {"session": "", "output": "", "receipt": ""}
    for kind, found in (("sandbox.probe.intent", 2), ("sandbox.probe.result", 2)):
        entered = [entry for _, entry in petra.audit.entries() if entry.type == kind and entry.facts["session"] in mine]
        assert len(entered) == found
        assert entered[0].facts | varying == entered[1].facts | varying
        assert entered[0].reasons == entered[1].reasons
    printed = json.dumps([plain(item) for item in (*probes, *(entry for _, entry in petra.audit.entries()))], default=str)
    assert not any(secret in printed for secret in secrets_of(ground))
    # The numbers do tell: that is what the tool is for.
    assert sorted(set(probe.kl) == {0.0} for probe in probes) == [False, True]


def test_a_question_that_has_no_answer_is_refused_alike_for_every_alias(ground, petra):
    said = []
    for alias in ground.game.aliases:
        with petra.games.open_session(alias.name, budget=SOME) as session:
            calls = (
                lambda it=session: it.probe(PROMPT, positions=60, measures=("kl",)),
                lambda it=session: it.probe(PROMPT, measures=("norms",), layers=(7,)),
                lambda it=session: it.probe("word " * 400),
            )
            found = [refused(call) for call in calls]
        assert all(isinstance(error, errors.InvalidArgument) and unsaid(ground, error) for error in found)
        said.append([(error.message, error.details) for error in found])
    assert said[0] == said[1]


def test_no_tool_gives_doses_steering_directions_or_hidden_states(ground, petra):
    """A contrast on the bare base would be made with the organism's adapters on; nobody gets to make one."""
    before, said = numbers_of(petra, ground), []
    for alias in ground.game.aliases:
        with petra.games.open_session(alias.name, budget=SOME) as session:
            steer = [Steer(f"{session.name}/directions/1", layer=0, strength=1.0)]
            named = {"layers": (0,), "directions": (steer[0].direction,)}
            calls = (
                lambda it=session: it.sample(PROMPT, max_tokens=4, scale=0.5),
                lambda it=session, by=steer: it.sample(PROMPT, max_tokens=4, steer=by),
                lambda it=session: it.probe(PROMPT, scale=0.0),
                lambda it=session, by=steer: it.probe(PROMPT, steer=by),
                lambda it=session, of=named: it.probe(PROMPT, measures=(Measure.PROJECTIONS,), **of),
                lambda it=session, of=named: it.probe(PROMPT, measures=(Measure.COSINES,), **of),
                lambda it=session, of=named: it.probe(PROMPT, **of),
                lambda it=session: it.direction(vector=[1.0] * 32),
                lambda it=session: it.direction(["yes"], ["no"], 0),
            )
            found = [refused(call) for call in calls]
            assert all(type(error) is errors.Denied and unsaid(ground, error) for error in found), found
            raw = refused(session.activations, PROMPT, [0])
            assert isinstance(raw, errors.GrantRequired)
            assert unsaid(ground, raw)
            assert petra.sandbox.get(session.name).spent == Budget()
        said.append([error.message for error in found])
    assert said[0] == said[1]
    assert numbers_of(petra, ground) == before


def test_tools_given_after_the_opening_are_other_terms_than_were_signed(ground, petra):
    """There is no call for it. Who writes in the database makes a seat whose entry differs from the opening's: it is named."""
    game = ground.opened(seats=pair(ground.publish(ground.files["flatters"])), tools=["sample"])
    kept = ground.person("paul").games.get(game.name)
    assert reconcile(ground.world.registry.config).agree
    petra.games.join(game.name)
    with closing(sqlite3.connect(ground.world.folder / "registry.db", timeout=30)) as other, other:
        other.execute("UPDATE game_players SET tools = ? WHERE game = ?", (json.dumps(["sample", "probe"]), game.name))
    # Who sat down before has the grant that they got.
    with petra.games.open_session(game.aliases[0].name, budget=SOME) as session:
        assert isinstance(refused(session.probe, PROMPT), errors.GrantRequired)
    seat = ground.person("paul").games.join(game.name)
    assert formats.tools(seat, "users/paul") == (Tool.SAMPLE, Tool.PROBE)
    assert formats.terms(seat) != formats.terms(kept)
    about = [entry for _, entry in ground.person("aud").audit.entries() if entry.subject == game.name]
    (opened,) = [entry for entry in about if entry.type == "games.open"]
    (joined,) = [entry for entry in about if entry.type == "games.join" and entry.actor == "users/paul"]
    assert opened.facts["terms"] == formats.terms(kept) != joined.facts["terms"]
    found = reconcile(ground.world.registry.config)
    assert not found.agree
    assert seat.grant in found.as_text()
    assert "other terms" in found.as_text()
