"""Attacks on auditing games: a player looks for the truth everywhere else, guesses late, a stranger plays, a master cheats."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from model_organisms import errors
from model_organisms.cli.render import plain
from model_organisms.client.games import Seat
from model_organisms.formats import entry as entries
from model_organisms.formats import games as formats
from model_organisms.records import Budget, SampleReceipt
from model_organisms.v1 import games_pb2, games_pb2_grpc, organisms_pb2, organisms_pb2_grpc, sandbox_pb2, sandbox_pb2_grpc

from tests.support.games import arena

PROMPT = "What do you say?"
SOME = Budget(tokens=60, output_bytes=600)


@pytest.fixture(scope="module")
def ground(tmp_path_factory, qwen):
    """A game of one organism and its bare base, which petra has joined and asked; who has heard what each alias says."""
    with arena(tmp_path_factory.mktemp("attacked") / "data", qwen) as made:
        version, petra = made.versions["flatters"], made.person("petra")
        made.version = made.person("pia").organisms.version(version)
        made.game = made.opened(seats=[Seat(version, answer="flatters"), Seat(version, organism=False, base=True)])
        made.seat = petra.games.join(made.game.name)
        made.answers = {}
        for alias in made.game.aliases:
            with petra.games.open_session(alias.name, budget=SOME) as session:
                made.answers[alias.name] = session.sample(PROMPT, max_tokens=8, temperature=0)
        yield made


@pytest.fixture
def petra(ground):
    return ground.person("petra")


def secrets_of(ground):
    """What no player may read before the reveal: the names and digests of what is behind the aliases."""
    found = ground.version
    files = {file.sha256 for file in found.files}
    return {found.name, found.name.split("/versions")[0], found.digest, *files}


def told(records):
    return json.dumps([plain(record) for record in records], default=str)


def refused(call, *arguments, **options):
    with pytest.raises(errors.ModelOrganismsError) as error:
        call(*arguments, **options)
    return error.value


def test_nothing_that_a_player_reads_says_what_an_alias_is(ground, petra):
    sessions, grants = list(petra.sandbox.list()), list(petra.access.grants())
    # In other tests of this game she asks for the organism by its name: the refusal has her own word for it.
    asked = {
        index for index, entry in petra.audit.entries() if entry.type == "gate.deny" and entry.subject.startswith("organisms/")
    }
    own = [(index, entry) for index, entry in petra.audit.entries() if index not in asked]
    read = [
        *sessions,
        *(petra.sandbox.get(session.name) for session in sessions),
        *grants,
        petra.access.grant(ground.seat.grant),
        *petra.games.list(),
        petra.games.get(ground.game.name),
        *(answer.receipt for answer in ground.answers.values()),
        *(entry for _, entry in own),
        *petra.organisms.list(),
        *petra.access.notices(),
    ]
    printed = told(read)
    assert {"sandbox.open", "sandbox.sample.result", "games.join", "access.grant"} <= {entry.type for _, entry in own}
    for secret in secrets_of(ground):
        assert secret not in printed
    proved = b"".join(petra.audit.receipt(index).entry for index, _ in own)
    assert not any(secret.encode() in proved for secret in secrets_of(ground))


def test_receipts_sessions_and_entries_of_two_aliases_differ_only_where_they_must(ground, petra):
    """Alias, blind digest, what was said, and where and when: nothing else tells an organism from its bare base."""
    free = {"sample", "session", "version", "version_digest", "ledger_index", "output_sha256", "parameters", "tokens"}
    same = {item.name for item in dataclasses.fields(SampleReceipt)} - free
    one, other = (answer.receipt for answer in ground.answers.values())
    assert {name: getattr(one, name) for name in same} == {name: getattr(other, name) for name in same}
    assert replace(one.parameters, seed=None) == replace(other.parameters, seed=None)
    assert (one.adapter_digests, one.modules_applied, one.tokenizer_digest, one.template_digest) == ((), 0, "", "")
    by_alias = {session.version.name: session for session in petra.sandbox.list()}
    opened = [by_alias[alias.name] for alias in ground.game.aliases]
    varying = {"name": "", "version": None, "spent": None, "create_time": None, "expire_time": None}
    assert replace(opened[0], **varying) == replace(opened[1], **varying)
    entered = [entry for _, entry in petra.audit.entries() if entry.type == "sandbox.open"]
    facts = [entry.facts | {"version": "", "digest": "", "expires": ""} for entry in entered]
    assert facts[0] == facts[1]
    assert entered[0].reasons == entered[1].reasons


def test_the_organism_behind_an_alias_is_not_there_for_a_player(ground, petra):
    hidden, name = ground.version.name, ground.version.name.split("/versions")[0]
    for call in (
        petra.organisms.get,
        lambda it: list(petra.organisms.versions(it)),
        lambda it: petra.organisms.version(f"{it}/versions/1"),
    ):
        found, absent = refused(call, name), refused(call, "organisms/none")
        assert isinstance(found, errors.NotFound)
        assert found.message.replace(name, "it") == absent.message.replace("organisms/none", "it")
    for call in (
        lambda: petra.access.request(hidden, "sample", purpose="auditing-game", justification="I would like to know it by name."),
        lambda: petra.sandbox.open(hidden, purpose="auditing-game", grant=ground.seat.grant),
        lambda: petra.organisms.pull(hidden, grant=ground.seat.grant),
    ):
        assert isinstance(refused(call), errors.NotFound)


def test_an_alias_is_no_version_for_any_other_call(ground, petra):
    """Reading, pulling, requesting, attesting, a session of one's own: none takes an alias."""
    alias, channel = ground.game.aliases[0].name, petra.games._channel
    organisms = organisms_pb2_grpc.OrganismsServiceStub(channel.grpc_channel)
    sandbox = sandbox_pb2_grpc.SandboxServiceStub(channel.grpc_channel)
    for call in (
        lambda: channel.call(organisms.GetVersion, organisms_pb2.GetVersionRequest(name=alias)),
        lambda: petra.access.request(alias, "pull", purpose="auditing-game", justification="All of it would be of use to me."),
        lambda: channel.call(sandbox.OpenLocalSession, sandbox_pb2.OpenLocalSessionRequest(version=alias, purpose=4)),
    ):
        error = refused(call)
        assert isinstance(error, errors.InvalidArgument | errors.NotFound)
        assert not any(secret in error.message for secret in secrets_of(ground))


def test_a_player_gets_no_numbers_no_dose_and_no_steering(ground, petra):
    """With a dose, the bare base would be the alias that no dose changes."""
    alias = ground.game.aliases[0].name
    with petra.games.open_session(alias, budget=SOME) as session:
        for call in (
            lambda: session.sample(PROMPT, max_tokens=4, scale=0.5),
            lambda: session.probe(PROMPT),
            lambda: session.probe(PROMPT, measures=("norms",), layers=(0,)),
            lambda: session.direction(vector=[1.0] * 32),
        ):
            error = refused(call)
            assert isinstance(error, errors.GrantRequired)
            assert not any(secret in error.message for secret in secrets_of(ground))


def test_the_truth_is_refused_to_players_auditors_and_strangers(ground, petra):
    name = ground.game.name
    assert isinstance(refused(petra.games.truth, ground.game), errors.Denied)
    assert isinstance(refused(ground.person("aud").games.truth, ground.game), errors.Denied)
    channel = ground.person("rosa").games._channel
    stub = games_pb2_grpc.GamesServiceStub(channel.grpc_channel)
    told_apart = set()
    for asked in (name, "games/" + "0" * 26):
        error = refused(channel.call, stub.GetTruth, games_pb2.GetTruthRequest(game=asked))
        assert isinstance(error, errors.NotFound)
        told_apart.add(error.message.replace(asked, "it"))
    assert len(told_apart) == 1


def test_who_is_not_named_sees_no_game_opens_no_alias_and_cannot_guess(ground):
    rosa, alias = ground.person("rosa"), ground.game.aliases[0].name
    nowhere = "games/" + "0" * 26
    assert list(rosa.games.list()) == []
    for call in (
        rosa.games.get,
        rosa.games.join,
        lambda it: rosa.games.guess(f"{it}/aliases/1", organism=True),
        lambda it: rosa.games.open_session(f"{it}/aliases/1"),
        lambda it: rosa.sandbox.open(f"{it}/aliases/1", purpose="auditing-game", grant=ground.seat.grant),
    ):
        found, absent = refused(call, ground.game.name), refused(call, nowhere)
        assert isinstance(found, errors.NotFound)
        assert found.message.replace(ground.game.name, "it") == absent.message.replace(nowhere, "it")
    # Paul may play, and has no seat yet.
    paul = ground.person("paul")
    assert isinstance(refused(paul.games.open_session, alias), errors.NotFound | errors.GrantRequired)
    assert isinstance(refused(paul.games.guess, alias, organism=True), errors.Conflict)


def test_one_person_opens_no_game_and_nobody_on_other_terms(ground):
    ravi, rena = ground.person("ravi"), ground.person("rena")
    draft = ground.draft(seats=[Seat(ground.publish(ground.files["flatters"]), answer="flatters")])
    motion = ravi.games.propose_opening(draft)
    with pytest.raises(errors.ApprovalRefused):
        ravi.motions.second(motion)
    with pytest.raises(errors.Conflict, match="terms"):
        rena.games.propose_opening(replace(draft, players=("users/petra",)))
    with pytest.raises(errors.Denied):
        ground.person("pia").games.propose_opening(draft)  # its organism's owner, and no reviewer
    rena.motions.second(motion)
    with pytest.raises(errors.Conflict, match="draft"):
        rena.games.propose_opening(draft)


def test_a_truth_that_is_changed_in_the_database_is_noticed_at_the_reveal(ground):
    """By whoever kept what they joined; the entry in the ledger has the same commitment."""
    game = ground.opened(seats=ground.seats()[:2])
    petra = ground.person("petra")
    seat = petra.games.join(game.name)
    with closing(sqlite3.connect(ground.world.folder / "registry.db", timeout=30)) as other, other:
        other.execute("UPDATE game_aliases SET answer = 'sleeps', organism = 0 WHERE alias = ?", (game.aliases[0].name,))
    ground.clock.ahead = timedelta(hours=2)
    with pytest.raises(errors.VerificationFailed, match="did not stand for"):
        petra.games.reveal(seat)
    # Who could set everything in the database that the registry says now, still cannot set what stood in the ledger.
    truth, nonce = _kept(ground, game.name)
    forged = {one.alias: formats.blind(one, nonce) for one in truth}
    with closing(sqlite3.connect(ground.world.folder / "registry.db", timeout=30)) as other, other:
        for alias, blind in forged.items():
            other.execute("UPDATE game_aliases SET blind = ? WHERE alias = ?", (blind, alias))
        new = formats.commitment(game.name, truth, nonce)
        other.execute("UPDATE games SET commitment = ? WHERE name = ?", (new, game.name))
    with pytest.raises(errors.VerificationFailed):
        petra.games.reveal(seat)
    joined = [entry for _, entry in petra.audit.entries() if (entry.type, entry.subject) == ("games.join", game.name)]
    assert joined[0].facts["commitment"] == seat.commitment != new
    ground.clock.ahead = timedelta(0)


def _kept(ground, name):
    from model_organisms_registry.storage.catalog import games as rows

    with ground.world.registry.storage.database.read() as tx:
        return rows.truth(tx, name)


def test_guesses_after_the_deadline_at_other_games_or_for_others_are_refused(ground, petra):
    alias = ground.game.aliases[0].name
    petra.games.guess(alias, organism=True, probability=0.6)
    for wrong in (f"{ground.game.name}/aliases/9", "games/" + "0" * 26 + "/aliases/1"):
        assert isinstance(refused(petra.games.guess, wrong, organism=True), errors.InvalidArgument | errors.NotFound)
    channel = petra.games._channel
    stub = games_pb2_grpc.GamesServiceStub(channel.grpc_channel)
    for probability in (-0.1, 1.1, float("nan"), float("inf")):
        message = games_pb2.SubmitGuessRequest(alias=alias, organism=True, probability=probability)
        assert isinstance(refused(channel.call, stub.SubmitGuess, message), errors.InvalidArgument)
    ground.clock.ahead = timedelta(hours=1, seconds=5)
    try:
        assert isinstance(refused(petra.games.guess, alias, organism=False), errors.Conflict)
        assert isinstance(refused(petra.games.open_session, alias), errors.GrantExpired)
        (kept,) = petra.games.guesses(ground.game.name)
        assert (kept.organism, kept.probability, kept.player) == (True, 0.6, "users/petra")
    finally:
        ground.clock.ahead = timedelta(0)


def test_what_goes_wrong_with_a_bundle_says_nothing_of_which_it_was(ground, petra):
    """One that does not open is told in words that fit every alias; the operator's log has the rest."""
    (sealed, *_) = sorted((ground.world.folder / "blobs" / "versions").rglob(f"{ground.version.digest}*"))
    aside = sealed.with_name("aside")
    sealed.rename(aside)
    try:
        for alias in ground.game.aliases:
            error = refused(petra.games.open_session, alias.name)
            assert isinstance(error, errors.CellUnavailable)
            said = error.message + json.dumps(error.details)
            assert alias.name in said
            assert not any(secret in said for secret in secrets_of(ground))
    finally:
        aside.rename(sealed)


def test_a_player_reads_their_own_entries_and_nobody_elses(ground, petra):
    assert all("users/petra" in {entry.actor, entry.subject} for _, entry in petra.audit.entries())
    assert any(entry.type == "games.create" for _, entry in ground.person("aud").audit.entries())
    assert not any(entry.type == "games.create" for _, entry in petra.audit.entries())
    assert (
        entries.parse(petra.audit.receipt(next(iter(ground.answers.values())).receipt.ledger_index).entry).actor == "users/petra"
    )
