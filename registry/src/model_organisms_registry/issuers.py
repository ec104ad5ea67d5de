"""The keys of identity providers, fetched from them alone, and whether they signed a token. What it means: `domain/oidc.py`.

- Keys are found by discovery at the configured issuer: HTTPS without redirects, answers bounded in bytes and in seconds.
- They are kept for ten minutes. A key that is not among them is looked for once more, but not more often than every half a
  minute, so that forged key names cannot make the registry pester the provider.
- A provider that does not answer lets nobody in: there is no old key to fall back to after ten minutes.
"""

from __future__ import annotations

import ssl
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx2
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey, import_key
from model_organisms.errors import ConfigurationInvalid, Unavailable
from model_organisms.formats import strict_json

from model_organisms_registry.domain import oidc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from joserfc.jwk import Key

    from model_organisms_registry.config import Issuer
    from model_organisms_registry.domain.oidc import Token

_DISCOVERY = "/.well-known/openid-configuration"
_ASKED = {"accept": "application/json", "accept-encoding": "identity"}
"""Nothing compressed: a small answer could unpack to a large one."""
_ANSWER_LIMIT = 256 << 10
_KEPT = timedelta(minutes=10)
_AGAIN = timedelta(seconds=30)
_RETRY = timedelta(seconds=5)
_WAIT_S = 2.0
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_RSA_BITS = 2048
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "Ed25519": "Ed25519"}


class _Unanswered(Exception):
    """A provider did not answer, or not as it should."""


@dataclass(slots=True)
class _Keyring:
    """What was fetched from one issuer, when, and when it was last tried."""

    issuer: Issuer
    keys: tuple[Mapping[str, Any], ...] = ()
    fetched: datetime = _LONG_AGO
    tried: datetime = _LONG_AGO
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it alone. Nobody waits long for who fetches: a provider that hangs must not take the door's threads."""
        if not self.lock.acquire(timeout=_WAIT_S):
            raise _unanswered(self.issuer)
        try:
            yield
        finally:
            self.lock.release()


class Issuers:
    """The identity providers of a registry.

    Args:
        issuers: As configured.
        folder: What relative paths in them are relative to.

    Raises:
        ConfigurationInvalid: They make no sense, or an authority's file cannot be read.
    """

    def __init__(self, issuers: Iterable[Issuer], folder: Path) -> None:
        """Check what was configured; nothing is fetched yet."""
        self.all = oidc.checked(tuple(issuers))
        self._rings = {id(issuer): _Keyring(issuer) for issuer in self.all}
        self._trust = {id(issuer): _trust(issuer, folder) for issuer in self.all}

    def verify(self, text: str, *, nonce: str, now: datetime) -> tuple[Token, Issuer]:
        """Verify a token.

        1. It reads, is of a configured issuer for this registry, and its header asks for nothing odd.
        2. A key of that issuer signed it.
        3. Its claims hold.
        The caller does the rest: it is taken once, and gives the account that the rules say.

        Args:
            text: The token.
            nonce: That of the keys that came with it.
            now: The time of the call.

        Raises:
            EnrolmentRefused: It is not good; `check` in the details says at which check.
            Unavailable: The issuer's keys cannot be had now.
        """
        token = oidc.read(text)
        issuer = oidc.issuer_of(token, self.all)
        self._check_signature(token, issuer, now)
        oidc.check(token, issuer, nonce=nonce, now=now)
        return token, issuer

    def _check_signature(self, token: Token, issuer: Issuer, now: datetime) -> None:
        algorithm = token.header["alg"]
        # A fresh registry of one algorithm: whatever else the library can do, it does not do here.
        allowed = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        try:
            key = self._key(issuer, algorithm, token.header.get("kid"), now)
            jws.deserialize_compact(token.text, key, registry=allowed)
        except (JoseError, ValueError):
            oidc.refuse("signature", "The token's signature does not hold")

    def _key(self, issuer: Issuer, algorithm: str, kid: str | None, now: datetime) -> Key:
        ring = self._rings[id(issuer)]
        with ring.held():
            if now - ring.fetched > _KEPT:
                self._fetch(ring, now, _RETRY)
            found = _matching(ring.keys, algorithm, kid)
            if not found and now - ring.tried >= _AGAIN:
                self._fetch(ring, now, _AGAIN)
                found = _matching(ring.keys, algorithm, kid)
        if len(found) != 1:
            oidc.refuse("kid", "The token's key is not one of its issuer")
        return found[0]

    def _fetch(self, ring: _Keyring, now: datetime, pause: timedelta) -> None:
        """Fetch the keys, under the ring's lock."""
        if now - ring.tried < pause:
            raise _unanswered(ring.issuer)
        ring.tried = now
        try:
            ring.keys = self._ask(ring.issuer)
        except (httpx2.HTTPError, httpx2.InvalidURL, _Unanswered) as error:
            raise _unanswered(ring.issuer) from error
        ring.fetched = now

    def _ask(self, issuer: Issuer) -> tuple[Mapping[str, Any], ...]:
        """OpenID Connect Discovery 1.0, 4.2 and 4.3: the document must be of the issuer that was asked."""
        found = self._get(issuer, issuer.issuer.rstrip("/") + _DISCOVERY)
        place = found.get("jwks_uri")
        if found.get("issuer") != issuer.issuer or not isinstance(place, str) or not oidc.fetchable(place, issuer):
            raise _Unanswered
        keys = self._get(issuer, place).get("keys")
        return tuple(key for key in keys if isinstance(key, dict)) if isinstance(keys, list) else ()

    def _get(self, issuer: Issuer, url: str) -> dict[str, Any]:
        until, data = time.monotonic() + issuer.timeout_s, bytearray()
        trust = self._trust[id(issuer)]
        with (
            httpx2.Client(verify=trust, timeout=issuer.timeout_s, trust_env=not issuer.insecure_loopback) as client,
            client.stream("GET", url, headers=_ASKED, follow_redirects=False) as answer,
        ):
            for piece in answer.iter_raw():
                data += piece
                if len(data) > _ANSWER_LIMIT or time.monotonic() > until:
                    raise _Unanswered
            if answer.status_code != httpx2.codes.OK:
                raise _Unanswered
        try:
            value = strict_json.parse(bytes(data), what="The provider's answer", limit=_ANSWER_LIMIT, error=Unavailable)
        except Unavailable as error:
            raise _Unanswered from error
        return value if isinstance(value, dict) else {}


def _unanswered(issuer: Issuer) -> Unavailable:
    msg = "The identity provider's keys cannot be had now; try again in a minute."
    return Unavailable(msg, issuer=issuer.issuer)


def _trust(issuer: Issuer, folder: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=folder / issuer.authority if issuer.authority else None)
    except (OSError, ValueError) as error:
        msg = f"The authority '{issuer.authority}' of issuer '{issuer.issuer}' cannot be read: {error}; name a PEM file."
        raise ConfigurationInvalid(msg) from error


def _matching(keys: Iterable[Mapping[str, Any]], algorithm: str, kid: str | None) -> list[Key]:
    """Keys for this algorithm, by their id where the token names one; without an id a single key must fit."""
    named = [key for key in keys if kid is None or key.get("kid") == kid]
    return [key for data in named if (key := _usable(data, algorithm)) is not None]


def _usable(data: Mapping[str, Any], algorithm: str) -> Key | None:
    if data.get("use", "sig") != "sig" or data.get("alg", algorithm) != algorithm or data.get("kty") not in {"RSA", "EC", "OKP"}:
        return None
    try:
        key = import_key({name: value for name, value in data.items() if name not in {"use", "key_ops", "alg"}})
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, RSAKey):
        return key if algorithm[:2] in {"RS", "PS"} and key.public_key.key_size >= _RSA_BITS else None
    return key if isinstance(key, ECKey | OKPKey) and data.get("crv") == _CURVES.get(algorithm) else None
