"""`mo-registry`: what an operator types. Each command opens the data folder, does one thing, and says what to do next."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from model_organisms.errors import ModelOrganismsError, NotFound

from model_organisms_registry.config import Cells, Config, keepers, load
from model_organisms_registry.signing import signer
from model_organisms_registry.telling import notify
from model_organisms_registry.witnessing import witness

if TYPE_CHECKING:
    from collections.abc import Mapping

_FOLDER = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("registry-data"),
    show_default=True,
    help="Data folder of the registry.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, errors included.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option("0.1.0", prog_name="mo-registry")
def cli() -> None:
    """Run a registry of model organisms.

    Begin with `mo-registry init`, hand the ticket it prints to the first admin, and run `mo-registry serve`.
    """


@cli.command()
@_FOLDER
@click.option("--origin", default="localhost", show_default=True, help="Name of the registry and its ledger; fixed for ever.")
@click.option("--listen", default="127.0.0.1:7600", show_default=True, help="Address of the main door.")
@click.option("--enrol-listen", default="127.0.0.1:7601", show_default=True, help="Address of the enrolment door.")
@click.option("--host", "hosts", multiple=True, help="Name clients call; repeat for more. Default: localhost and 127.0.0.1.")
@click.option("--base-model", "bases", multiple=True, metavar="ID=FOLDER", help="A base model cells may run; repeat for more.")
@click.option("--database", default="", help="PostgreSQL URL; default is SQLite in the data folder.")
@click.option("--blobs", default="", help="s3:// URL; default is a folder in the data folder.")
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="TOML file with the tables of [keys]: who keeps the keys of versions; default is a folder in the data folder.",
)
@_JSON
def init(
    *,
    folder: Path,
    origin: str,
    listen: str,
    enrol_listen: str,
    hosts: tuple[str, ...],
    bases: tuple[str, ...],
    database: str,
    blobs: str,
    keys_file: Path | None,
    as_json: bool,
) -> None:
    """Make a data folder: certificate authority, ledger and release keys, database, and the first admin's ticket."""
    from model_organisms_registry.founding import found

    config = Config(folder.resolve(), origin=origin, listen=listen, enrol_listen=enrol_listen, database=database, blobs=blobs)
    keys = keepers(keys_file) if keys_file else config.keys
    config = replace(config, cells=Cells(base_models=_bases(bases)), hosts=hosts or config.hosts, keys=keys)
    ticket = str(found(config, now=datetime.now(UTC)))
    if as_json:
        click.echo(json.dumps({"folder": str(config.folder), "ticket": ticket}))
        return
    click.echo(f"Registry '{origin}' made in {config.folder}.")
    click.echo(f"\nStart it:\n  mo-registry serve --folder {folder}")
    click.echo(f"\nThe first admin enrols within 72 hours, on their own machine, with\n  mo login {ticket}")
    click.echo(f"\nBack the folder up, and apart from it the keys of versions ({_kept_by(config)}); see deploy/runbook.md.")


@cli.command()
@_FOLDER
@click.option("--log-level", default="INFO", show_default=True, type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
def serve(*, folder: Path, log_level: str) -> None:
    """Run the registry until SIGTERM; calls under way get 30 s to end."""
    from model_organisms.cells.confine import undumpable

    undumpable()  # before anything else is imported: from here on nobody but root looks into this process
    # gRPC knows no lowest version of TLS. This is its list of suites for 1.2: one, for RSA certificates, which no door has: so
    # nothing older than 1.3 gets through a handshake.
    os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"
    # Copies are marked by many small matrix products: BLAS's threads, which come with numpy, would wait for each other in a spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from model_organisms_registry.server import serve as run

    logging.basicConfig(level=log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    run(load(folder))


@cli.command()
@_FOLDER
@_JSON
def ticket(*, folder: Path, as_json: bool) -> None:
    """Print the public ticket: people of an identity provider named in registry.toml log in with it.

    It holds no secret, but tells whom to trust: publish it where only you can write.
    """
    from model_organisms_registry.founding import public_ticket

    made = str(public_ticket(load(folder)))
    click.echo(json.dumps({"ticket": made}) if as_json else made)


@cli.command()
@_FOLDER
@_JSON
def fsck(*, folder: Path, as_json: bool) -> None:
    """Check everything: derive the ledger again from its entries, and list what is unfinished.

    Exit status 0 means clean, 1 that something is wrong.
    """
    from model_organisms_registry.inspection import inspect

    report = inspect(load(folder))
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=1))
    else:
        click.echo(report.as_text())
    sys.exit(0 if report.clean else 1)


@cli.command()
@_FOLDER
@_JSON
def reconcile(*, folder: Path, as_json: bool) -> None:
    """Hold ledger, budgets and transcripts of sessions against each other; the registry may run meanwhile.

    Exit status 0 means that they agree, 1 that something differs.
    """
    from model_organisms_registry.reconciling import reconcile as run

    account = run(load(folder))
    click.echo(json.dumps(account.as_json(), indent=1) if as_json else account.as_text())
    sys.exit(0 if account.agree else 1)


@cli.command()
@_FOLDER
@click.argument("to", type=click.Path(path_type=Path))
@_JSON
def backup(*, folder: Path, to: Path, as_json: bool) -> None:
    """Copy a registry into the new folder TO, while it runs, with its own keys but without those of versions.

    Keep FOLDER/keys/kek apart, in one copy that is brought up to date and never grows old: what is destroyed must not come back.
    """
    from model_organisms_registry.inspection import copy

    config = load(folder)
    elsewhere = copy(config, to)
    if as_json:
        click.echo(json.dumps({"folder": str(to), "not_copied": elsewhere, "version_keys": _kept_by(config)}))
        return
    click.echo(f"Copied to {to}, without the keys of versions ({_kept_by(config)}). Check it: mo-registry fsck --folder {to}")
    for name in elsewhere:
        click.echo(f"Not in the folder, so not in the copy: the {name}. Copy it now, by its own tools.")


@cli.command()
@click.argument("copied", metavar="FROM", type=click.Path(path_type=Path, exists=True, file_okay=False))
@_FOLDER
@click.option(
    "--version-keys",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The keys of versions as they are now: keys/kek of the old data folder, or the copy of it that is kept apart.",
)
@_JSON
def restore(*, copied: Path, folder: Path, version_keys: Path | None, as_json: bool) -> None:
    """Make the data folder from a copy that `backup` made, and check it."""
    from model_organisms_registry.inspection import inspect, put_back

    put_back(copied, folder, version_keys)
    report = inspect(load(folder))
    warning = "Read deploy/runbook.md before you serve this copy: a copy older than what was served forks the ledger."
    click.echo(json.dumps(report.as_json() | {"warning": warning}, indent=1) if as_json else f"{report.as_text()}\n{warning}")
    sys.exit(0 if report.clean else 1)


@cli.command()
@_FOLDER
@click.option("--version", "version", required=True, metavar="NAME", help="The version it looks like: organisms/…/versions/N.")
@click.argument("suspect", type=click.Path(path_type=Path, exists=True))
@_JSON
def trace(*, folder: Path, version: str, suspect: Path, as_json: bool) -> None:
    """Tell whose pulled copy SUSPECT is: an adapter's folder, or its adapter_model.safetensors.

    Exit status 0 means a copy was found, 1 that none can be told from chance.
    """
    from model_organisms_registry.tracing import trace as run

    inquiry = run(load(folder), version, suspect)
    click.echo(json.dumps(inquiry.as_json(), indent=1) if as_json else inquiry.as_text())
    sys.exit(0 if any(found.accused for found in inquiry.traces) else 1)


@cli.command()
@_FOLDER
@click.option("--version", "versions", multiple=True, metavar="NAME", help="A version, organisms/…/versions/N; repeat for more.")
@click.option("--all", "everything", is_flag=True, help="Everything that is stored: versions, transcripts, reasons.")
@click.option(
    "--to", type=click.Choice(["file", "pkcs11", "vault"]), help="Move to this keeper what it has not; else all is turned."
)
@_JSON
def rewrap(*, folder: Path, versions: tuple[str, ...], everything: bool, to: str | None, as_json: bool) -> None:
    """Give what is stored fresh keys, and destroy the older ones; stop the registry first. Cut off, it is simply run again.

    No copy of the registry made before opens afterwards, so back up at once. Exit status 1 means that something did not unwrap.
    """
    from model_organisms_registry.rewrapping import rewrap as run

    if everything == bool(versions):
        raise click.UsageError("Name the versions with --version, or say --all.")
    with click.progressbar(length=1, label="Data keys", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def tell(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        done = run(load(folder), versions=versions, to=to or "", now=datetime.now(UTC), tell=tell)
    click.echo(json.dumps(done.as_json(), indent=1) if as_json else done.as_text())
    sys.exit(1 if done.failed else 0)


@cli.group()
def policy() -> None:
    """Check policies, say what others would change, and why somebody is denied; nothing is changed."""


_POLICIES = click.argument("policies", metavar="POLICIES", type=click.Path(path_type=Path, exists=True, file_okay=False))


@policy.command()
@_POLICIES
@_FOLDER
@_JSON
def check(*, policies: Path, folder: Path, as_json: bool) -> None:
    """Hold a folder of POLICIES to its schema, its cases and the decision table, and against the set that stands.

    Exit status 0 means it is sound, 1 that it must not stand.
    """
    from model_organisms_registry import rulebook

    found = rulebook.check(policies, rulebook.standing(_registry(folder)))
    click.echo(json.dumps(found.as_json(), indent=1) if as_json else found.as_text())
    sys.exit(0 if found.sound else 1)


@policy.command()
@_POLICIES
@_FOLDER
@_JSON
def diff(*, policies: Path, folder: Path, as_json: bool) -> None:
    """Say what a folder of POLICIES decides otherwise than the set that stands in the registry.

    Exit status 0 means that nothing is allowed that was denied, 1 that something is.
    """
    from model_organisms_registry import rulebook

    found = rulebook.diff(policies, rulebook.standing(_registry(folder)))
    click.echo(json.dumps(found.as_json(), indent=1) if as_json else found.as_text())
    sys.exit(1 if found.loosens else 0)


@policy.command()
@click.argument("actor")
@click.argument("action")
@click.argument("resource", default="registry")
@click.option("--rung", type=click.Choice(["sample", "probe", "pull"]), help="With the action `request`: what is asked for.")
@click.option("--without", type=click.Choice(["jail", "witness"]), multiple=True, help="Suppose that this is missing.")
@_FOLDER
@_JSON
def explain(
    *, actor: str, action: str, resource: str, rung: str | None, without: tuple[str, ...], folder: Path, as_json: bool
) -> None:
    """Say how ACTION on RESOURCE would be decided for the user ACTOR, in the words that they would read.

    Whether walls and witness stand shows only in a running registry, so they are taken to. Nothing is changed.
    """
    from model_organisms.records import Rung

    from model_organisms_registry import rulebook
    from model_organisms_registry.gate.entities import Conditions

    told = rulebook.explain(
        load(folder),
        actor,
        action,
        resource,
        rung=Rung[rung.upper()] if rung else None,
        now=datetime.now(UTC),
        conditions=Conditions(ledger=True, jail="jail" not in without, witness="witness" not in without),
    )
    if as_json:
        click.echo(json.dumps(asdict(told), indent=1))
        return
    click.echo(f"{'allowed' if told.allowed else 'denied'} by {', '.join(told.policies) or 'no policy that permits it'}")
    for line in filter(None, (told.message, *(f"lacking: {change}" for change in told.changes))):
        click.echo(line)


def _registry(folder: Path) -> Config | None:
    """Settings of the registry whose set is compared with; without one, it is the shipped set, and that is said."""
    if (folder / "registry.toml").exists():
        return load(folder)
    click.echo(f"There is no registry in {folder}, so this is held against the policies that come with the program.", err=True)
    return None


cli.add_command(witness)
cli.add_command(notify)


@cli.command()
@_FOLDER
@click.argument("session")
@_JSON
def erase(*, folder: Path, session: str, as_json: bool) -> None:
    """Erase what was said in SESSION: its key is destroyed, every entry and proof stays. It cannot be taken back."""
    from model_organisms_registry.erasing import erase as run

    erased = run(load(folder), session, now=datetime.now(UTC))
    said = f"{erased.session}: {erased.texts} texts can be opened by nobody. Let the mirror of keys/kek follow now."
    click.echo(json.dumps(asdict(erased)) if as_json else said)


cli.add_command(signer)


def main() -> None:
    """Run a command; an error becomes one line, or with `--json` an object as `mo --json` prints it, and exit status 2."""
    as_json = "--json" in sys.argv[1:]
    try:
        cli(standalone_mode=not as_json)
    except ModelOrganismsError as error:
        name = error.details.get("name") if isinstance(error, NotFound) else None
        message = f"There is no '{name}' in this registry; check the name." if name else error.message  # an operator sees all
        _tell(error.reason, message, error.details, as_json=as_json)
        sys.exit(2)
    except click.ClickException as error:
        _tell("USAGE", error.format_message(), {}, as_json=True)
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("Aborted!", err=True)
        sys.exit(1)


def _tell(reason: str, message: str, details: Mapping[str, str], *, as_json: bool) -> None:
    told = json.dumps({"error": reason, "message": message, "details": dict(details)}) if as_json else f"mo-registry: {message}"
    click.echo(told, err=True)


def _kept_by(config: Config) -> str:
    return " and ".join("keys/kek" if name == "file" else f"kept by {name}" for name in config.keys.providers)


def _bases(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        if not separator or not Path(folder).is_dir():
            raise click.BadParameter(f"'{text}' is not ID=FOLDER with a folder that exists.", param_hint="--base-model")
        found[name] = str(Path(folder).resolve())
    return found


if __name__ == "__main__":
    main()
