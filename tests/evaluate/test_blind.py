"""Suites in an auditing game: a task of Inspect's runs on an alias in a real cell, and nothing that it leaves says what it is."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from inspect_ai import Task
from inspect_ai import eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
from model_organisms import errors
from model_organisms.evaluate import asking, provider, record
from model_organisms.evaluate.suite import Suite, rate
from model_organisms.formats import entry
from model_organisms.formats import games as formats
from model_organisms.formats.evaluation import parse_evaluation, print_evaluation
from model_organisms.formats.sampled import receipt_digest
from model_organisms.records import SessionState, VersionRef

from tests.support.games import arena

SUITE = Suite("vowels", 1, (__name__,))
QUIET = {"display": "none", "log_realtime": False, "score_display": False, "log_format": "json"}


def figures(scores):
    return (rate("vowel", sum(score.values["includes"] == 1.0 for score in scores), len(scores), comparator="has a vowel"),)


def task(**setting):
    asked = [Sample(f"Say something about {thing}.", target="a") for thing in ("rain", "bread")]
    return Task(dataset=asked, solver=generate(), scorer=includes(), config=GenerateConfig(**{"max_tokens": 6, **setting}))


@pytest.fixture(scope="module")
def ground(tmp_path_factory, qwen):
    with arena(tmp_path_factory.mktemp("blind") / "data", qwen) as made:
        yield made
        provider.close_sessions()


def secrets_of(ground):
    """Names and digests of all that stands behind aliases here."""
    found = [ground.person("pia").organisms.version(name) for name in ground.versions.values()]
    named = {name for version in found for name in (version.name, version.name.split("/versions")[0], version.digest)}
    return named | {file.sha256 for version in found for file in version.files}


def ran(ground, alias, folder, **told):
    arguments = {"identity": str(ground.world.folder / "petra.json"), "budget": "tokens=40,output_bytes=800"}
    [log] = evaluate(task(**told), model=f"mo/{alias}", model_args=arguments, log_dir=str(folder), **QUIET)
    return log


def test_a_task_is_run_blind_and_its_log_and_record_name_the_alias_alone(ground, tmp_path):
    game, petra = ground.opened(), ground.person("petra")
    seat = petra.games.join(game.name)
    kept = {}
    for alias in game.aliases:
        log = ran(ground, alias.name, tmp_path, temperature=0.0)
        assert log.status == "success", log.error
        made = record.record(SUITE, log, figures)
        about = {"model": f"mo/{alias.name}", record.ABOUT: alias.digest}
        assert about.items() <= made.settings.items()
        statement = print_evaluation(made, VersionRef("organisms/a/versions/1", "a" * 64))
        assert parse_evaluation(statement)[0] == made
        [session] = [one for one in petra.sandbox.list() if one.name == made.session]
        assert (session.version, session.state, session.purpose) == (alias, SessionState.CLOSED, "auditing-game")
        receipts = [asking.parse_receipt(sample.output.metadata["receipt"]) for sample in read_eval_log(log.location).samples]
        for receipt in receipts:
            said = entry.parse(petra.audit.receipt(receipt.ledger_index).entry)
            assert (said.subject, said.facts["receipt"]) == (receipt.sample, receipt_digest(receipt))
            assert (receipt.version, receipt.version_digest, receipt.adapter_digests) == (alias.name, alias.digest, ())
        kept[alias.name] = made, receipts, log
    written = b"".join(Path(log.location).read_bytes() for *_, log in kept.values()).decode()
    written += json.dumps([made.settings for made, *_ in kept.values()])
    assert all(alias.name in written for alias in game.aliases)
    assert not [secret for secret in secrets_of(ground) if secret in written]
    # What was found blind is attested of no version, not even of the one that it was.
    made, [receipt, _], _ = kept[game.aliases[0].name]
    version = next(iter(ground.versions.values()))
    with pytest.raises(errors.ClaimMismatch):
        record.publish(ground.person("pia"), version, made)
    # After the game, the receipts in the log say what was asked.
    ground.clock.ahead = timedelta(hours=2)
    try:
        assert formats.behind(receipt, petra.games.reveal(seat)).version.name in ground.versions.values()
    finally:
        ground.clock.ahead = timedelta(0)


def test_what_a_player_may_not_do_no_task_does_and_its_log_tells_all_aliases_alike(ground, tmp_path):
    game, petra = ground.opened(tools=("sample",)), ground.person("petra")
    said = []
    with_scores = {"max_tokens": 1, "logprobs": True}
    unseated = ran(ground, game.aliases[0].name, tmp_path)
    assert unseated.status == "error"
    petra.games.join(game.name)
    for alias in game.aliases:
        logs = [ran(ground, alias.name, tmp_path, **told) for told in (with_scores, {"system_message": "Be short."})]
        assert [log.status for log in logs] == ["error", "error"]
        assert not [secret for secret in secrets_of(ground) for log in logs if secret in Path(log.location).read_text("utf-8")]
        said.append([log.error.message.replace(alias.name, "ALIAS") for log in logs])
    assert said[0] == said[1] == said[2]
    assert "prob" in said[0][0]
    assert "system" in said[0][1]


@pytest.mark.parametrize("name", ["games/x/aliases/1", f"games/{'0' * 26}", f"games/{'0' * 26}/aliases/0"])
def test_what_is_no_alias_is_refused(name):
    with pytest.raises(errors.InvalidName, match="alias"):
        provider.SessionAPI(name)
