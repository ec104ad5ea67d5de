"""How an account begins, stands and is stopped; keys and certificates are made elsewhere, permission is the gate's.

- Nobody is created with more than `describe`: a role says what a person may be asked to do, only a grant gives a rung.
- An account is one person (or one service) of one organisation, and its keys are set once, by its own enrolment.
- At least one admin stays active.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import Conflict, EnrolmentRefused, InvalidArgument, Suspended, Unauthenticated
from model_organisms.records import Role, Rung, User, UserState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

CERTIFICATE_LIFETIME = timedelta(hours=12)
CERTIFICATE_BACKDATE = timedelta(minutes=5)
"""A certificate begins a little in the past: clocks differ."""
ENROLMENT_LIFETIME = timedelta(hours=72)
CODE_ENTROPY_BYTES = 20
"""Random bytes in an enrolment code. With 160 bits a plain hash needs no salt and no slowness."""

IDENTITY_KEY_BYTES = 32
SEALING_KEY_BYTES = 1216
RUNG_OF_A_ROLE = Rung.DESCRIBE
"""What every role gives, and all it gives."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_NAME_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Invitation:
    """An enrolment code that was handed out; only its hash is kept."""

    user: str
    code_hash: str
    expire_time: datetime


def invite(
    name: str,
    *,
    display_name: str,
    organisation: str,
    roles: Iterable[Role],
    now: datetime,
) -> User:
    """Make an account that waits for its owner.

    Raises:
        InvalidArgument: No role, a service with a person's role, or a display name that is not one line of text.
        InvalidName: The name or the organisation is malformed.
    """
    wanted = frozenset(Role(role) for role in roles)
    if not wanted:
        raise InvalidArgument("An account needs at least one role; name researcher, reviewer, publisher, auditor or admin.")
    if Role.SERVICE in wanted and len(wanted) > 1:
        raise InvalidArgument("A service account has no other role; make a separate account for the person.")
    shown = display_name.strip()
    if not shown or len(shown) > _NAME_LIMIT or not shown.isprintable():
        raise InvalidArgument(f"A display name is one line of 1 to {_NAME_LIMIT} printable characters.", field="display_name")
    return User(
        name=names.check("user", name),
        display_name=shown,
        organisation=names.check("organisation", organisation),
        roles=wanted,
        state=UserState.INVITED,
        create_time=now,
    )


def print_code(entropy: bytes) -> str:
    """Print an enrolment code: 32 characters in groups of four, made to be read aloud."""
    if len(entropy) != CODE_ENTROPY_BYTES:
        raise InvalidArgument(f"An enrolment code is printed from {CODE_ENTROPY_BYTES} random bytes.")
    value = int.from_bytes(entropy, "big")
    letters = "".join(_ALPHABET[(value >> shift) & 31] for shift in range(len(entropy) * 8 - 5, -1, -5))
    return "-".join(letters[start : start + 4] for start in range(0, len(letters), 4))


def code_hash(code: str) -> str:
    """Hash a code as it is stored; hyphens, spaces and case do not count."""
    plain = "".join(code.split()).replace("-", "").lower()
    return sha256(b"model-organisms/enrolment-code/v1\0" + plain.encode("utf-8", "replace")).hexdigest()


def hand_out(user: User, code: str, *, now: datetime) -> Invitation:
    """Bind a fresh code to an invited account; a new code voids the one before.

    Raises:
        Conflict: The account is enrolled already.
    """
    if user.state is not UserState.INVITED:
        raise Conflict(f"{user.name} is {user.state.value}; only an invited account gets an enrolment code.", user=user.name)
    return Invitation(user.name, code_hash(code), now + ENROLMENT_LIFETIME)


def enrol(user: User, *, identity_key: bytes, sealing_key: bytes) -> User:
    """Give an invited account its keys. The caller has proved that they hold the private halves.

    Raises:
        EnrolmentRefused: The account has keys already; they are never replaced under its name.
        InvalidArgument: A key of the wrong length.
    """
    if user.state is not UserState.INVITED or user.identity_key:
        raise EnrolmentRefused("This enrolment code is wrong, used or expired; ask an admin for a new one.")
    if len(identity_key) != IDENTITY_KEY_BYTES or len(sealing_key) != SEALING_KEY_BYTES:
        msg = f"Keys are {IDENTITY_KEY_BYTES} bytes (Ed25519) and {SEALING_KEY_BYTES} bytes (X-Wing); run `mo login` again."
        raise InvalidArgument(msg)
    return replace(user, state=UserState.ACTIVE, identity_key=identity_key, sealing_key=sealing_key)


def enrol_again(user: User, *, identity_key: bytes, sealing_key: bytes) -> User:
    """Let an account in whose owner was proved by their identity provider.

    One that waits for its owner gets its keys. One that has keys keeps them: a provider, or who holds an account there, must not
    come to sign in a person's name. A service's are replaced, as it holds and signs nothing.

    Raises:
        Suspended: It was stopped.
        Conflict: It has other keys.
    """
    if user.state is UserState.INVITED:
        return enrol(user, identity_key=identity_key, sealing_key=sealing_key)
    kept = standing(user)
    if (kept.identity_key, kept.sealing_key) != (identity_key, sealing_key) and kept.roles != {Role.SERVICE}:
        raise Conflict(
            f"{user.name} has keys already, and a token does not replace them; use the identity file that holds them, or "
            "tell the registry's admins that they are lost.",
            user=user.name,
        )
    return replace(kept, identity_key=identity_key, sealing_key=sealing_key)


def standing(user: User) -> User:
    """Return an account that may be served; the door asks this on every call.

    Raises:
        Suspended: It was stopped.
        Unauthenticated: It was never enrolled, so nobody can speak for it.
    """
    if user.state is UserState.SUSPENDED:
        raise Suspended("Your account is suspended; write to the registry's admins.", user=user.name)
    if user.state is not UserState.ACTIVE:
        raise Unauthenticated("This account is not enrolled; run `mo login` with your enrolment code.")
    return user


def certificate_times(now: datetime) -> tuple[datetime, datetime]:
    """When a client certificate issued now begins and ends, in whole seconds as certificates count."""
    return now - CERTIFICATE_BACKDATE, (now + CERTIFICATE_LIFETIME).replace(microsecond=0)


def suspend(user: User, *, by: User, other_active_admins: int) -> User:
    """Stop an account.

    Args:
        user: Whom to stop.
        by: Who asks. Nobody stops themself: a lost key is another admin's to stop.
        other_active_admins: Active admins besides `user`.

    Raises:
        Conflict: It is stopped already, it is the caller's own, or it is the last admin.
    """
    if user.state is UserState.SUSPENDED:
        raise Conflict(f"{user.name} is suspended already.", user=user.name)
    if user.name == by.name:
        raise Conflict("You cannot suspend your own account; ask another admin.", user=user.name)
    if Role.ADMIN in user.roles and other_active_admins < 1:
        raise Conflict(f"{user.name} is the last active admin; make another one first.", user=user.name)
    return replace(user, state=UserState.SUSPENDED)


def reinstate(user: User, *, by: User) -> User:
    """Let a stopped account stand again: active if it has keys, else invited.

    Raises:
        Conflict: It is not stopped, or it is the caller's own.
    """
    if user.state is not UserState.SUSPENDED:
        raise Conflict(f"{user.name} is {user.state.value}, not suspended; there is nothing to undo.", user=user.name)
    if user.name == by.name:
        raise Conflict("You cannot reinstate your own account; ask another admin.", user=user.name)
    return replace(user, state=UserState.ACTIVE if user.identity_key else UserState.INVITED)
