"""Settings of a registry, read once from `registry.toml`; nobody else reads a file or a variable for settings.

Every key has a default that suits one machine; `deploy/registry.toml` explains each. A key this program does not know is refused,
because a misspelt limit is no limit.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

from model_organisms.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from pathlib import Path

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where cells run that Ray places, and how many machines' worth."""

    address: str = "auto"
    """Of the cluster's control service, `host:port`; `auto` finds the cluster that this machine is part of."""
    name: str = "registry"
    """What this registry's keepers are called on the cluster; each registry process has its own."""
    secret_file: str = ""
    """A file of 32 bytes or more that lies here and on every node; empty sends a fresh secret through the cluster."""
    min_replicas: int = 1
    max_replicas: int = 4
    """Keepers for each base model, at least and at most; each is an actor with a pool of cells."""
    sessions: int = 4
    """Sessions on a keeper for which one more is started."""
    most_sessions: int = 8
    """Sessions that one keeper takes at all."""
    cpus: float = 1.0
    gpus: float = 0.0
    """What Ray sets aside for a keeper."""
    upscale_delay_s: float = 10.0
    downscale_delay_s: float = 600.0
    drain_s: float = 3600.0
    """A keeper that is to go lets its sessions end for so long."""
    runtime_env: dict[str, object] = field(default_factory=dict)
    """Ray's, for keepers: an image, packages, variables."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Where models come from and how many may run."""

    base_models: dict[str, str] = field(default_factory=dict)
    """Hub id of a base model to its folder on this machine."""
    limit: int = 4
    """Cells that may be in use at once."""
    each: int = 0
    """Of these, how many one user may have; 0 is half of them, and at least one."""
    spare: int = 0
    """Warm cells kept ready for each base model."""
    start_timeout_s: float = 120.0
    bubblewrap: str = "bwrap"
    device: str = "cpu"
    dtype: str = "auto"
    """What models compute in; `auto` is what they are stored in on a GPU, and float32 on a CPU."""
    threads: int = 0
    """Threads of one cell; 0 gives each its share of the cores, by `limit`."""
    rows: int = 16
    """Sessions that share a cell where their level allows it; as many further questions of theirs are answered beside."""
    adapter_bytes: int = 1 << 30
    """Bytes that organisms may take in one cell."""
    cache_bytes: int = 1 << 30
    """Bytes that conversations may take in one cell."""
    memory: int = 0
    """Bytes of private memory of one cell; 0 reckons them from its base model and the two above."""
    silence_s: float = 60.0
    """A cell without a sign of life for so long is ended."""
    placement: str = "local"
    """`local`: cells are processes of this machine. `ray`: of a cluster's."""
    cluster: Cluster = field(default_factory=Cluster)

    @property
    def share(self) -> int:
        """Sessions that one user may have at once."""
        return self.each or max(1, self.limit // 2)

    @property
    def places(self) -> int:
        """Cells that one registry process may have, here or on a cluster."""
        return self.limit if self.placement == "local" else self.cluster.max_replicas * self.cluster.most_sessions


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the service."""

    threads: int = 64
    """Calls served at once."""
    calls_each: int = 16
    """Calls one user may have under way."""
    silence_s: float = 60.0
    """A call whose caller says nothing for so long is ended."""
    concurrent_calls: int = 256
    """Calls admitted at once; more are refused."""
    deadline_s: float = 3600.0
    """Longest deadline a call may ask for."""
    bundle_bytes: int = 4 << 30
    marked_bytes: int = 4 << 30
    """Bytes of marked copies that may be leaving at once; each lies whole in memory until it has left."""
    uploads_each: int = 8
    staged_bytes_each: int = 8 << 30
    """Uploads one user may have under way, and the bytes they may announce together; one upload is always taken."""
    pulls_each: int = 4
    """Pulls one user may have under way."""
    ledger_wait_s: float = 2.0
    upload_hours: float = 24.0
    destruction_days: float = 14.0
    """After the end of a grant, or a recall, the destruction of what was pulled is to be attested within so many days."""
    session_idle_s: float = 1800.0
    release_s: float = 0.5
    """Text of a sample leaves at most this often, each time after its ledger entry."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What is done with sessions besides serving them."""

    rerun_share: float = 0.05
    """Share of the turns at CL3 and above that are said again in another cell, to see that they come out the same; 0 is none."""
    rerun_hours: float = 24.0
    """A turn for which no cell was free for so long is given up."""


@dataclass(frozen=True, slots=True)
class Replica:
    """This process among several that share one PostgreSQL database; `workflows/replicas.py` says what they owe each other."""

    name: str = ""
    """Of this process alone. Empty: there is no other."""
    heartbeat_s: float = 5.0
    dead_s: float = 30.0
    """One that is silent for so long is taken for dead, and its sessions for lost."""


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who cosigns the ledger's checkpoints."""

    quorum: int = 0
    """How many must have cosigned before something counts as witnessed; 0 asks none, and CL4 is not served."""
    keys: dict[str, str] = field(default_factory=dict)
    """Verifier key of a witness to its address."""
    timeout_s: float = 1.5
    lag_s: float = 60.0
    """How long a cosigned head speaks for the ledger."""


@dataclass(frozen=True, slots=True)
class Token:
    """Where keys lie that a PKCS#11 token keeps."""

    library: str = ""
    """The token's PKCS#11 library."""
    token: str = ""
    """Label of the token."""
    pin_file: str = ""
    pin_env: str = ""
    """A file that holds its PIN, or the name of a variable that does."""


@dataclass(frozen=True, slots=True)
class Transit:
    """Where keys lie that OpenBao or Vault keeps, in a transit engine."""

    address: str = ""
    mount: str = "transit"
    namespace: str = ""
    token_file: str = ""
    token_env: str = ""
    """A file that holds the token, or the name of a variable that does."""
    ca_file: str = ""
    """Certificates that vouch for the server's; empty means the system's."""
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Keys:
    """Who keeps the keys that data keys are wrapped by."""

    provider: str = "file"
    """Makes new keys: `file`, `pkcs11` or `vault`."""
    also: tuple[str, ...] = ()
    """Providers that keep older keys."""
    pkcs11: Token = field(default_factory=Token)
    vault: Transit = field(default_factory=Transit)

    @property
    def providers(self) -> tuple[str, ...]:
        """All of them, the one that makes new keys first."""
        return tuple(dict.fromkeys((self.provider, *self.also)))


@dataclass(frozen=True, slots=True)
class Public:
    """The ledger's files for everybody, over plain HTTP."""

    listen: str = ""
    """Empty serves none."""
    entries: bool = False
    """Whether entries are among them: they carry no content, and name people."""


@dataclass(frozen=True, slots=True)
class AccountRule:
    """Who of an issuer gets which account: those whose claim is, or lists, the value."""

    claim: str = ""
    value: str = ""
    organisation: str = ""
    roles: tuple[str, ...] = ()
    """Empty means researcher for a person; a service is always just that."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An identity provider whose tokens give accounts; `domain/oidc.py` checks that the values make sense."""

    issuer: str = ""
    kind: str = "person"
    """Or `service`."""
    client_id: str = ""
    audience: str = ""
    """Empty means the client id."""
    algorithms: tuple[str, ...] = ("RS256",)
    scopes: tuple[str, ...] = ("openid", "profile")
    username: str = "preferred_username"
    """Claim that a new account is named after."""
    prefix: str = ""
    """Put before it, so that names of two issuers do not meet."""
    require_nonce: bool = True
    """A person's token must be bound to their keys by its nonce."""
    may_give: tuple[str, ...] = ("researcher",)
    """Roles that rules of this issuer may give."""
    clock_skew_s: float = 60.0
    token_age_s: float = 600.0
    """Oldest token taken."""
    timeout_s: float = 5.0
    """Longest wait for the issuer."""
    authority: str = ""
    """PEM file of the authority that signs its TLS certificate; empty means those the system trusts."""
    insecure_loopback: bool = False
    """Take plain http on loopback."""
    accounts: tuple[AccountRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Notify:
    """A system that is told what happens; `hooks.py` checks that the values make sense."""

    name: str = ""
    url: str = ""
    secret_file: str = ""
    events: tuple[str, ...] = ()
    """Types of ledger entries."""
    private: bool = False
    """Its address may be loopback or private, and its url plain http."""
    timeout_s: float = 10.0
    """Longest attempt."""
    first_pause_s: float = 5.0
    """Pause after the first attempt that fails; each further one is twice as long."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one registry."""

    folder: Path
    """Data folder; relative paths below are relative to it."""
    origin: str = "localhost"
    """Name of the registry and of its ledger; fixed at `init`."""
    listen: str = "127.0.0.1:7600"
    enrol_listen: str = "127.0.0.1:7601"
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
    """Names in the server's certificate; the first is what tickets tell users to call."""
    database: str = ""
    """Empty means SQLite in the data folder."""
    blobs: str = ""
    """Empty means a folder in the data folder."""
    policies: str = ""
    """Empty means the policies that come with the registry."""
    keys: Keys = field(default_factory=Keys)
    cells: Cells = field(default_factory=Cells)
    limits: Limits = field(default_factory=Limits)
    sandbox: Sandbox = field(default_factory=Sandbox)
    replica: Replica = field(default_factory=Replica)
    witnesses: Witnesses = field(default_factory=Witnesses)
    public: Public = field(default_factory=Public)
    hazard: dict[str, dict[str, int | bool]] = field(default_factory=dict)
    """Stricter demands by level and rung, such as `[hazard."CL2.pull"]`."""
    oidc: tuple[Issuer, ...] = ()
    """Identity providers that people and services may come from."""
    notify: tuple[Notify, ...] = ()
    """Systems that are told what happens."""

    @property
    def database_url(self) -> str:
        """The database to use."""
        return self.database or f"sqlite:///{self.folder / 'registry.db'}"

    @property
    def blobs_url(self) -> str:
        """The blob store to use."""
        return self.blobs or f"file://{self.folder / 'blobs'}"

    @property
    def policies_folder(self) -> Path | None:
        """Where the deployment's policies lie; None where they are the program's own."""
        return self.folder / self.policies if self.policies else None

    @property
    def keys_folder(self) -> Path:
        """Where keys lie: the authority, the ledger's, the release key, and what `file` keeps of versions."""
        return self.folder / "keys"

    @property
    def kek_folder(self) -> Path:
        """Where the provider `file` keeps its keys; no copy of the registry holds it."""
        return self.keys_folder / "kek"


def load(folder: Path) -> Config:
    """Read `registry.toml` of a data folder.

    Args:
        folder: What `mo-registry init` made.

    Returns:
        The settings.

    Raises:
        ConfigurationInvalid: No file, no TOML, an unknown key, or a value of the wrong kind; the message names the key.
    """
    path = folder / "registry.toml"
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        msg = f"There is no registry in {folder}; run `mo-registry init --folder {folder}` first."
        raise ConfigurationInvalid(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {error}"
        raise ConfigurationInvalid(msg) from error
    values: dict[str, Any] = dict(raw)
    values["keys"] = _keepers(values.get("keys", {}))
    values["cells"] = _cells(values.get("cells", {}))
    tables = (("limits", Limits), ("sandbox", Sandbox), ("replica", Replica), ("witnesses", Witnesses), ("public", Public))
    for name, kind in tables:
        values[name] = _read(kind, values.get(name, {}), f"{name}.")
    values["oidc"] = [_issuer(item) for item in _expect(values.get("oidc", []), list, "oidc")]
    values["notify"] = [_read(Notify, item, "notify.") for item in _expect(values.get("notify", []), list, "notify")]
    return _read(Config, {"folder": folder.resolve(), **values}, "")


def keepers(path: Path) -> Keys:
    """Read who shall keep the keys, before there is a registry: from a file with the tables of `[keys]` and no others.

    Raises:
        ConfigurationInvalid: As for `load`.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationInvalid(f"{path} cannot be read: {error}") from error
    if raw.keys() != {"keys"}:
        raise ConfigurationInvalid(f"{path} must hold [keys] and its tables, and nothing else; deploy/registry.toml shows them.")
    return _keepers(raw["keys"])


def _keepers(values: object) -> Keys:
    told: dict[str, Any] = dict(_expect(values, dict, "keys"))
    kinds: dict[str, type[Token | Transit]] = {"pkcs11": Token, "vault": Transit}
    tables = {name: _read(kind, told.get(name, {}), f"keys.{name}.") for name, kind in kinds.items()}
    return _read(Keys, told | tables, "keys.")


def _cells(values: object) -> Cells:
    told: dict[str, Any] = dict(_expect(values, dict, "cells"))
    return _read(Cells, told | {"cluster": _read(Cluster, told.get("cluster", {}), "cells.cluster.")}, "cells.")


def _issuer(values: object) -> Issuer:
    told: dict[str, Any] = dict(_expect(values, dict, "oidc"))
    rules = _expect(told.get("accounts", []), list, "oidc.accounts")
    return _read(Issuer, told | {"accounts": [_read(AccountRule, rule, "oidc.accounts.") for rule in rules]}, "oidc.")


def _read(kind: type[S], values: object, prefix: str) -> S:
    if not isinstance(values, dict):
        msg = f"[{prefix.rstrip('.')}] of registry.toml must be a table."
        raise ConfigurationInvalid(msg)
    defaults = {item.name: item for item in fields(kind)}  # type: ignore[arg-type] # every `kind` here is a dataclass
    if unknown := sorted(set(values) - set(defaults)):
        msg = f"registry.toml has the unknown key '{prefix}{unknown[0]}'; deploy/registry.toml lists the known ones."
        raise ConfigurationInvalid(msg)
    return kind(**{name: _typed(value, str(defaults[name].type), prefix + name) for name, value in values.items()})


def _typed(value: Any, kind: str, name: str) -> Any:  # noqa: ANN401 - TOML values
    if kind.startswith("tuple"):
        return tuple(_typed(item, kind[len("tuple[") : -len(", ...]")], name) for item in _expect(value, list, name))
    if kind == "float":
        return float(_expect(value, (int, float), name))
    if kind == "bool":
        return _expect(value, bool, name)
    if kind in {"int", "str"}:
        return _expect(value, int if kind == "int" else str, name)
    return _expect(value, dict, name) if kind.startswith("dict") else value


def _expect(value: Any, kind: type | tuple[type, ...], name: str) -> Any:  # noqa: ANN401 - TOML values
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        shown = kind.__name__ if isinstance(kind, type) else "number"
        msg = f"'{name}' of registry.toml must be a {shown}, not {value!r}."
        raise ConfigurationInvalid(msg)
    return value
