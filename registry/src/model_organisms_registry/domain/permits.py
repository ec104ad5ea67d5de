"""A call as the door admits it, and a permit as the gate grants it: values that rooms demand instead of checking again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from model_organisms.errors import Denied

if TYPE_CHECKING:
    from datetime import datetime

    from model_organisms.records import User


class Action(StrEnum):
    """Everything that can be asked of the gate; the names are Cedar's (`policies/schema.cedarschema`)."""

    LIST = "list"
    DESCRIBE = "describe"
    CREATE_ORGANISM = "createOrganism"
    PUBLISH = "publish"
    ATTEST = "attest"
    WITHDRAW_VERSION = "withdrawVersion"
    QUARANTINE_VERSION = "quarantineVersion"
    RELEASE_VERSION = "releaseVersion"
    ADD_ERRATUM = "addErratum"
    VIEW_HOLDERS = "viewHolders"
    SET_LEVEL = "setLevel"
    SET_CONDITIONS = "setConditions"
    REQUEST = "request"
    AMEND_REQUEST = "amendRequest"
    WITHDRAW_REQUEST = "withdrawRequest"
    VIEW_REQUEST = "viewRequest"
    REVIEW = "review"
    VIEW_GRANT = "viewGrant"
    REVOKE_GRANT = "revokeGrant"
    ATTEST_DESTRUCTION = "attestDestruction"
    OPEN_SESSION = "openSession"
    OPEN_LOCAL_SESSION = "openLocalSession"
    SAMPLE = "sample"
    PROBE = "probe"
    VIEW_SESSION = "viewSession"
    WATCH_SESSION = "watchSession"
    CLOSE_SESSION = "closeSession"
    KILL_SESSION = "killSession"
    RERUN = "rerun"
    PULL = "pull"
    READ_LEDGER = "readLedger"
    PROPOSE_MOTION = "proposeMotion"
    SECOND_MOTION = "secondMotion"
    VIEW_MOTION = "viewMotion"
    WITHDRAW_MOTION = "withdrawMotion"
    CREATE_GAME = "createGame"
    VIEW_GAME = "viewGame"
    VIEW_TRUTH = "viewTruth"
    JOIN_GAME = "joinGame"
    GUESS = "guess"
    VIEW_USERS = "viewUsers"
    MANAGE_USERS = "manageUsers"
    DENY_CERTIFICATE = "denyCertificate"


INTO_CELLS = (Action.OPEN_SESSION, Action.RERUN)
"""What gives a version a place in a cell of the registry."""


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted call: who, proved by which key, when, until when.

    Only `rpc/door.py` makes one; it read the clock once, and nobody below asks the time.
    """

    user: User
    key_id: str
    """First 16 hex digits of the SHA-256 of the caller's Ed25519 identity key."""
    time: datetime
    deadline: datetime
    method: str
    certificate_expires: datetime | None = None
    """When the certificate it came with ends."""
    certificate: str = ""
    """Thumbprint of that certificate."""


@dataclass(frozen=True, slots=True)
class Permit:
    """The gate's yes to one action on one resource in one call.

    Only `gate/` makes one. Rooms that hand out bytes, cells or state take it as an argument, so that a forgotten check is a
    type error.
    """

    call: Call
    action: str
    resource: str
    policies: str
    """Digest of the policy set that decided."""
    reasons: tuple[str, ...]
    """Ids of the deciding policies."""
    grant: str = ""

    def demand(self, action: str, resource: str) -> None:
        """Refuse to serve under a permit that was given for something else.

        Raises:
            Denied: It permits another action, or the same on another resource.
        """
        if (self.action, self.resource) != (action, resource):
            msg = f"This permit allows {self.action} on {self.resource}, not {action} on {resource}; ask the gate for that."
            raise Denied(msg, action=action, resource=resource)

    def demand_cell(self) -> None:
        """Refuse a place in a cell under a permit that was given for anything else than that.

        Raises:
            Denied: It permits another action.
        """
        self.demand(self.action if self.action in INTO_CELLS else Action.OPEN_SESSION, self.resource)
