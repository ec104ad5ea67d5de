"""How an account begins, stands and is stopped; keys and certificates are made elsewhere, permission is the gate's.

- Nobody is created with more than `describe`: a role says what a person may be asked to do, only a grant gives a rung.
- An account is one person (or one service) of one organisation. Its keys are set by its own enrolment; later their owner
  exchanges them, by the old and the new, or two admins let it enrol once more because they are lost.
- At least one admin stays active.
- Reviewers and admins are made by two admins, as soon as there are two. Whoever stops the other admins is not taken for the only
  one for a week.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

from model_organisms import names
from model_organisms.errors import (
    CertificateRefused,
    Conflict,
    Denied,
    EnrolmentRefused,
    InvalidArgument,
    Suspended,
    Unauthenticated,
)
from model_organisms.formats.dsse import key_id
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
OVERSIGHT = frozenset({Role.REVIEWER, Role.AUDITOR, Role.ADMIN})
"""Who sees everybody's requests, grants, copies and motions, and reads every entry; the policies of oversight say the same."""
APPOINTED = frozenset({Role.REVIEWER, Role.ADMIN})
"""Roles that decide about others."""
ADMIN_COUNTS_ON = timedelta(days=7)
"""How long an admin who was stopped still counts as one: time for the others to see who stopped them."""
ITSELF = "users/registry"
"""The registry, asking the gate of its own accord; policies know it by this name, and no account has it."""
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
    replaces: str = ""
    """Id of the key that it may replace; empty where the account has none."""


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
        InvalidArgument: The name of the registry itself, no role, a service with a person's role, or a display name that is not
            one line of text.
        InvalidName: The name or the organisation is malformed.
    """
    wanted = frozenset(Role(role) for role in roles)
    if not wanted:
        raise InvalidArgument("An account needs at least one role; name researcher, reviewer, publisher, auditor or admin.")
    if name == ITSELF:
        raise InvalidArgument(f"{ITSELF} is the registry itself; choose another name.", field="name")
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


def roles_of(text: str) -> frozenset[Role]:
    """Read the roles that a motion names, such as `admin,reviewer`.

    Raises:
        InvalidArgument: One of them is none.
    """
    named = text.split(",")
    if not set(named) <= {role.value for role in Role}:
        raise InvalidArgument("Roles are named as `reviewer` or `admin,reviewer`, without spaces.", field="roles")
    return frozenset(map(Role, named))


def appointed_alone(user: User, *, admins: int) -> bool:
    """Whether an invitation makes a reviewer or an admin on one admin's word, which is possible while there is one.

    Args:
        user: Who is invited.
        admins: Enrolled admins, those counted in who were stopped less than `ADMIN_COUNTS_ON` ago.

    Raises:
        Denied: There are two, so it takes two.
    """
    if APPOINTED.isdisjoint(user.roles):
        return False
    if admins > 1:
        facts = {"organisation": user.organisation, "roles": ",".join(sorted(user.roles)), "display_name": "NAME"}
        command = " ".join(
            ["mo motions propose appoint", user.name, *(f"--fact {name}={value}" for name, value in facts.items())]
        )
        raise Denied(
            f"It takes two admins to make a reviewer or an admin: `{command}`, and another one seconds it.", user=user.name
        )
    return True


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


def hand_out(user: User, code: str, *, now: datetime, replaces: str = "") -> Invitation:
    """Bind a fresh code to an account; a new code voids the one before.

    Args:
        user: Whose it is.
        code: The code.
        now: The call's time.
        replaces: Id of the lost key that it may replace; empty for an account that waits for its first.

    Raises:
        Conflict: The account has a key, and not the one that is lost.
    """
    if not replaces and user.state is not UserState.INVITED:
        raise Conflict(f"{user.name} is {user.state.value}; only an invited account gets an enrolment code.", user=user.name)
    if replaces and (not user.identity_key or key_id(user.identity_key) != replaces):
        raise Conflict(f"{replaces} is not the key of {user.name}; look at the account, and propose it anew.", user=user.name)
    return Invitation(user.name, code_hash(code), now + ENROLMENT_LIFETIME, replaces)


def enrol(user: User, *, replaces: str, identity_key: bytes, sealing_key: bytes) -> User:
    """Give an account its keys. The caller has proved that they hold the private halves.

    A suspended account stays so: that its key was lost says nothing of why it was stopped.

    Args:
        user: Whose code was used.
        replaces: Id of the key that the code may replace; empty for none.
        identity_key: Ed25519.
        sealing_key: X-Wing.

    Raises:
        EnrolmentRefused: The account has other keys than the code is for.
        InvalidArgument: A key of the wrong length, or the lost one again.
    """
    first, held = user.state is UserState.INVITED, key_id(user.identity_key) if user.identity_key else ""
    if held != replaces or not (first or replaces):
        raise EnrolmentRefused("This ticket is wrong, used or expired; ask an admin for a new one.")
    _check_keys(user, identity_key, sealing_key)
    state = UserState.ACTIVE if first else user.state
    return replace(user, state=state, identity_key=identity_key, sealing_key=sealing_key)


def rotate(user: User, *, identity_key: bytes, sealing_key: bytes) -> User:
    """Give an account new keys in place of the old. The caller has proved that they hold the private halves of all four.

    Raises:
        InvalidArgument: A key of the wrong length, or an old one again.
    """
    _check_keys(user, identity_key, sealing_key)
    return replace(user, identity_key=identity_key, sealing_key=sealing_key)


def _check_keys(user: User, identity_key: bytes, sealing_key: bytes) -> None:
    if len(identity_key) != IDENTITY_KEY_BYTES or len(sealing_key) != SEALING_KEY_BYTES:
        msg = f"Keys are {IDENTITY_KEY_BYTES} bytes (Ed25519) and {SEALING_KEY_BYTES} bytes (X-Wing); run `mo login` again."
        raise InvalidArgument(msg)
    if identity_key == user.identity_key or sealing_key == user.sealing_key:
        raise InvalidArgument("A key of the account is there again; make fresh ones, both of them.")


def enrol_again(user: User, *, identity_key: bytes, sealing_key: bytes) -> User:
    """Let an account in whose owner was proved by their identity provider.

    One that waits for its owner gets its keys. One that has keys keeps them: a provider, or who holds an account there, must not
    come to sign in a person's name. A service's are replaced, as it holds and signs nothing.

    Raises:
        Suspended: It was stopped.
        Conflict: It has other keys.
    """
    if user.state is UserState.INVITED:
        return enrol(user, replaces="", identity_key=identity_key, sealing_key=sealing_key)
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
        raise Suspended("Your account is suspended; ask an admin of this registry.", user=user.name)
    if user.state is not UserState.ACTIVE:
        raise Unauthenticated("This account is not enrolled; run `mo login` with your ticket.")
    return user


def admitted(user: User, *, key: str, denied: bool) -> User:
    """Return an account that may be served to who shows this key and certificate; asked on every call, and while a stream runs.

    Args:
        user: As the account stands now.
        key: Id of the identity key that the certificate names.
        denied: The certificate is on the deny list.

    Raises:
        CertificateRefused: The certificate was denied, or the account has another key by now.
        Suspended: The account was stopped.
    """
    if denied or key_id(user.identity_key) != key:
        msg = (
            "Your certificate was revoked; two admins let you in again (`mo motions propose replace-keys`): run `mo login` with "
            "the ticket that it gives."
        )
        raise CertificateRefused(msg)
    return standing(user)


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
