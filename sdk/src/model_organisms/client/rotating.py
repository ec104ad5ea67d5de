"""Exchanging one's identity and sealing keys, so that no crash leaves a person without the keys that the registry knows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from model_organisms import wire
from model_organisms.client import keys
from model_organisms.client.channel import readmit
from model_organisms.errors import DeadlineExceeded, ModelOrganismsError, Unauthenticated, Unavailable
from model_organisms.formats.dsse import key_id
from model_organisms.formats.enrolment import rotation_statement
from model_organisms.v1 import identity_pb2, identity_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

    from model_organisms.client.audit import Audit
    from model_organisms.client.channel import Channel


def pending(path: Path) -> Path:
    """Where new keys lie until the registry has surely taken them."""
    return path.with_name(f"{path.name}.next")


def resume(path: Path, identity: keys.Identity, *, timeout_s: float) -> keys.Identity | None:
    """Finish an exchange whose answer was lost: ask by the new keys, which the registry knows or does not.

    Args:
        path: The identity file.
        identity: What it holds.
        timeout_s: Deadline of the call, in seconds.

    Returns:
        The identity with the new keys, written; None where there was nothing to finish.
    """
    waiting = pending(path)
    if not waiting.exists():
        return None
    fresh = keys.read(waiting, lock=identity.lock)
    try:
        fresh = readmit(fresh, timeout_s=timeout_s)
    except Unauthenticated:
        waiting.unlink()  # it never got there
        return None
    return _adopt(fresh, path)


def rotate(channel: Channel, audit: Audit, path: Path) -> keys.Identity:
    """Exchange the keys of a connection's person; the connection is of no more use then.

    1. New keys are made, and written beside the old ones.
    2. The old identity key and the new one sign the exchange, and the registry makes it.
    3. The new keys take the place of the old. A crash before leaves both, and `resume` finds out which are good.

    Args:
        channel: The connection.
        audit: Checks the receipt.
        path: The identity file.

    Returns:
        The identity with the new keys, written.

    Raises:
        ModelOrganismsError: The registry refused, and the old keys are good still; or it did not answer, and `resume` must ask.
    """
    old, fresh = channel.identity, keys.FreshKeys.generate()
    request, public = keys.certificate_request(fresh.tls), keys.public_bytes(fresh.signer)
    statement = rotation_statement(old.user, keys.public_bytes(old.signer), public, fresh.sealing_key, request)
    new = replace(
        old,
        tls_key=fresh.tls_pem,
        identity_seed=fresh.signer.private_bytes_raw(),
        sealing_seed=fresh.sealing_seed,
        sealing_key=fresh.sealing_key,
    )
    keys.write(new, pending(path))
    message = identity_pb2.RotateKeysRequest(
        certificate_request=request,
        identity_key=public,
        sealing_key=fresh.sealing_key,
        old_proof=old.signer.sign(statement),
        new_proof=fresh.signer.sign(statement),
    )
    try:
        response = channel.call(identity_pb2_grpc.IdentityServiceStub(channel.grpc_channel).RotateKeys, message)
    except (Unavailable, DeadlineExceeded):
        raise  # nobody knows whether it was done
    except ModelOrganismsError:
        pending(path).unlink()
        raise
    said = {"identity_key": key_id(public), "sealing_key": key_id(fresh.sealing_key), "replaces": old.key_id}
    new = keys.renewed(new, response.certificate, wire.time(response.expire_time), fresh.tls_pem)
    _adopt(new, path)
    audit.verified(response.receipt, "identity.rotate", old.user, **said)
    return new


def _adopt(identity: keys.Identity, path: Path) -> keys.Identity:
    keys.write(identity, path)
    pending(path).unlink(missing_ok=True)
    return identity
