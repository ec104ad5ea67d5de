"""Cells on a cluster, placed by Ray: the registry's end. The other is `ward.py`; what passes between, `sealed.py` seals.

- Each base model is a Serve application of this registry's own, its replicas found by the digest of the version that they know.
- A bundle goes only to a keeper that proved to know the secret, and only sealed to its key; so do questions, and so come answers.
- A keeper that is lost, silent or gone loses its sessions: `died` says so of each, a call under way fails as `CellUnavailable`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from uuid import uuid4

import ray
from model_organisms.errors import BaseModelMissing, CellUnavailable, ConfigurationInvalid, ModelOrganismsError
from model_organisms.formats.streaming import Sealer
from ray import serve
from ray.exceptions import RayActorError, RayError

from model_organisms_registry.isolation.keeper import GIVEN
from model_organisms_registry.isolation.lodging import SILENT_S, Lodging, Lookout, asked
from model_organisms_registry.isolation.openings import Opening, parse_opened, print_opening
from model_organisms_registry.isolation.sealed import SECRET_BYTES, call_up, parse_error, read_secret, recognise
from model_organisms_registry.isolation.ward import CONTROL, LOAD, NAMESPACE, Ward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from model_organisms.records import Level

    from model_organisms_registry.config import Cells
    from model_organisms_registry.domain.permits import Permit
    from model_organisms_registry.isolation.openings import Opened
    from model_organisms_registry.isolation.sealed import Introduction, Line

_CHUNK = 8 << 20
"""Sealed bytes of a bundle that travel at once."""
_RETRY_S = 30.0
_AGAIN_S = 0.5
_HEALTH_S = 2.0
"""A replica whose keeper is gone is noticed within so long."""
_LOG = logging.getLogger(__name__)


class ClusterPool:
    """All cells that this registry has on a cluster.

    Args:
        cells: The settings. Each base model's folder lies at the same path on every node.

    Raises:
        ConfigurationInvalid: The cluster cannot be joined, or the secret cannot be read.
    """

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        given = cells.cluster.secret_file
        self._secret = read_secret(given) if given else os.urandom(SECRET_BYTES)
        self._life = uuid4().hex[:8]
        self._joined = _join(cells.cluster.address)
        folders = tuple(dict.fromkeys(Path(folder).resolve() for folder in cells.base_models.values()))
        self._wards: dict[Path, Any] = dict(zip(folders, self._deploy(folders), strict=True))
        self._lookout = Lookout()
        self._lock = threading.Lock()
        self._closed = False
        self._stands = False
        self._tried = -_RETRY_S

    def open(
        self,
        permit: Permit,
        *,
        level: Level,
        base: str | Path,
        bundle: memoryview,
        version_digest: str,
        known_answer: Mapping[str, object] | None = None,
        alone: bool = False,
        died: Callable[[str], None] | None = None,
    ) -> Lodging:
        """Give a session its place, as `Pool` says.

        1. Permit. 2. Serve finds a replica, which takes the session in. 3. Its keeper proves itself. 4. A key of this session's
        alone is sealed to it, and under that the request and the bundle. 5. The keeper's pool opens the session, as a local one.

        Raises:
            SignatureInvalid: The keeper that Serve gave is not one of this registry's.
            BaseModelMissing: The cluster has no keepers for this base model.
        """
        permit.demand_cell()
        if self._closed:
            raise CellUnavailable("The registry is shutting down; try again later.")
        ward = self._wards.get(Path(base).resolve())
        if ward is None:
            msg = (
                f"The cluster has no cells for the base model in {base}; name the folder in [cells.base_models] of registry.toml."
            )
            raise BaseModelMissing(msg)
        until = time.monotonic() + self._cells.start_timeout_s
        name, keeper, introduction = self._leased(ward, version_digest, until)
        opening = Opening(permit, level, version_digest, len(bundle), known_answer, alone)
        try:
            recognise(introduction, self._secret)
            line, opened = self._brought(_Door(keeper, name, until), introduction, opening, bundle)
        except BaseException:
            keeper.kill.options(concurrency_group=CONTROL).remote(name)
            raise
        lodging = Lodging(name, keeper, line, opened, version_digest=version_digest, died=died, left=self._lookout.drop)
        self._lookout.add(lodging)
        return lodging

    @property
    def jailed(self) -> bool:
        """Tell whether every node that has keepers can build every wall; where none has any yet, one is started to tell."""
        with self._lock:
            if self._stands or self._closed or time.monotonic() - self._tried < _RETRY_S:
                return self._stands
            self._tried = time.monotonic()
        try:
            told = [
                asked(keeper.jailed.options(concurrency_group=LOAD).remote(), seconds=self._timeout) for keeper in self._keepers()
            ]
            told = told or [ward.jailed.remote().result(timeout_s=self._timeout) for ward in self._wards.values()]
        except (ModelOrganismsError, RayError, TimeoutError) as error:
            _LOG.warning("The cluster does not say whether it can build a jail, so nothing above CL1 is served: %s", error)
            return False
        self._stands = bool(told) and all(told)
        if not self._stands:
            _LOG.warning("A node of the cluster cannot build a jail, so nothing above CL1 is served; its log says why")
        return self._stands

    @property
    def cells(self) -> tuple[Lodging, ...]:
        """Sessions that have a place."""
        return self._lookout.lodgings

    @property
    def spares(self) -> int:
        """Warm cells that wait, on all nodes."""
        asking = [keeper.cells.options(concurrency_group=CONTROL).remote() for keeper in self._keepers()]
        return sum(spare for _, spare in (asked(reference, seconds=SILENT_S) for reference in asking))

    def close(self, drain_s: float = 30.0) -> None:
        """Refuse new sessions, let running calls end for so long, then end every session and this registry's keepers."""
        with self._lock:
            first, self._closed = not self._closed, True
        until = time.monotonic() + drain_s
        for lodging in self._lookout.lodgings:
            lodging.drain(until - time.monotonic())
        if not first:
            return
        for folder in self._wards:
            with suppress(RayError, RuntimeError, TimeoutError):  # a cluster that is gone has no keepers either
                serve.delete(self._name(folder))
        if self._joined:
            ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    @property
    def _timeout(self) -> float:
        return self._cells.start_timeout_s

    def _name(self, folder: Path) -> str:
        """Name an application: this life of this registry alone, so that nobody is led to keepers with another secret."""
        return f"{self._cells.cluster.name}:{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}:{self._life}"

    def _deploy(self, folders: tuple[Path, ...]) -> list[Any]:
        """Have Serve start the replicas, and take away those of an earlier life of this registry."""
        cluster = self._cells.cluster
        for name in serve.status().applications:
            if name.startswith(f"{cluster.name}:"):
                serve.delete(name, _blocking=False)
        deployment = serve.deployment(
            Ward,
            name="ward",
            max_ongoing_requests=cluster.most_sessions,
            autoscaling_config={
                "min_replicas": cluster.min_replicas,
                "max_replicas": cluster.max_replicas,
                "target_ongoing_requests": cluster.sessions,
                "upscale_delay_s": cluster.upscale_delay_s,
                "downscale_delay_s": cluster.downscale_delay_s,
            },
            ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": cluster.gpus, "runtime_env": cluster.runtime_env},
            graceful_shutdown_timeout_s=cluster.drain_s,
            graceful_shutdown_wait_loop_s=1.0,
            health_check_period_s=_HEALTH_S,
        )
        travelling = b"" if cluster.secret_file else self._secret
        targets = [
            serve.RunTarget(
                deployment.bind(self._cells, str(folder), travelling, self._name(folder)),
                name=self._name(folder),
                route_prefix=None,
            )
            for folder in folders
        ]
        return list(serve.run_many(targets, wait_for_applications_running=False)) if targets else []

    def _keepers(self) -> Iterator[Any]:
        """Keepers of this registry that stand."""
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if actor["namespace"] == NAMESPACE and actor["name"].startswith(
                tuple(f"{self._name(folder)}/" for folder in self._wards)
            ):
                with suppress(ValueError):  # gone since
                    yield ray.get_actor(actor["name"], namespace=NAMESPACE)

    def _leased(self, ward: Any, version_digest: str, until: float) -> tuple[str, Any, Introduction]:  # noqa: ANN401 - a handle
        """Take leases until one is with a keeper that lives: for a while Serve leads to a replica whose keeper is dead."""
        while not self._closed:
            name = uuid4().hex
            try:
                return name, *_Lease(ward, name, version_digest).taken(until)
            except RayActorError as error:
                if time.monotonic() + _AGAIN_S > until:
                    raise CellUnavailable("The node was lost, and no other took the session in; try again later.") from error
            time.sleep(_AGAIN_S)
        raise CellUnavailable("The registry is shutting down; try again later.")

    def _brought(self, door: _Door, introduction: Introduction, opening: Opening, bundle: memoryview) -> tuple[Line, Opened]:
        sealed_key, line = call_up(door.name, os.urandom(32), introduction, self._secret)
        door.ask("begin", sealed_key, line.ask(0, print_opening(opening)))
        for chunk in _gathered(Sealer(line.bundle, bytes.fromhex(opening.version_digest)).from_memory(bundle)):
            door.ask("take", chunk)
        plain = line.answered(0, 0, door.ask("open"))
        if plain[:1] != GIVEN:
            raise parse_error(plain[1:])
        return line, parse_opened(plain[1:])


class _Door(NamedTuple):
    """A keeper, while a session is brought to it."""

    keeper: Any
    name: str
    until: float

    def ask(self, what: str, *arguments: bytes) -> bytes:
        """Have it do a step."""
        reference = getattr(self.keeper, what).options(concurrency_group=LOAD).remote(self.name, *arguments)
        return bytes(asked(reference, seconds=self.until - time.monotonic()) or b"")


class _Lease:
    """A request to a replica that lasts as long as its session; a thread holds it open."""

    def __init__(self, ward: Any, name: str, version_digest: str) -> None:  # noqa: ANN401 - a deployment's handle
        self._answers = ward.options(stream=True, multiplexed_model_id=version_digest).lease.remote(name)
        self._heard: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._hold, name="cluster-lease", daemon=True).start()

    def taken(self, until: float) -> tuple[Any, Introduction]:
        """Wait until a replica took the session in.

        Raises:
            RayActorError: The replica, or its keeper, is dead.
            CellUnavailable: None took it in.
        """
        try:
            heard = self._heard.get(timeout=max(0.0, until - time.monotonic()))
        except Empty:
            self._answers.cancel()
            raise CellUnavailable("Every node of the cluster is full or starting; close a session or try again later.") from None
        if isinstance(heard, RayActorError):
            raise heard
        if isinstance(heard, Exception):
            msg = f"No node of the cluster took the session in ({type(heard).__name__}); try again later."
            raise CellUnavailable(msg) from heard
        keeper, introduction = heard
        return keeper, introduction

    def _hold(self) -> None:
        try:
            for answer in self._answers:
                self._heard.put(answer)
        except Exception as error:  # noqa: BLE001 - whatever Serve raises here, in a thread, is for who waits
            self._heard.put(error)


def _join(address: str) -> bool:
    """Join the cluster, unless this process is in one; tell whether it was joined here."""
    if ray.is_initialized():
        return False
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        serve.start(proxy_location="Disabled")  # nothing of this is for HTTP
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        msg = f"The Ray cluster at {address!r} cannot be joined ({error}); see [cells.cluster] address in registry.toml."
        raise ConfigurationInvalid(msg) from error
    return True


def _gathered(segments: Iterator[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for segment in segments:
        held += segment
        if len(held) >= _CHUNK:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
