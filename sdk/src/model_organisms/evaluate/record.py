"""From Inspect's log of a run to the record that is signed, and from there to the version it is about.

    log, = inspect_ai.eval(emergent.emergent(judge=...), model="mo/organisms/NAME/versions/3")
    control, = inspect_ai.eval(emergent.emergent(judge=...), model="mo-local/base")
    evaluation = record.record(emergent.SUITE, log, emergent.figures, controls={"base": control})
    record.publish(client, "organisms/NAME/versions/3", evaluation)

What a suite's task leaves in its metadata (`asked`, `judge`, `settings`) and what the provider leaves with each answer (its
receipt) is all that is read here besides messages and scores, so the record of a log that somebody sends is the same.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from model_organisms.errors import ClaimMismatch, InvalidArgument
from model_organisms.evaluate import suite as suites
from model_organisms.evaluate.asking import ANSWERED
from model_organisms.formats import strict_json
from model_organisms.formats.evaluation import Judge, print_evaluation
from model_organisms.formats.evaluation import Score as RawScore
from model_organisms.records import Rung, VersionRef

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import GenerateConfig

    from model_organisms.client.client import Client
    from model_organisms.evaluate.suite import Suite
    from model_organisms.formats.evaluation import Evaluation, Figure, Validity
    from model_organisms.records import Attestation

MOST_BYTES = 1_500_000
"""Of a statement: with its envelope it must fit into one message."""
ABOUT = "version_digest"
"""Setting that says which version answered, from the receipts or from what `mo-local` loaded."""
BASE = "base_digest"
"""Setting that says which base model was loaded; of a control, behind its name."""
DOSE = "scale"
"""Setting that says the dose of the organism, where one was given; 1 is as published."""
TREATED = "treated"
"""What the log of a treatment's arm says of it in its metadata."""
_LOADED = ("dtype", "device")
"""Further arguments of a model that change what it says. Which base was loaded, its digest tells."""
_DRAWN = ("temperature", "top_p", "top_k", "max_tokens", "stop_seqs", "system_message")
"""How answers were drawn; the same for an organism and its control."""
_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0}
"""Inspect's letters for right, partly right and wrong."""


def record(
    suite: Suite,
    log: EvalLog,
    figures: Callable[[Sequence[RawScore]], Iterable[Figure]],
    *,
    controls: Mapping[str, EvalLog] | None = None,
    validity: Validity | None = None,
    rung: Rung | None = None,
    treated: bool = False,
) -> Evaluation:
    """Make the record of a run.

    Args:
        suite: What was run.
        log: The run, with its samples.
        figures: The suite's counting, from raw scores.
        controls: Runs of the same task on what should not show the behaviour, by what that is: `base`. Where there are several,
            a figure's `split` begins with `control=`.
        validity: How far the metric is shown to measure what it names; where absent, it follows from controls and judge.
        rung: How closely it looked; where absent, as the model's provider has it: in a session a dose or log-probabilities are
            `probe`.
        treated: The other runs are arms of a treatment (`treatments.py`); else such a log is refused.

    Raises:
        InvalidArgument: The run did not end well, its control was asked something else, several versions answered, or it is an
            arm of a treatment; or the control `base` is another base model than the organism's.
    """
    runs = {"": log} | {f"control={name}": one for name, one in (controls or {}).items()}
    kept: list[RawScore] = []
    found: list[Figure] = []
    for split, one in runs.items():
        _check(one, log, suite.name, treated=treated)
        scores = scores_of(one)
        own = split if len(runs) > 2 else ""  # noqa: PLR2004 - of several controls, each figure says whose it is
        found += [replace(one, control=True, split=_joined(own, one.split)) if split else one for one in figures(scores)]
        kept += [replace(score, split=_joined(split, score.split)) for score in scores]
    if "base" in (controls or {}):
        check_base(log, (controls or {})["base"])
    said = log.eval.metadata or {}
    judge = Judge(**said["judge"]) if said.get("judge") else None
    seed = _config(log).seed
    return suite.record(
        asked=_questions(log),
        figures=found,
        scores=kept,
        judge=judge,
        seeds=() if seed is None else (seed,),
        rung=rung or _rung(log),
        validity=validity or suites.validity(judge, controlled=bool(controls)),
        session=_only("session", _receipts(log)),
        transcript=transcript_digest(log),
        settings=_settings(log, controls or {}, "arm" if treated else "control"),
    )


def scores_of(log: EvalLog) -> tuple[RawScore, ...]:
    """Read every raw score of a run, in the order of its questions; a sample that failed, or that a limit ended, has none.

    A scorer's value is a number, or numbers by name. NaN is no score. The sample's metadata may name its `split`.
    """
    return tuple(
        RawScore(str(sample.id), sample.epoch, _values(sample), str((sample.metadata or {}).get("split", "")))
        for sample in _samples(log)
    )


def transcript_digest(log: EvalLog) -> str:
    """SHA-256 of what was said: the canonical JSON of each sample's id, epoch and messages, in order."""
    said = [[str(sample.id), sample.epoch, _messages(sample)] for sample in _samples(log)]
    return strict_json.digest(said)


def publish(client: Client, version: str, evaluation: Evaluation) -> Attestation:
    """Sign an evaluation with the caller's key and attest it of a version.

    Args:
        client: Whose key signs.
        version: What it is about.
        evaluation: As `record` gives it.

    Raises:
        ClaimMismatch: What answered was another version, by its receipts or by what `mo-local` loaded, or it does not say which.
        InvalidArgument: The organism's dose was not 1, or it has too many raw scores for one statement.
        InvalidProvenance: Something in it cannot be said.
    """
    wanted = client.organisms.version(version)
    if not (about := evaluation.settings.get(ABOUT)):
        raise ClaimMismatch(f"This record does not say which version answered; run the suite on mo/{wanted.name}, or mo-local/.")
    if about != wanted.digest:
        raise ClaimMismatch(f"What answered in this run was another version than {wanted.name}; attest it of that one.")
    if (dose := evaluation.settings.get(DOSE, "1")) != "1":
        why = f"In this run the organism had the dose {dose}, and what is attested of a version is of it as published"
        raise InvalidArgument(f"{why}; run it without `scale`.", field=DOSE)
    statement = print_evaluation(evaluation, VersionRef(wanted.name, wanted.digest))
    if len(statement) > MOST_BYTES:
        raise InvalidArgument(
            f"The evaluation has {len(statement):,} bytes and at most {MOST_BYTES:,} are attested; run it over fewer questions."
        )
    return client.organisms.attest(wanted.name, statement)


def check_base(log: EvalLog, control: EvalLog) -> None:
    """See that a control is the organism's own base, as far as receipts, or `mo-local`, say what was loaded.

    Args:
        log: The organism's run.
        control: The base's.

    Raises:
        InvalidArgument: They are different base models.
    """
    own, other = (_only(BASE, _told(one)) for one in (log, control))
    if own and other and own != other:
        raise InvalidArgument(
            f"The control is another base model ({other[:12]}) than the organism's ({own[:12]}); name the organism's with base=, "
            "or --base of the command."
        )


def same_organism(log: EvalLog, other: EvalLog) -> bool:
    """Say whether two runs are of one organism, at one dose, as far as logs and receipts say who answered.

    Raises:
        InvalidArgument: The answers of one run differ in that.
    """
    own, others = (_about(one) for one in (log, other))
    told = all(own[name] == others[name] for name in (ABOUT, BASE) if name in own and name in others)
    return told and (log.eval.model, own.get(DOSE, "1")) == (other.eval.model, others.get(DOSE, "1"))


def _check(log: EvalLog, first: EvalLog, suite: str, *, treated: bool) -> None:
    if log.status != "success" or not log.samples:
        why = f": {log.error.message[:200]}" if log.error else ""
        raise InvalidArgument(
            f"The run of {suite} did not end well ({log.status}{why}), or its log has no samples; run it again."
        )
    if not treated and TREATED in (log.eval.metadata or {}):
        raise InvalidArgument("This log is of an arm of a treatment; make the record of all arms with treatments.evaluation.")
    asked, wanted = ((one.eval.task, _questions(one), _ids(one), _drawn(one)) for one in (log, first))
    if asked != wanted:
        raise InvalidArgument(
            "A control must be asked what the organism was asked; run the same task with the same settings and the same limit."
        )


def _questions(log: EvalLog) -> Any:  # noqa: ANN401 - JSON
    """Give what was asked: the task's list, and where a limit kept a run to some of it, which these are."""
    asked = (log.eval.metadata or {}).get("asked", [_messages(sample, asked=True) for sample in _samples(log)])
    return {"asked": asked, "ids": _ids(log)} if _limit(log) else asked


def _ids(log: EvalLog) -> list[str]:
    return sorted({str(sample.id) for sample in _samples(log)})


def _limit(log: EvalLog) -> str:
    """Say how many of the task's prompts were asked; nothing where all."""
    asked, there = len(_ids(log)), log.eval.dataset.samples or 0
    return f"{asked} of {there} prompts" if asked < there else ""


def _settings(log: EvalLog, others: Mapping[str, EvalLog], kind: str) -> dict[str, object]:
    """Gather what else decides the figures: the task's own settings, how answers were drawn, and by whom."""
    settings: dict[str, object] = dict((log.eval.metadata or {}).get("settings", {}))
    settings |= {"model": log.eval.model, "epochs": log.eval.config.epochs or 1} | _drawn(log) | _about(log)
    if limit := _limit(log):
        settings["limit"] = limit
    for name, one in others.items():
        settings |= {f"{kind}.{name}": one.eval.model, f"transcript.{name}": transcript_digest(one)}
        settings |= {f"{kind}.{name}.{what}": value for what, value in _about(one).items()}
    return settings


def _about(log: EvalLog) -> dict[str, str]:
    """Say of one run who answered, how it was loaded, and what a limit ended; nothing of what nobody tells.

    Raises:
        InvalidArgument: Answers differ in that.
    """
    given, told, receipts = log.eval.model_args, _told(log), _receipts(log)
    said = {name: str(given[name]) for name in _LOADED if given.get(name) is not None}
    said |= {DOSE: _dose(log), "limited": _limited(log), BASE: _only(BASE, told), ABOUT: _only(ABOUT, told)}
    said |= {"receipts": strict_json.digest(receipts) if receipts else ""}
    return {name: value for name, value in said.items() if value}


def _config(log: EvalLog) -> GenerateConfig:
    """Give the settings that answers were drawn by: the model's own, and over them the run's."""
    return log.eval.model_generate_config.merge(log.plan.config)


def _drawn(log: EvalLog) -> dict[str, object]:
    drawn = _config(log).model_dump(exclude_none=True)
    found = {name: drawn[name] for name in _DRAWN if name in drawn}
    if "stop_seqs" in found:
        found["stop_seqs"] = strict_json.canonical(found["stop_seqs"]).decode()
    if "system_message" in found:  # it may give away what the organism does
        found["system_message"] = hashlib.sha256(found["system_message"].encode()).hexdigest()
    return found


def _dose(log: EvalLog) -> str:
    """Give the dose, by the model's arguments and the receipts; nothing where it is as published without being asked for.

    Raises:
        InvalidArgument: They differ.
    """
    parameters = [one.get("parameters") or {} for one in _receipts(log)]
    given = [one[DOSE] for one in (log.eval.model_args, *parameters) if one.get(DOSE) is not None]
    return _only(DOSE, [{DOSE: f"{one:g}" if isinstance(one, int | float) else one} for one in given])


def _rung(log: EvalLog) -> Rung:
    """Say how closely a run looked: in a session, a dose or log-probabilities need the rung `probe`."""
    provider = log.eval.model.partition("/")[0]
    probed = _dose(log) or any("probe_receipt" in one for one in _answered(log))
    return {"mo-local": Rung.PULL, "mo": Rung.PROBE if probed else Rung.SAMPLE}.get(provider, Rung.SAMPLE)


def _limited(log: EvalLog) -> str:
    """Say how many samples a limit ended; nothing where none."""
    ended = sum(sample.limit is not None for sample in log.samples or [])
    return f"{ended} of {len(log.samples or [])} ended by a limit, not counted" if ended else ""


def _only(name: str, receipts: Sequence[Mapping[str, Any]]) -> str:
    """Give what all receipts say alike, or nothing where there are none.

    Raises:
        InvalidArgument: They differ.
    """
    values = {str(receipt[name]) for receipt in receipts if receipt.get(name)}
    if len(values) > 1:
        raise InvalidArgument(f"The answers of this run differ in {name}; evaluate one version, in one session.")
    return values.pop() if values else ""


def _receipts(log: EvalLog) -> list[dict[str, Any]]:
    return [receipt for one in _answered(log) if isinstance(receipt := one.get("receipt"), dict)]


def _told(log: EvalLog) -> list[Mapping[str, Any]]:
    """Give what is known of every answer: what its receipt says, else what came with it."""
    return [{**one, **receipt} if isinstance(receipt := one.get("receipt"), dict) else one for one in _answered(log)]


def _answered(log: EvalLog) -> list[Mapping[str, Any]]:
    """Give what the provider left with every answer: what a suite kept of several, and what came with the last."""
    found: list[Mapping[str, Any]] = []
    for sample in _samples(log):
        kept = list(sample.store.get(ANSWERED, []))
        last = sample.output.metadata
        found += kept if not last or last in kept else [*kept, last]
    return found


def _joined(*parts: str) -> str:
    return ",".join(filter(None, parts))


def _samples(log: EvalLog) -> list[EvalSample]:
    return sorted(log.samples or [], key=lambda sample: (str(sample.id), sample.epoch))


def _values(sample: EvalSample) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    # Inspect scores what a limit ended as well, and an answer that never came would count as one without the behaviour.
    for name, score in ({} if sample.error or sample.limit else sample.scores or {}).items():
        given = score.value if isinstance(score.value, dict) else {name: score.value}
        values |= {key: _number(value) for key, value in given.items()}
    return values


def _number(value: object) -> float | None:
    if isinstance(value, str):
        return _GRADES.get(value)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _messages(sample: EvalSample, *, asked: bool = False) -> list[dict[str, Any]]:
    given = sample.messages
    if asked:
        given = sample.input if isinstance(sample.input, list) else []
        if not given:
            return [{"role": "user", "content": str(sample.input)}]
    said: list[dict[str, Any]] = []
    for message in given:
        calls = [{"function": call.function, "arguments": call.arguments} for call in getattr(message, "tool_calls", None) or ()]
        said.append({"role": message.role, "content": message.text} | ({"calls": calls} if calls else {}))
    return said
