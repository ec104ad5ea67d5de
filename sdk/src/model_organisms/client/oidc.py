"""Logging in at an identity provider by the device flow (RFC 8628): a person opens a page anywhere, and a token comes back here.

The provider is one that the registry named, over the connection that the ticket secures. What it sends is untrusted: addresses
are HTTPS (plain http only where the issuer itself is on loopback), and what is shown to the person is one plain line. Whether
the token is good is the registry's to say; nothing here reads it.
"""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model_organisms.errors import EnrolmentRefused, Unavailable
from model_organisms.formats import strict_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import httpx2

_OK = 200
_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_HTTPS = re.compile(r"https://[!-~]{1,1000}")
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost)(?::\d{1,5})?(?:/[!-~]{0,1000})?")
_CODE = re.compile(r"[ -~]{1,64}")
_TIMEOUT_S = 10.0
_ANSWER_LIMIT = 256 << 10
_INTERVAL_S, _SLOWER_S, _LONGEST_S = 5.0, 5.0, 1800.0
"""RFC 8628, 3.2 and 3.5: the pause where none is given, by how much it grows; and how long anybody is waited for."""
_PATIENCE = 4
"""Times that the provider may not answer."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An identity provider, and what the registry is called there."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the person is asked to do."""

    address: str
    """Page to open, on any device."""
    code: str
    """To be typed there, or compared with what it shows."""
    whole_address: str
    """The same page with the code filled in; empty where the provider offers none."""


def show(prompt: Prompt) -> None:
    """Ask the person on standard error."""
    sys.stderr.write(f"Open {prompt.whole_address or prompt.address}\nand confirm the code {prompt.code}\n")
    sys.stderr.flush()


def choose(providers: Sequence[Provider], issuer: str) -> Provider:
    """Pick the provider of an issuer; without one named, the only one there is.

    Raises:
        EnrolmentRefused: There is none, or several and none was named.
    """
    if not providers:
        raise EnrolmentRefused("This registry takes nobody from an identity provider; ask an admin for a ticket with a code.")
    found = [provider for provider in providers if issuer in {"", provider.issuer}]
    if len(found) != 1:
        known = ", ".join(provider.issuer for provider in providers)
        raise EnrolmentRefused(f"Name one of the issuers that this registry trusts: {known}.")
    return found[0]


def sign_in(
    provider: Provider,
    nonce: str,
    *,
    tell: Callable[[Prompt], None] = show,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Get an ID token.

    1. Discover where the provider's endpoints are. 2. Ask it for a code. 3. Tell the person. 4. Ask until they are done.

    Args:
        provider: Where to.
        nonce: What binds the token to the keys that it will enrol.
        tell: Shown the page and the code.
        pause: Waits so many seconds.

    Returns:
        The ID token, as it came.

    Raises:
        EnrolmentRefused: The person or the provider said no, or took too long.
        Unavailable: The provider cannot be reached, or makes no sense.
    """
    import httpx2  # needed once in a person's life, and slow to import

    with httpx2.Client(timeout=_TIMEOUT_S, follow_redirects=False, headers={"accept": "application/json"}) as http:
        found = _discover(http, provider)
        asked = {"client_id": provider.client_id, "scope": " ".join(provider.scopes), "nonce": nonce}
        status, started = _asked(http, provider, "POST", _place(found, "device_authorization_endpoint", provider), asked)
        if status != _OK:
            raise _said_no(started)
        tell(_prompt(started, provider))
        return _poll(http, provider, _place(found, "token_endpoint", provider), started, pause)


def _discover(http: httpx2.Client, provider: Provider) -> Mapping[str, Any]:
    """OpenID Connect Discovery 1.0, 4; its `issuer` must be the one that was asked (4.3)."""
    address = provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
    status, found = _asked(http, provider, "GET", address, None)
    if status != _OK or found.get("issuer") != provider.issuer:
        raise Unavailable(f"{provider.issuer} does not answer as the identity provider of that name; ask the registry's admins.")
    return found


def _poll(
    http: httpx2.Client, provider: Provider, address: str, started: Mapping[str, Any], pause: Callable[[float], None]
) -> str:
    """RFC 8628, 3.4 and 3.5."""
    form = {"grant_type": _GRANT, "client_id": provider.client_id, "device_code": str(started.get("device_code"))}
    interval, left = _seconds(started.get("interval"), _INTERVAL_S), _seconds(started.get("expires_in"), _LONGEST_S)
    unanswered = 0
    while left > 0:
        try:
            status, answer = _asked(http, provider, "POST", address, form)
        except Unavailable:
            unanswered += 1
            if unanswered > _PATIENCE:
                raise
            status, answer = 0, {"error": "slow_down"}  # 3.5: whoever gets no answer asks less often
        if status == _OK:
            if not isinstance(token := answer.get("id_token"), str):
                raise EnrolmentRefused("The provider gave no ID token; its admins must allow 'openid' to this client.")
            return token
        if answer.get("error") == "slow_down":
            interval += _SLOWER_S
        elif answer.get("error") != "authorization_pending":
            raise _said_no(answer)
        pause(interval)
        left -= interval
    raise EnrolmentRefused("Nobody confirmed the code in time; run `mo login` again.")


def _said_no(answer: Mapping[str, Any]) -> EnrolmentRefused:
    """RFC 8628, 3.5, and RFC 6749, 5.2."""
    said = answer.get("error")
    if said == "access_denied":
        return EnrolmentRefused("The login was refused at the provider; run `mo login` again if that was a mistake.")
    if said == "expired_token":
        return EnrolmentRefused("Nobody confirmed the code in time; run `mo login` again.")
    shown = said if isinstance(said, str) and re.fullmatch(r"[\w.-]{1,60}", said, re.ASCII) else "no reason"
    return EnrolmentRefused(f"The provider refuses this client ({shown}); tell the registry's admins.")


def _prompt(started: Mapping[str, Any], provider: Provider) -> Prompt:
    code = started.get("user_code")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        raise Unavailable("The provider sent a code that cannot be shown; tell the registry's admins.")
    whole = "verification_uri_complete"
    return Prompt(
        _place(started, "verification_uri", provider), code, _place(started, whole, provider) if whole in started else ""
    )


def _place(found: Mapping[str, Any], name: str, provider: Provider) -> str:
    """Read an address that may be called and shown."""
    said = found.get(name)
    known = isinstance(said, str) and (
        _HTTPS.fullmatch(said) or (_LOOPBACK.fullmatch(provider.issuer) and _LOOPBACK.fullmatch(said))
    )
    if not known:
        raise Unavailable(
            f"The provider names no safe address for '{name}'; the registry's admins must allow the device flow there."
        )
    return str(said)


def _seconds(said: object, default: float) -> float:
    sane = isinstance(said, int | float) and not isinstance(said, bool) and 0 < said <= _LONGEST_S
    return float(said) if sane else default  # type: ignore[arg-type] # a number


def _asked(
    http: httpx2.Client, provider: Provider, method: str, address: str, form: Mapping[str, str] | None
) -> tuple[int, Mapping[str, Any]]:
    import httpx2  # as in `sign_in`

    if not (_HTTPS.fullmatch(address) or _LOOPBACK.fullmatch(provider.issuer)):
        raise Unavailable(f"{provider.issuer} is no safe address; ask the registry's admins for an https one.")
    data = bytearray()
    try:
        with http.stream(method, address, data=form) as answer:
            for piece in answer.iter_bytes():
                data += piece
                if len(data) > _ANSWER_LIMIT:
                    raise Unavailable("The identity provider answers with too much; tell the registry's admins.")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable(f"The identity provider {provider.issuer} cannot be reached; try again later.") from error
    value = strict_json.parse(bytes(data), what="The identity provider's answer", limit=_ANSWER_LIMIT, error=Unavailable)
    return answer.status_code, value if isinstance(value, dict) else {}
