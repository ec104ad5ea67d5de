"""What a registry asks of a keeper to open a session, and what it hears back: plain values, and their printer and parser."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from model_organisms.cells.frames import CellInfo
from model_organisms.errors import InvalidArgument
from model_organisms.records import Level, Role, User, UserState

from model_organisms_registry.domain.permits import Call, Permit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model_organisms_registry.isolation.placement import Tenant


@dataclass(frozen=True, slots=True)
class Opening:
    """A session to open."""

    permit: Permit
    """The gate's, as the registry that was asked holds it; a keeper believes it because only that registry can seal it."""
    level: Level
    version_digest: str
    size: int
    """Bytes of the packed bundle."""
    known_answer: Mapping[str, object] | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """The place that a session got."""

    walls: tuple[str, ...]
    missing: tuple[str, ...]
    alone: bool
    info: CellInfo

    @classmethod
    def of(cls, tenant: Tenant) -> Opened:
        """Say what a tenant has."""
        return cls(tenant.walls, tenant.missing, tenant.alone, tenant.info)


def print_opening(opening: Opening) -> bytes:
    """Print a question."""
    call, user = opening.permit.call, opening.permit.call.user
    who = {
        "name": user.name,
        "display_name": user.display_name,
        "organisation": user.organisation,
        "roles": sorted(user.roles),
        "state": user.state,
        "create_time": user.create_time.isoformat(),
    }
    asked = {
        "user": who,
        "key_id": call.key_id,
        "time": call.time.isoformat(),
        "deadline": call.deadline.isoformat(),
        "method": call.method,
    }
    permit = {
        "call": asked,
        "action": opening.permit.action,
        "resource": opening.permit.resource,
        "policies": opening.permit.policies,
        "reasons": opening.permit.reasons,
        "grant": opening.permit.grant,
    }
    told = {
        "permit": permit,
        "level": opening.level.name,
        "version_digest": opening.version_digest,
        "size": opening.size,
        "known_answer": opening.known_answer,
        "alone": opening.alone,
    }
    return json.dumps(told).encode()


def parse_opening(printed: bytes) -> Opening:
    """Parse what `print_opening` printed.

    Raises:
        InvalidArgument: It is something else: registry and keeper are of different versions.
    """
    try:
        told: dict[str, Any] = json.loads(printed)
        permit = told.pop("permit")
        call = permit.pop("call")
        user = call.pop("user")
        who = User(
            **user
            | {
                "roles": frozenset(map(Role, user["roles"])),
                "state": UserState(user["state"]),
                "create_time": datetime.fromisoformat(user["create_time"]),
            }
        )
        times = {name: datetime.fromisoformat(call[name]) for name in ("time", "deadline")}
        held = Permit(Call(**call | times | {"user": who}), **permit | {"reasons": tuple(permit["reasons"])})
        return Opening(held, **told | {"level": Level[told["level"]]})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _strange() from error


def print_opened(opened: Opened) -> bytes:
    """Print an answer."""
    return json.dumps(asdict(opened)).encode()


def parse_opened(printed: bytes) -> Opened:
    """Parse what `print_opened` printed.

    Raises:
        InvalidArgument: It is something else: registry and keeper are of different versions.
    """
    try:
        told: dict[str, Any] = json.loads(printed)
        info: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told["info"].items()}
        return Opened(tuple(told["walls"]), tuple(told["missing"]), told["alone"], CellInfo(**info))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _strange() from error


def _strange() -> InvalidArgument:
    return InvalidArgument(
        "Registry and cluster speak differently of a session; install the same version of model-organisms-registry on every node."
    )
