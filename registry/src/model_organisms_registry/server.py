"""The composition root: builds every concrete part, hands each what it needs, and starts and stops the whole.

Nobody else constructs a class of another room. Order of start: storage, ledger (which finishes what a crash left), gate, cells,
doors. Order of stop: doors, sessions, cells, ledger.
"""

from __future__ import annotations

import logging
import signal
import threading
from concurrent import futures
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from model_organisms.errors import CellUnavailable, ConfigurationInvalid, Unavailable
from model_organisms.records import MotionKind
from model_organisms.v1 import access_pb2, audit_pb2, identity_pb2, motions_pb2, organisms_pb2, sandbox_pb2

from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.hazard import TABLE, tightened
from model_organisms_registry.founding import Storage, addresses
from model_organisms_registry.gate.entities import Conditions
from model_organisms_registry.gate.gate import Gate
from model_organisms_registry.isolation.pool import CellPool
from model_organisms_registry.ledger.public import PublicFiles
from model_organisms_registry.ledger.web import Site
from model_organisms_registry.rpc.access import AccessRooms
from model_organisms_registry.rpc.audit import AuditRooms
from model_organisms_registry.rpc.door import Door, Enrolled, anyone
from model_organisms_registry.rpc.identity import EnrolmentRooms, IdentityRooms
from model_organisms_registry.rpc.motions import MotionsRooms
from model_organisms_registry.rpc.organisms import OrganismsRooms
from model_organisms_registry.rpc.sandbox import SandboxRooms
from model_organisms_registry.rpc.turns import Turns
from model_organisms_registry.storage.authority import SERVER_LIFE
from model_organisms_registry.storage.bundles import Bundles, Uploads
from model_organisms_registry.storage.contents import Contents
from model_organisms_registry.storage.copies import Copies
from model_organisms_registry.storage.sealed import SealedStore
from model_organisms_registry.workflows.access import Access
from model_organisms_registry.workflows.audit import Audit
from model_organisms_registry.workflows.changes import Changes, seq
from model_organisms_registry.workflows.clockwork import Clockwork
from model_organisms_registry.workflows.explaining import Explaining
from model_organisms_registry.workflows.identity import Identity
from model_organisms_registry.workflows.motions import Act, Motions
from model_organisms_registry.workflows.organisms import Organisms
from model_organisms_registry.workflows.publishing import Publishing
from model_organisms_registry.workflows.pulling import Pulling
from model_organisms_registry.workflows.recall import Recall
from model_organisms_registry.workflows.sampling import Sampling
from model_organisms_registry.workflows.sandbox import Sandbox
from model_organisms_registry.workflows.shares import Shares
from model_organisms_registry.workflows.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from model_organisms_registry.config import Config, Limits
    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.rpc.door import Arrival
    from model_organisms_registry.storage.authority import Authority

_LOG = logging.getLogger(__name__)
_DRAIN_S = 30.0
_PORCH_LONGEST_S, _PORCH_SILENCE_S, _PORCH_EACH = 30.0, 5.0, 8
"""The enrolment door is for one short call: its longest deadline and silence, in seconds, and calls at once from one address."""
VERSION = "0.1.0"


class Shown:
    """The certificate a door shows: issued at the start, and again when half of its life is over, so nobody has to restart.

    Args:
        authority: Issues it.
        hosts: Names clients call.
        clock: The time of a handshake.
        demand: Whether callers must show one of their own.
    """

    def __init__(self, authority: Authority, hosts: Iterable[str], clock: Callable[[], datetime], *, demand: bool) -> None:
        """Keep them; the first is issued by `credentials`."""
        self._authority = authority
        self._hosts = tuple(hosts)
        self._clock = clock
        self._demand = demand
        self._issued = datetime.min.replace(tzinfo=UTC)

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port of a server takes; it asks again before each handshake."""
        first, demand = self._issue(), self._demand
        # The stub does not know that a fetcher may answer with None, for "as it is"; gRPC's own documentation does.
        return grpc.dynamic_ssl_server_credentials(first, self._renewed, require_client_authentication=demand)  # type: ignore[arg-type]

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        return self._issue() if self._clock() - self._issued > SERVER_LIFE / 2 else None

    def _issue(self) -> grpc.ServerCertificateConfiguration:
        self._issued = self._clock()
        pair = self._authority.server_certificate(self._hosts, now=self._issued)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=self._authority.pem if self._demand else None)


class Registry:
    """A running registry.

    Args:
        config: Its settings.
        clock: The time; only tests give another.
    """

    def __init__(self, config: Config, *, clock: Any = None) -> None:  # noqa: ANN401 - a callable that tests give
        """Build everything; nothing listens yet."""
        self._clock = clock or (lambda: datetime.now(UTC))
        self.config = config
        self.storage = Storage.open(config)
        limits = config.limits
        self.storage.log.start()
        self.changes = Changes(self.storage.database, self.storage.log, wait_s=limits.ledger_wait_s)
        cells = config.cells
        self._bases = {name: Path(folder) for name, folder in cells.base_models.items()}
        self.pool = CellPool(
            self._bases,
            limit=cells.limit,
            start_timeout_s=cells.start_timeout_s,
            spare=cells.spare,
            bubblewrap=cells.bubblewrap,
            device=cells.device,
            threads=cells.threads,
        )
        self.gate = Gate(
            config.folder / config.policies if config.policies else None,
            record_denial=self.changes.record_denial,
            conditions=self._conditions,
        )
        self._servers = self._build()
        files = PublicFiles(self.storage.blobs, entries=config.public.entries)
        self.public = Site(config.public.listen, files.answer) if config.public.listen else None
        self.clockwork = Clockwork(
            self._clock, self.sandbox.end_due, self.publishing.end_due, self.pulling.note_sent, self._end_silent
        )

    def start(self) -> None:
        """Open the doors."""
        facts = {"version": VERSION, "policies": self.gate.digest}
        now = self._clock()
        self.changes.enter(entry(Event.REGISTRY_START, None, time=now, seq=seq(), subject="registry", facts=facts))
        self.sandbox.recover(now)
        self.publishing.recover()
        self.publishing.end_due(now)
        self.clockwork.start()
        for server in self._servers:
            server.start()
        if self.public:
            self.public.start()

    def stop(self, grace_s: float = _DRAIN_S) -> None:
        """Close the doors, end what runs, and write that down."""
        for stopped in [server.stop(grace_s) for server in self._servers]:
            stopped.wait(grace_s)
        if self.public:
            self.public.close()
        self.clockwork.stop()
        now = self._clock()
        self.sandbox.stop(now)
        self.pulling.note_sent(now)
        self.pool.close()
        self.changes.enter(entry(Event.REGISTRY_STOP, None, time=now, seq=seq(), subject="registry"))
        self.storage.close()

    def _end_silent(self, now: datetime) -> None:
        del now
        self._turns.end_silent()
        self._porch_turns.end_silent()

    def _conditions(self) -> Conditions:
        log = self.storage.log
        return Conditions(ledger=log.healthy, jail=self.pool.jailed, witness=log.witnessed)

    def _build(self) -> list[grpc.Server]:
        config, storage, limits = self.config, self.storage, self.config.limits
        table = tightened(TABLE, config.hazard) if config.hazard else TABLE
        info = self._info()
        sealed = SealedStore(storage.blobs, storage.keys)
        bundles, uploads, contents = Bundles(sealed), Uploads(sealed), Contents(sealed)
        self.sandbox = sandbox = Sandbox(
            self.changes,
            self.gate,
            bundles,
            contents=contents,
            pool=self.pool,
            table=table,
            idle=timedelta(seconds=limits.session_idle_s),
            bases=self._bases,
        )
        identity = Identity(
            self.changes,
            self.gate,
            storage.authority,
            addresses(config),
            contents=contents,
            suspended=sandbox.user_suspended,
        )
        organisms = Organisms(self.changes, self.gate, contents=contents, raised=sandbox.level_raised)
        recall = Recall(self.changes, self.gate, contents=contents, stopped=sandbox.version_stopped)
        self.publishing = Publishing(self.changes, self.gate, bundles, uploads, bases=self._bases, limits=limits)
        self.pulling = Pulling(
            self.changes,
            self.gate,
            bundles,
            copies=Copies(sealed, memory=limits.marked_bytes),
            table=table,
            release_key=storage.release_key,
            origin=config.origin,
        )
        sampling = Sampling(self.changes, self.gate, contents, sandbox=sandbox, clock=self._clock, release_s=limits.release_s)
        access = Access(self.changes, self.gate, table, contents=contents, revoked=sandbox.grant_revoked)
        motions = Motions(self.changes, self.gate, origin=config.origin, acts=_acts(organisms))
        explaining = Explaining(storage.database, self.gate, table)
        door, porch = self._doors()
        cells = Shares(config.cells.each or max(1, config.cells.limit // 2), _many_cells)
        self._standing = Standing(storage.database, self._clock, table)
        self._pulls = Shares(limits.pulls_each, _many_pulls)
        rooms = OrganismsRooms(
            organisms, self.publishing, self.pulling, recall=recall, standing=self._standing, pulls=self._pulls
        )
        main = [
            door.service(_service(identity_pb2, "IdentityService"), IdentityRooms(identity, info)),
            door.service(_service(organisms_pb2, "OrganismsService"), rooms),
            door.service(_service(access_pb2, "AccessService"), AccessRooms(access, explaining)),
            door.service(_service(motions_pb2, "MotionsService"), MotionsRooms(motions)),
            door.service(_service(sandbox_pb2, "SandboxService"), SandboxRooms(sandbox, sampling, cells)),
            door.service(_service(audit_pb2, "AuditService"), AuditRooms(Audit(storage.log, self.gate))),
        ]
        enrol = [porch.service(_service(identity_pb2, "EnrolmentService"), EnrolmentRooms(identity, info))]
        return [self._listening(main, config.listen, demand=True), self._listening(enrol, config.enrol_listen, demand=False)]

    def _info(self) -> identity_pb2.RegistryInfo:
        return identity_pb2.RegistryInfo(
            origin=self.config.origin,
            ledger_key=self.storage.log.vkey,
            release_key=self.storage.release_key.public_key().public_bytes_raw(),
        )

    def _listening(self, handlers: list[grpc.GenericRpcHandler[Any, Any]], listen: str, *, demand: bool) -> grpc.Server:
        shown = Shown(self.storage.authority, self.config.hosts, self._clock, demand=demand)
        return _server(handlers, listen, shown, self.config.limits)

    def _doors(self) -> tuple[Door[Call], Door[Arrival]]:
        limits, storage = self.config.limits, self.storage
        together = limits.threads - limits.threads // 8  # the rest is for those who come then
        self._turns = Turns(each=limits.calls_each, together=together, silence_s=limits.silence_s)
        self._porch_turns = Turns(each=_PORCH_EACH, together=together, silence_s=_PORCH_SILENCE_S)
        main = Door(
            Enrolled(storage.authority, storage.database),
            whose=lambda call: call.user.name,
            turns=self._turns,
            longest_s=limits.deadline_s,
            clock=self._clock,
        )
        porch = Door(
            anyone,
            whose=lambda arrival: arrival.address,
            turns=self._porch_turns,
            longest_s=min(_PORCH_LONGEST_S, limits.deadline_s),
            clock=self._clock,
        )
        return main, porch


def _acts(organisms: Organisms) -> dict[MotionKind, Act]:
    """What takes two people here; each act belongs to the workflow that owns what it is done to."""
    return {MotionKind.LOWER_LEVEL: organisms.lowering()}


def serve(config: Config) -> None:
    """Run a registry until SIGTERM or SIGINT, then drain and stop."""
    registry = Registry(config)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    registry.start()
    _LOG.info("registry %s listens on %s (enrolment on %s)", config.origin, config.listen, config.enrol_listen)
    ended.wait()
    registry.stop()


def _server(
    handlers: list[grpc.GenericRpcHandler[Any, Any]],
    listen: str,
    shown: Shown,
    limits: Limits,
) -> grpc.Server:
    options = [
        ("grpc.max_receive_message_length", 4 << 20),
        ("grpc.max_metadata_size", 8 << 10),
        ("grpc.absolute_max_metadata_size", 16 << 10),
        ("grpc.max_concurrent_streams", limits.concurrent_calls),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 30_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(
        futures.ThreadPoolExecutor(limits.threads, thread_name_prefix="call"),
        handlers=handlers,
        options=options,
        maximum_concurrent_rpcs=limits.concurrent_calls,
    )
    try:
        server.add_secure_port(listen, shown.credentials())
    except RuntimeError as error:
        msg = f"{listen} cannot be listened on; is another registry running? Name other ports in registry.toml."
        raise ConfigurationInvalid(msg) from error
    return server


def _many_cells(each: int) -> CellUnavailable:
    msg = f"You have as many sessions open as this registry gives one user ({each}); close one of them."
    return CellUnavailable(msg, limit=str(each))


def _many_pulls(each: int) -> Unavailable:
    return Unavailable(f"You have as many pulls under way as one user may ({each}); let one end first.", limit=str(each))


def _service(module: Any, name: str) -> Any:  # noqa: ANN401 - a generated module and its descriptor
    return module.DESCRIPTOR.services_by_name[name]
