"""The composition root: builds every concrete part, hands each what it needs, and starts and stops the whole.

Nobody else constructs a class of another room. Order of start: storage, ledger (which finishes what a crash left), gate, cells,
doors. Order of stop: doors, sessions, cells, ledger.
"""

from __future__ import annotations

import logging
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpc_health.v1 import health_pb2
from model_organisms.v1 import access_pb2, audit_pb2, identity_pb2, motions_pb2, organisms_pb2, recall_pb2, sandbox_pb2

from model_organisms_registry import hooks
from model_organisms_registry.domain.audit import Event, entry
from model_organisms_registry.domain.hazard import TABLE, HazardTable, tightened
from model_organisms_registry.ending import Ending
from model_organisms_registry.founding import Storage, addresses
from model_organisms_registry.gate.entities import Conditions
from model_organisms_registry.gate.gate import Gate
from model_organisms_registry.isolation.building import build
from model_organisms_registry.issuers import Issuers
from model_organisms_registry.ledger.public import public_site
from model_organisms_registry.ports import Shown, port
from model_organisms_registry.rpc.access import AccessRooms
from model_organisms_registry.rpc.audit import AuditRooms
from model_organisms_registry.rpc.door import Door, Enrolled, anyone
from model_organisms_registry.rpc.games import GamesRooms
from model_organisms_registry.rpc.health import ANSWERED, HealthRooms
from model_organisms_registry.rpc.identity import EnrolmentRooms, IdentityRooms
from model_organisms_registry.rpc.motions import MotionsRooms
from model_organisms_registry.rpc.organisms import OrganismsRooms
from model_organisms_registry.rpc.recall import RecallRooms
from model_organisms_registry.rpc.sandbox import SandboxRooms
from model_organisms_registry.rpc.turns import Turns
from model_organisms_registry.storage.bundles import Bundles, Uploads
from model_organisms_registry.storage.contents import Contents
from model_organisms_registry.storage.copies import Copies
from model_organisms_registry.storage.sealed import SealedStore
from model_organisms_registry.workflows.access import Access
from model_organisms_registry.workflows.acts import two_people
from model_organisms_registry.workflows.appointing import Appointing
from model_organisms_registry.workflows.audit import Audit
from model_organisms_registry.workflows.changes import Changes, seq
from model_organisms_registry.workflows.clockwork import Clockwork
from model_organisms_registry.workflows.destruction import Destruction
from model_organisms_registry.workflows.drawing import Draw
from model_organisms_registry.workflows.explaining import Explaining
from model_organisms_registry.workflows.games import Games
from model_organisms_registry.workflows.glovebox import Gloveboxes
from model_organisms_registry.workflows.grants import Grants
from model_organisms_registry.workflows.holding import Holdings
from model_organisms_registry.workflows.identity import Identity
from model_organisms_registry.workflows.motions import Motions
from model_organisms_registry.workflows.notifying import Notifier, Outbox
from model_organisms_registry.workflows.oidc import Oidc
from model_organisms_registry.workflows.organisms import Organisms
from model_organisms_registry.workflows.policies import Policies, begin
from model_organisms_registry.workflows.publishing import Publishing
from model_organisms_registry.workflows.pulling import Pulling
from model_organisms_registry.workflows.recall import Recall
from model_organisms_registry.workflows.repeating import Repeating
from model_organisms_registry.workflows.replicas import Replicas
from model_organisms_registry.workflows.rerunning import Rerunning
from model_organisms_registry.workflows.sampling import Sampling
from model_organisms_registry.workflows.sandbox import Sandbox
from model_organisms_registry.workflows.shares import Shares, many_cells, many_pulls, many_views
from model_organisms_registry.workflows.standing import Standing
from model_organisms_registry.workflows.watching import Watching

if TYPE_CHECKING:
    import grpc

    from model_organisms_registry.config import Config
    from model_organisms_registry.domain.permits import Call
    from model_organisms_registry.rpc.door import Arrival

_LOG = logging.getLogger(__name__)
_DRAIN_S = 30.0
_PORCH_LONGEST_S, _PORCH_SILENCE_S, _PORCH_EACH = 30.0, 5.0, 8
"""The enrolment door is for one short call: its longest deadline and silence, in seconds, and calls at once from one address."""
_VIEWS_EACH = 4
"""Sessions that one reviewer may watch at once; each takes a thread."""
VERSION = "0.1.0"


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
        receivers = hooks.opened(config.notify, config.folder)
        self.storage = Storage.open(config, apart=True)
        limits = config.limits
        self.storage.log.start()
        self.notifier = Notifier(self.storage.database, receivers, self._clock)
        outbox = Outbox(receivers)
        self.changes = Changes(self.storage.database, self.storage.log, wait_s=limits.ledger_wait_s, outbox=outbox)
        self._bases = {name: Path(folder) for name, folder in config.cells.base_models.items()}
        self.pool = build(config.cells)
        policies = begin(self.changes, config.policies_folder, self._clock())
        self.gate = Gate(policies, record_denial=self.changes.record_denial, conditions=self._conditions)
        self.policies = Policies(self.changes, self.gate, config.policies_folder)
        self._servers = self._build()
        self.public = public_site(self.storage.blobs, config.public)
        self.clockwork = Clockwork(
            self._clock,
            self.replicas.end_due,
            self.sandbox.end_due,
            self.gloveboxes.end_due,
            self.publishing.end_due,
            self.pulling.note_sent,
            self.destruction.end_due,
            self.policies.follow,
            self.access.end_due,
            self._end_silent,
        )

    def start(self) -> None:
        """Open the doors."""
        facts = {"version": VERSION, "policies": self.gate.digest}
        now = self._clock()
        self.changes.enter(entry(Event.REGISTRY_START, None, time=now, seq=seq(), subject="registry", facts=facts))
        self.replicas.begin(now)
        self.destruction.recover(now)
        self.publishing.recover()
        self.publishing.end_due(now)
        self.clockwork.start()
        self.reruns.start()
        self.notifier.start()
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
        self.reruns.stop()
        self.notifier.stop()
        now = self._clock()
        self.sandbox.stop(now)
        self.replicas.stop()
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
        sealed = SealedStore(storage.blobs, storage.keys)
        bundles, uploads, contents = Bundles(sealed), Uploads(sealed), Contents(sealed)
        self.contents = contents
        self.sandbox = sandbox = Sandbox(
            self.changes,
            self.gate,
            bundles,
            contents=contents,
            pool=self.pool,
            table=table,
            idle=timedelta(seconds=limits.session_idle_s),
            bases=self._bases,
            each=config.cells.share,
            replica=config.replica.name,
        )
        self.replicas = Replicas(self.changes, config.replica, lose=sandbox.lose, asking=lambda: sandbox.living.asking)
        identity = self._identity(contents)
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
            replica=config.replica.name,
        )
        self.gloveboxes = Gloveboxes(self.changes, self.gate, contents, sandbox=sandbox, table=table)
        self.destruction = Destruction(self.changes, self.gate, bundles)
        self.holdings = Holdings(self.changes, self.gate, grace=timedelta(days=limits.destruction_days))
        games = Games(self.changes, self.gate, table)
        acts = two_people(organisms, self.destruction, Appointing(self.gate, identity.ticket), self.policies, games)
        motions = Motions(self.changes, self.gate, origin=config.origin, acts=acts)
        door, porch = self._doors()
        self._standing = standing = Standing(storage.database, self._clock, table)
        self._pulls = pulls = Shares(limits.pulls_each, many_pulls)
        rooms = OrganismsRooms(organisms, self.publishing, self.pulling, recall=recall, standing=standing, pulls=pulls)
        main = [
            door.service(_service(identity_pb2, "IdentityService"), IdentityRooms(identity, self._info())),
            door.service(_service(organisms_pb2, "OrganismsService"), rooms),
            door.service(_service(access_pb2, "AccessService"), self._asking(table, contents)),
            door.service(_service(motions_pb2, "MotionsService"), MotionsRooms(motions)),
            door.service(_service(recall_pb2, "RecallService"), RecallRooms(self.holdings)),
            door.service(GamesRooms.SERVICE, GamesRooms(games)),
            door.service(_service(sandbox_pb2, "SandboxService"), self._sessions(contents)),
            door.service(_service(audit_pb2, "AuditService"), AuditRooms(Audit(storage.log, self.gate))),
        ]
        health = HealthRooms(self._conditions, self.policies, self.reruns)
        enrol = [
            porch.service(_service(identity_pb2, "EnrolmentService"), EnrolmentRooms(identity, self._oidc(), self._info())),
            porch.service(_service(health_pb2, "Health"), health, only=ANSWERED),
        ]
        return [self._listening(main, config.listen, demand=True), self._listening(enrol, config.enrol_listen, demand=False)]

    def _sessions(self, contents: Contents) -> SandboxRooms:
        told = (self.changes, self.gate, contents)
        repeating = Repeating(*told, cells=self.sandbox.cells)
        self.reruns = Rerunning(self.changes, repeating, config=self.config, pool=self.pool, clock=self._clock)
        draw, release_s = Draw(self.config.sandbox.rerun_share), self.config.limits.release_s
        sampling = Sampling(*told, sandbox=self.sandbox, clock=self._clock, release_s=release_s, draw=draw)
        watching = Watching(*told, sandbox=self.sandbox, clock=self._clock)
        cells, views = Shares(self.config.cells.share, many_cells), Shares(_VIEWS_EACH, many_views)
        return SandboxRooms(self.sandbox, sampling, watching, gloveboxes=self.gloveboxes, cells=cells, views=views)

    def _identity(self, contents: Contents) -> Identity:
        return Identity(
            self.changes,
            self.gate,
            self.storage.authority,
            addresses(self.config),
            contents=contents,
            suspended=self.sandbox.user_suspended,
            rekeyed=self.sandbox.keys_replaced,
        )

    def _asking(self, table: HazardTable, contents: Contents) -> AccessRooms:
        self.access = Access(self.changes, self.gate, table, contents=contents, owing=self.holdings.check_owing)
        return AccessRooms(
            self.access,
            Grants(self.changes, self.gate, contents=contents, revoked=self.sandbox.grant_revoked),
            Explaining(self.storage.database, self.gate, table),
            self.policies,
        )

    def _info(self) -> identity_pb2.RegistryInfo:
        return identity_pb2.RegistryInfo(
            origin=self.config.origin,
            ledger_key=self.storage.log.vkey,
            release_key=self.storage.release_key.public_key().public_bytes_raw(),
        )

    def _oidc(self) -> Oidc:
        return Oidc(self.changes, self.storage.authority, Issuers(self.config.oidc, self.config.folder))

    def _listening(self, handlers: list[grpc.GenericRpcHandler[Any, Any]], listen: str, *, demand: bool) -> grpc.Server:
        shown = Shown(self.storage.authority, self.config.hosts, self._clock, demand=demand)
        return port(handlers, listen, shown, self.config.limits)

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


def serve(config: Config) -> None:
    """Run a registry until SIGTERM or SIGINT, then drain and stop; SIGHUP has it look at its policies again."""
    registry = Registry(config)
    ended = Ending()
    signal.signal(signal.SIGHUP, lambda *_: registry.policies.reload())
    registry.start()
    _LOG.info("registry %s listens on %s (enrolment on %s)", config.origin, config.listen, config.enrol_listen)
    ended.wait()
    registry.stop()


def _service(module: Any, name: str) -> Any:  # noqa: ANN401 - a generated module and its descriptor
    return module.DESCRIPTOR.services_by_name[name]
