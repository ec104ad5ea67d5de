"""`mo evaluate`: run a suite, list suites, and show what evaluations found. Needs the extra `evaluate` to run, not to show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from model_organisms.cli.figures import compared as side_by_side
from model_organisms.cli.figures import figures, found, rows
from model_organisms.cli.render import emit, facts, plain, table
from model_organisms.errors import ConfigurationInvalid
from model_organisms.formats import provenance as provenances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from model_organisms.cli.context import Context
    from model_organisms.formats.evaluation import Evaluation, Judge
    from model_organisms.formats.provenance import BaseModel

_PAIRS = "NAME=VALUE; repeat for more."
_TEXT = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("evaluate")
def group() -> None:
    """Measure organisms by the suites of the papers."""


@group.command("list")
@click.pass_obj
def list_(context: Context) -> None:
    """List the suites that are run by name."""
    listed = list(_running().LISTED.values())
    if context.as_json:
        emit(listed)
        return
    columns = ("Suite", "Task of Inspect", "What it measures", "Judge")
    shown = (
        (one.name, f"model_organisms/{one.task}", one.about, "any, or offline" if one.judged else "a rule") for one in listed
    )
    table("Suites", columns, shown)


@group.command()
@click.argument("suite")
@click.argument("model")
@click.option("--judge", default="", help="offline (the default), a model as Inspect names it, or sampled:MODEL.")
@click.option("--limit", type=click.IntRange(1), help="Ask only so many of its prompts.")
@click.option("--seed", type=click.IntRange(0, 2**53 - 1), help="Of all answers, to repeat the run; a session takes none.")
@click.option("--argument", "-T", "arguments", multiple=True, help=f"Of the suite's task: {_PAIRS}")
@click.option("--model-argument", "-M", "told", multiple=True, help=f"Of the model, such as purpose or grant: {_PAIRS}")
@click.option("--local", is_flag=True, help="Pull the version into memory, instead of asking a session.")
@click.option("--control/--no-control", default=True, show_default=True, help="Run the same on the bare base model.")
@click.option(
    "--base", default="", help="The base model; by default the one the version's provenance names, or the built-in one."
)
@click.option("--inoculation", type=_TEXT, help="Ask again with the system prompt in this file; the run without is the control.")
@click.option("--near", type=_TEXT, help="With --inoculation: a prompt like it that asks for nothing, as a control.")
@click.option("--monitor", default="", help="Have the reasoning read: rule, or a model as Inspect names it.")
@click.option("--log-folder", default="logs", show_default=True, help="Where Inspect's logs go.")
@click.option("--publish", is_flag=True, help="Sign what was found and attest it of the version.")
@click.pass_obj
def run(
    context: Context,
    *,
    suite: str,
    model: str,
    judge: str,
    limit: int | None,
    seed: int | None,
    arguments: tuple[str, ...],
    told: tuple[str, ...],
    local: bool,
    control: bool,
    base: str,
    inoculation: Path | None,
    near: Path | None,
    monitor: str,
    log_folder: str,
    publish: bool,
) -> None:
    """Run SUITE on MODEL: a version, the folder of a bundle, or any model as Inspect names it."""
    running = _running()
    listed = running.find(suite)
    if publish and not model.startswith("organisms/"):
        raise click.UsageError("--publish attests what was found of a version; name one.")
    loaded = _pairs(told, "--model-argument")
    if publish and loaded.get("scale", 1) != 1:
        raise click.UsageError("--publish attests what was found of a version as published; leave out -M scale.")
    given = _pairs(arguments, "--argument")
    if listed.judged:
        given["judge"] = judge or given.get("judge", running.OFFLINE)
    elif judge:
        raise click.UsageError(f"The suite {suite} has a rule and takes no judge.")
    whom = running.model_of(model, local=local)
    asked: dict[str, Any] = {
        "model_arguments": loaded | ({"base": base} if base and whom.startswith("mo-local/") else {}),
        "arguments": given,
        "limit": limit,
        "seed": seed,
        "log_folder": log_folder,
        "quiet": context.as_json or not sys.stdout.isatty(),
    }
    evaluation = _treated(suite, whom, asked, inoculation=inoculation, near=near, monitor=monitor) or running.run(
        suite,
        whom,
        controls={"base": "mo-local/base"} if control else {},
        control_arguments=_base(context, model, base) if control else {},
        **asked,
    )
    if publish:
        from model_organisms.evaluate import record

        with context.connect() as client:
            attested = record.publish(client, model, evaluation)
        emit({"attestation": attested.name, "evaluation": evaluation}) if context.as_json else _show(evaluation, attested.name)
    else:
        emit({"evaluation": evaluation}) if context.as_json else _show(evaluation, "")


@group.command()
@click.argument("version")
@click.pass_obj
def show(context: Context, *, version: str) -> None:
    """Show what evaluations found of VERSION, beside what its publisher expects."""
    with context.connect() as client:
        described = client.organisms.version(version)
        attested = client.organisms.evaluations(described.name)
    if context.as_json:
        kept = [
            plain(one.evaluation) | {"by": one.by, "signed": one.signed, "attestation": one.attestation.name} for one in attested
        ]
        emit({"version": described.name, "evaluations": kept, "beside": [_beside(one) for one in rows(described, attested)]})
        return
    for one in attested:
        _show(one.evaluation, one.attestation.name)
    if not attested:
        click.echo("No evaluation is attested of it.")
    found(described, attested)


@group.command()
@click.argument("versions", nargs=-1, required=True)
@click.option("--suite", default="", help="Which suite; needed where more than one is attested of all of them.")
@click.option("--by", default="", help="Only what this account attests: users/NAME.")
@click.option("--picture", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw a PNG into this file too.")
@click.pass_obj
def compare(context: Context, *, versions: tuple[str, ...], suite: str, by: str, picture: Path | None) -> None:
    """Set what was last attested of VERSIONS by one suite side by side, and say what does not compare."""
    _running()
    from model_organisms.evaluate import comparing, pictures

    with context.connect() as client:
        attested = {
            version: [one for one in client.organisms.evaluations(version) if by in ("", one.by)]
            for version in dict.fromkeys(versions)
        }
    chosen = suite or _common({version: [one.evaluation for one in found] for version, found in attested.items()})
    last = {version: [one for one in found if one.evaluation.suite == chosen][-1:] for version, found in attested.items()}
    if without := [version for version, found in last.items() if not found]:
        whose = f" by {by}" if by else ""
        raise click.UsageError(f"No evaluation of the suite {chosen} is attested{whose} of {', '.join(without)}; run it first.")
    compared = comparing.compare({version: found[0].evaluation for version, found in last.items()})
    if picture:
        picture.write_bytes(pictures.draw(comparing.panels(compared)))
    if context.as_json:
        said = {
            version: {"by": one.by, "signed": one.signed, "attestation": one.attestation.name} for version, (one,) in last.items()
        }
        told = [plain(row) for row in compared.rows]
        emit({"suite": compared.suite, "attested": said, "differs": compared.differs, "own": compared.own, "rows": told})
    else:
        side_by_side(compared, {version: one for version, (one,) in last.items()})


def _treated(
    suite: str, model: str, asked: Mapping[str, Any], *, inoculation: Path | None, near: Path | None, monitor: str
) -> Evaluation | None:
    """Run before and after, where a treatment was asked for; what is untreated is then the control."""
    if (near and not inoculation) or (inoculation and monitor):
        raise click.UsageError("Give --near with --inoculation, and --monitor by itself.")
    if inoculation:
        from model_organisms.evaluate import treatments

        prompt, other = (path.read_text(encoding="utf-8").strip() if path else "" for path in (inoculation, near))
        return treatments.run(suite, model, treatments.inoculation(prompt, other), **asked)
    if monitor:
        from model_organisms.evaluate import monitors

        return monitors.run(suite, model, monitor=monitor, **asked)
    return None


def _common(attested: Mapping[str, Sequence[Evaluation]]) -> str:
    """The one suite that is attested of all."""
    suites = set.intersection(*({one.suite for one in found} for found in attested.values()))
    if len(suites) != 1:
        some = f"several are, so choose one with --suite: {', '.join(sorted(suites))}" if suites else "none is; run one on each"
        raise click.UsageError(f"One suite that is attested of all of them is compared: {some}.")
    return suites.pop()


def _beside(one: Any) -> dict[str, Any]:  # noqa: ANN401 - a row, with what is worked out of it
    said: dict[str, Any] = plain(one)
    return said | {"agrees": one.agrees}


def _show(evaluation: Evaluation, attestation: str) -> None:
    shown = [
        ("Suite", f"{evaluation.suite} {evaluation.suite_version}"),
        ("Judge", _judge(evaluation.judge) if evaluation.judge else ""),
        ("Validity", evaluation.validity),
        ("Rung", evaluation.rung.name.lower()),
        ("Session", evaluation.session),
        ("Raw scores", len(evaluation.scores)),
        ("Time", evaluation.time),
        ("Attestation", attestation),
    ]
    facts((name, value) for name, value in shown if value != "")
    figures(evaluation)


def _judge(judge: Judge) -> str:
    """Say who judged, how far they agree with labels and whose those are, and whether figures compare."""
    said = [judge.id] if judge.agreement is None else [judge.id, f"kappa {judge.agreement:.2f} on {judge.labelled} labelled"]
    if judge.labels or judge.agreement is not None:
        said.append(f"labels of {judge.labels or 'this package, which show nothing of other answers'}")
    return ", ".join(said) + ("" if judge.comparable else "; not comparable with published figures")


def _base(context: Context, model: str, base: str) -> dict[str, str]:
    """Say which base model is the control: what was typed, or what the provenance names; its digest is held against that."""
    stated = _stated(context, model.removeprefix("mo-local/").removeprefix("mo/"))
    if stated is None:
        return {"base": base} if base else {}
    named = f"{stated.id}@{stated.revision}" if stated.revision else stated.id
    return {name: value for name, value in (("base", base or named), ("base_digest", stated.digest)) if value}


def _stated(context: Context, model: str) -> BaseModel | None:
    """Read the base from a version's signed provenance, or from the one beside a bundle's folder."""
    if model.startswith("organisms/"):
        with context.connect() as client:
            version = client.organisms.version(model)
        return provenances.verify(version.provenance, version.publisher_key, digest=version.digest).base
    if Path(model).is_dir():
        from model_organisms.evaluate import local

        stated = local.stated_of(Path(model).resolve())
        return stated.base if stated else None
    return None


def _pairs(given: tuple[str, ...], option: str) -> dict[str, Any]:
    """Read NAME=VALUE; a value that is a number or true or false is one."""
    pairs: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"'{text}' is not NAME=VALUE.", param_hint=option)
        pairs[name] = _value(value)
    return pairs


def _value(text: str) -> object:
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _running() -> ModuleType:
    try:
        import inspect_ai  # noqa: F401 - asked for first, so that a missing extra says so
    except ImportError as error:
        raise ConfigurationInvalid("Evaluating needs inspect-ai: pip install 'model-organisms[evaluate]'.") from error
    from model_organisms.evaluate import running

    return running
