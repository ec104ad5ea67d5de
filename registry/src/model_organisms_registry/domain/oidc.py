"""What a token of an identity provider must say, and which account it gives; whether its signature holds, `issuers.py` tells.

- Only asymmetric algorithms that the configuration names. A key, or a place of keys, that a token brings along is never used.
- A token is for this registry and for nobody else: one audience, and one client where it names one.
- A person's token carries the nonce of the keys that it enrols, so it is of no use to who steals it on the way.
- The first rule of the configuration that matches decides the account; no match, no account.
- No token makes an admin. A reviewer only where the configuration says twice that it may: in `may_give`, and in the rule.

Sources: OpenID Connect Core 1.0, 3.1.3.7; RFC 8725 (JWT best practices); RFC 9068 (JWT access tokens).
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn

from model_organisms import names
from model_organisms.errors import ConfigurationInvalid, EnrolmentRefused, InvalidName
from model_organisms.formats import strict_json
from model_organisms.records import Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from model_organisms_registry.config import AccountRule, Issuer

ASYMMETRIC = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"})
TOKEN_LIMIT = 8192
"""Characters of a token; the protocol says so too."""
_BRINGS_KEYS = ("jwk", "jku", "x5u", "x5c")
_TYPES = {"person": {"", "jwt"}, "service": {"", "jwt", "at+jwt", "application/at+jwt"}}
_NEVER = frozenset({Role.ADMIN})
_SUBJECT_LIMIT, _SHOWN_LIMIT, _ISSUER_LIMIT, _ID_LIMIT = 255, 200, 300, 63
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::\d{1,5})?(?:/[!-~]*)?")
_HTTPS = re.compile(r"https://[A-Za-z0-9.\-\[\]:]+(?:/[!-~]*)?")


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was read and nothing more: no signature was looked at."""

    text: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Names what was signed: a token in another spelling, or with another valid signature, is the same one."""
        return sha256(self.text.rpartition(".")[0].encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Newcomer:
    """The account that a token gives."""

    name: str
    display_name: str
    organisation: str
    roles: frozenset[Role]


def checked(issuers: Sequence[Issuer]) -> tuple[Issuer, ...]:
    """Return the configured issuers if they make sense.

    Raises:
        ConfigurationInvalid: One does not; the message names the key.
    """
    for issuer in issuers:
        _check_issuer(issuer)
    for what in (audience, lambda issuer: issuer.kind):
        kept = [(issuer.issuer, what(issuer)) for issuer in issuers]
        if twice := next((pair for pair in kept if kept.count(pair) > 1), None):
            msg = f"[[oidc]] of registry.toml names issuer '{twice[0]}' twice for '{twice[1]}'; leave one of the two."
            raise ConfigurationInvalid(msg)
    return tuple(issuers)


def _check_issuer(issuer: Issuer) -> None:
    """Steps: 1. where it is, 2. what it signs with and for whom, 3. what it may give."""
    place = f"[[oidc]] of registry.toml, issuer '{issuer.issuer}'"
    if len(issuer.issuer) > _ISSUER_LIMIT or not fetchable(issuer.issuer, issuer):
        raise ConfigurationInvalid(f"{place}: an issuer is an https URL; http only on loopback, with `insecure_loopback = true`.")
    if issuer.kind not in _TYPES:
        raise ConfigurationInvalid(f"{place}: `kind` is 'person' or 'service', not '{issuer.kind}'.")
    if not issuer.algorithms or not ASYMMETRIC.issuperset(issuer.algorithms):
        raise ConfigurationInvalid(f"{place}: `algorithms` names some of {', '.join(sorted(ASYMMETRIC))}, and nothing else.")
    if issuer.kind == "person" and not (issuer.client_id and "openid" in issuer.scopes):
        raise ConfigurationInvalid(f"{place}: people need a `client_id`, and 'openid' among the `scopes`.")
    if not audience(issuer):
        raise ConfigurationInvalid(f"{place}: tokens of services need an `audience` that is this registry's own.")
    if not issuer.accounts:
        raise ConfigurationInvalid(f"{place}: without an [[oidc.accounts]] it gives nobody an account; write one, or remove it.")
    limits = (issuer.clock_skew_s, issuer.token_age_s, issuer.timeout_s)
    if min(limits) < 0 or issuer.clock_skew_s > 300 or issuer.timeout_s > 10:  # noqa: PLR2004 - enrolling has 30 s in all
        raise ConfigurationInvalid(f"{place}: `clock_skew_s` is at most 300, `timeout_s` at most 10, and none is negative.")
    for rule in issuer.accounts:
        _check_rule(rule, issuer, f"{place}, [[oidc.accounts]]")


def _check_rule(rule: AccountRule, issuer: Issuer, place: str) -> None:
    try:
        names.check("organisation", f"organisations/{rule.organisation}")
    except InvalidName as error:
        raise ConfigurationInvalid(f"{place}: {error.message}") from error
    if not rule.claim or not rule.value:
        raise ConfigurationInvalid(f"{place}: name a `claim`, and the `value` that it must have.")
    _roles(rule.roles, issuer, place)


def _roles(given: Iterable[str], issuer: Issuer, place: str) -> frozenset[Role]:
    """Roles of a rule: what the issuer may give, never admin, and for a service exactly that."""
    alone = Role.SERVICE if issuer.kind == "service" else Role.RESEARCHER
    try:
        wanted = frozenset(Role(role) for role in given) or frozenset({alone})
        allowed = frozenset({Role.SERVICE}) if alone is Role.SERVICE else frozenset(map(Role, issuer.may_give)) - {Role.SERVICE}
    except ValueError as error:
        raise ConfigurationInvalid(f"{place}: {error}; name researcher, publisher, auditor or reviewer.") from error
    if not wanted <= allowed - _NEVER:
        raise ConfigurationInvalid(
            f"{place}: a rule may give only what `may_give` names ({', '.join(sorted(allowed - _NEVER))})."
        )
    return wanted


def audience(issuer: Issuer) -> str:
    """Whom tokens of this issuer must be for."""
    return issuer.audience or issuer.client_id


def fetchable(url: str, issuer: Issuer) -> bool:
    """Whether something may be fetched from there: HTTPS, or loopback where the configuration says so."""
    return bool(_HTTPS.fullmatch(url) or (issuer.insecure_loopback and _LOOPBACK.fullmatch(url)))


def read(text: str) -> Token:
    """Read a compact JWS strictly (RFC 7515, 7.1): three parts of canonical base64url, JSON without duplicates.

    Raises:
        EnrolmentRefused: It is none.
    """
    parts = text.split(".")
    if len(text) > TOKEN_LIMIT or len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        refuse("form", "This is no signed token of at most 8,192 characters in three parts")
    header, claims, signature = (_decoded(part) for part in parts)
    if not signature:
        refuse("signature", "The token is not signed")
    return Token(text, _object(header, "The token's header"), _object(claims, "The token's payload"))


def _decoded(part: str) -> bytes:
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except ValueError:
        refuse("form", "A part of the token is not base64url")
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != part:
        refuse("form", "A part of the token is not base64url in its one spelling")
    return data


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = strict_json.parse(data, what=what, limit=TOKEN_LIMIT, error=EnrolmentRefused)
    except EnrolmentRefused:
        refuse("form", f"{what} is no plain JSON")
    if not isinstance(value, dict):
        refuse("form", f"{what} is no JSON object")
    return value


def issuer_of(token: Token, issuers: Iterable[Issuer]) -> Issuer:
    """Find whose token it claims to be and check its header, so that no key is fetched for a token that cannot be good.

    Raises:
        EnrolmentRefused: No configured issuer, another audience, or a header that is not to be trusted.
    """
    its = [issuer for issuer in issuers if issuer.issuer == token.claims.get("iss")]
    if not its:
        refuse("iss", "The token is of an issuer that this registry does not trust")
    found = next((issuer for issuer in its if _audiences(token.claims) == [audience(issuer)]), None)
    if found is None:
        refuse("aud", "The token is not for this registry, or not for it alone")
    _check_header(token.header, found)
    return found


def _audiences(claims: Mapping[str, Any]) -> list[Any]:
    said = claims.get("aud")
    return said if isinstance(said, list) else [said]


def _check_header(header: Mapping[str, Any], issuer: Issuer) -> None:
    if header.get("alg") not in issuer.algorithms:
        refuse("alg", f"The token must be signed with {' or '.join(issuer.algorithms)}")
    if "crit" in header or "b64" in header:
        refuse("crit", "The token demands an extension that this registry does not have")
    if brought := [name for name in _BRINGS_KEYS if name in header]:
        refuse("key", f"The token brings its own key ('{brought[0]}'); keys come from the issuer alone")
    if not isinstance(header.get("kid", ""), str):
        refuse("kid", "The token names its key by something that is no text")
    said = header.get("typ", "")
    if not isinstance(said, str) or said.lower() not in _TYPES[issuer.kind]:
        refuse("typ", f"This is another kind of token than the one a {issuer.kind} shows")


def check(token: Token, issuer: Issuer, *, nonce: str, now: datetime) -> None:
    """Check the claims of a token whose signature was verified.

    1. It is somebody's. 2. It is now. 3. It was given to our client. 4. It is bound to the keys that came with it.

    Args:
        token: The token.
        issuer: What `issuer_of` found.
        nonce: That of the keys that came with it (`formats/enrolment.py`).
        now: The time of the call.

    Raises:
        EnrolmentRefused: A claim is missing or wrong.
    """
    claims = token.claims
    subject = claims.get("sub")
    if (
        not isinstance(subject, str)
        or not 0 < len(subject) <= _SUBJECT_LIMIT
        or not (subject.isascii() and subject.isprintable())
    ):
        refuse("sub", "The token names no subject of 1 to 255 printable ASCII characters")
    _check_times(claims, issuer, now)
    if issuer.client_id and claims.get("azp", issuer.client_id) != issuer.client_id:
        refuse("azp", "The token was given to another client")
    said = claims.get("nonce")
    if said != nonce and (said is not None or (issuer.kind == "person" and issuer.require_nonce)):
        refuse("nonce", "The token is not bound to the keys that came with it")


def _check_times(claims: Mapping[str, Any], issuer: Issuer, now: datetime) -> None:
    skew, stamp = issuer.clock_skew_s, now.timestamp()
    expires, issued = (_seconds(claims, name) for name in ("exp", "iat"))
    begins = _seconds(claims, "nbf") if "nbf" in claims else issued
    if stamp >= expires + skew:
        refuse("exp", "The token has expired")
    if max(begins, issued) > stamp + skew:
        refuse("nbf", "The token is not valid yet by this registry's clock")
    if stamp > issued + issuer.token_age_s + skew:
        refuse("iat", f"The token is older than {issuer.token_age_s:.0f} s")


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if not strict_json.safe_number(value):
        refuse(name, f"The token says nothing usable for '{name}'")
    return float(value)  # type: ignore[arg-type] # a number


def remembered_until(issuer: Issuer, now: datetime) -> datetime:
    """Until when a used token is remembered: past the moment at which its age refuses it anyway."""
    return now.astimezone(UTC) + timedelta(seconds=issuer.token_age_s + 2 * issuer.clock_skew_s + 60)


def newcomer(token: Token, issuer: Issuer) -> Newcomer:
    """Tell which account a verified token gives: the first rule that one of its claims meets.

    Raises:
        EnrolmentRefused: No rule does, or the token says nothing that makes a name.
    """
    rule = next((rule for rule in issuer.accounts if _meets(token.claims, rule)), None)
    if rule is None:
        refuse("account", "This registry gives no account for what your provider says of you")
    name, shown = _name(token.claims.get(issuer.username), issuer), token.claims.get("name")
    fit = isinstance(shown, str) and 0 < len(shown.strip()) <= _SHOWN_LIMIT and shown.isprintable()
    return Newcomer(
        name=name,
        display_name=str(shown).strip() if fit else names.short(name),
        organisation=f"organisations/{rule.organisation}",
        roles=_roles(rule.roles, issuer, issuer.issuer),
    )


def _meets(claims: Mapping[str, Any], rule: AccountRule) -> bool:
    said = claims.get(rule.claim)
    return rule.value in (said if isinstance(said, list) else [said])


def _name(said: object, issuer: Issuer) -> str:
    if not isinstance(said, str) or not said.isascii():
        refuse("username", f"The token says nothing for '{issuer.username}' that makes a user name")
    plain = re.sub(r"[^a-z0-9]+", "-", f"{issuer.prefix}{said}".lower()).strip("-")
    if not plain or len(plain) > _ID_LIMIT:
        refuse("username", f"The token's '{issuer.username}' makes no user name of 1 to {_ID_LIMIT} characters")
    return names.user(plain)


def refuse(check: str, why: str) -> NoReturn:
    """Refuse a token.

    Args:
        check: Which check it failed, for programs.
        why: The same in words, without an end.

    Raises:
        EnrolmentRefused: Always.
    """
    raise EnrolmentRefused(f"{why}; log in again, or ask an admin of this registry.", check=check)
