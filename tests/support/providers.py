"""A real identity provider on loopback (`oidc-provider` from npm), the person who logs in there, and whoever forges its tokens.

    python tests/support/providers.py

sets it up under `.tools/oidc`, once. Its signing keys are made here, so that a test can also sign what the provider never would:
a token that is good in all but one thing.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from model_organisms.client import keys
from model_organisms.client.channel import enrol_with_token
from model_organisms_registry.config import AccountRule, Issuer
from model_organisms_registry.founding import public_ticket
from model_organisms_registry.testing import running, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from model_organisms.client.oidc import Prompt
    from model_organisms_registry.testing import World

HERE = Path(__file__).resolve().parent / "oidc"
TOOLS = HERE.parents[2] / ".tools" / "oidc"
AUDIENCE = "https://registry.test"
"""What services ask their tokens for."""
CLIENT, OTHER, ROBOT = "model-organisms", "another-client", "robot"
SECRET = "not a secret at all"
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class IdentityProvider:
    """A running provider and its private keys."""

    issuer: str
    keys: dict[str, Any]
    """By algorithm."""

    def account(self, sub: str, **claims: object) -> dict[str, object]:
        """Claims of a person."""
        return {"sub": sub, "preferred_username": sub, "name": sub.title(), "groups": ["detection"]} | claims

    def approve(self, prompt: Prompt, account: dict[str, object], answer: str = "confirm") -> None:
        """Do what a person does in a browser: open the page, type the code, log in, and say yes (or `abort`)."""
        told = base64.urlsafe_b64encode(json.dumps(account).encode()).decode()
        with httpx2.Client(follow_redirects=True, headers={"x-account": told}) as browser:
            shown = browser.get(prompt.address)
            shown = browser.post(prompt.address, data={"xsrf": _hidden(shown.text), "user_code": prompt.code})
            done = {"xsrf": _hidden(shown.text), "user_code": prompt.code, answer: "yes"}
            assert browser.post(prompt.address, data=done).is_success

    def service_token(self) -> str:
        """A token for a service, got with its own credentials."""
        form = {"grant_type": "client_credentials", "client_id": ROBOT, "client_secret": SECRET}
        answer = httpx2.post(f"{self.issuer}/token", data=form).raise_for_status()
        return answer.json()["access_token"]

    def claims(self, nonce: str, /, **changes: object) -> dict[str, object]:
        """What a good ID token says; a change to None leaves a claim out."""
        now = int(time.time())
        said = self.account("forged") | {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": nonce}
        return {name: value for name, value in (said | changes).items() if value is not None}

    def signed(self, claims: dict[str, object] | bytes, algorithm: str = "ES256", **header: object) -> str:
        """Sign whatever is wanted with the provider's own key."""
        key = self.keys[algorithm]
        told = {"alg": algorithm, "kid": key.kid, "typ": "JWT"} | header
        told = {name: value for name, value in told.items() if value is not None}
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        head, body = encoded(json.dumps(told).encode()), encoded(payload)
        signature = jws.JWSRegistry.algorithms[algorithm].sign(f"{head}.{body}".encode(), key)
        return f"{head}.{body}.{encoded(signature)}"


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _hidden(page: str) -> str:
    found = re.search(r'name="xsrf" value="([^"]+)"', page)
    assert found, page
    return found[1]


def package() -> Path:
    """Set the package up if it is not there yet, and return its entry."""
    lock_file = HERE / "package-lock.json"
    folder = TOOLS / hashlib.sha256(lock_file.read_bytes()).hexdigest()[:16]
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:  # test processes run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, partial)
            quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
            done = subprocess.run(["npm", "ci", *quiet], cwd=partial, capture_output=True, text=True, check=False)
            if done.returncode:
                raise AssertionError(f"npm ci failed; it needs nodejs and npm, and to reach npm's registry:\n{done.stderr}")
            partial.rename(folder)
    return folder / "node_modules/oidc-provider/lib/index.js"


@contextmanager
def providing(folder: Path) -> Iterator[IdentityProvider]:
    """Run a provider while the block runs."""
    keys = {"ES256": ECKey.generate_key("P-256", {"kid": "one"}), "RS256": RSAKey.generate_key(2048, {"kid": "two"})}
    public = {"token_endpoint_auth_method": "none", "response_types": [], "redirect_uris": [], "grant_types": [_DEVICE]}
    service = {"client_secret": SECRET, "token_endpoint_auth_method": "client_secret_post", "grant_types": ["client_credentials"]}
    settings = {
        "keys": [key.as_dict(private=True) | {"use": "sig", "alg": name} for name, key in keys.items()],
        "clients": [
            public | {"client_id": CLIENT, "id_token_signed_response_alg": "ES256"},
            public | {"client_id": OTHER, "id_token_signed_response_alg": "RS256"},
            public | service | {"client_id": ROBOT, "id_token_signed_response_alg": "ES256"},
        ],
        "nonce": CLIENT,
        "audience": AUDIENCE,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    log = folder / "log"
    command = ["setpriv", "--pdeathsig", "KILL", "node", str(HERE / "provider.mjs"), package().as_uri()]
    with (folder / "settings.json").open() as given, log.open("w") as said:
        process = subprocess.Popen(command, cwd=folder, stdin=given, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := re.search(r"^http://127\.0\.0\.1:[1-9][0-9]*$", log.read_text(), re.MULTILINE)):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the identity provider did not start:\n{log.read_text()}", pytrace=False)
            time.sleep(0.05)
        yield IdentityProvider(found.group(), keys)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def identity_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityProvider]:
    """One provider for the whole run."""
    with providing(tmp_path_factory.mktemp("oidc")) as provider:
        yield provider


def trusted(provider: IdentityProvider) -> tuple[Issuer, ...]:
    """How a registry trusts it: people of one client, and services."""
    here = {"issuer": provider.issuer, "insecure_loopback": True}
    rules = (
        AccountRule("groups", "publishing", "nursery-lab", ("researcher", "publisher")),
        AccountRule("groups", "detection", "detection-lab"),
    )
    scopes = ("openid", "profile", "groups")
    return (
        Issuer(
            **here, client_id=CLIENT, algorithms=("ES256",), scopes=scopes, may_give=("researcher", "publisher"), accounts=rules
        ),
        Issuer(
            **here,
            kind="service",
            audience=AUDIENCE,
            algorithms=("ES256",),
            username="sub",
            prefix="service-",
            accounts=(AccountRule("client_id", ROBOT, "detection-lab"),),
        ),
    )


@pytest.fixture(scope="module")
def trusting(identity_provider: IdentityProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A registry that takes people and services from the provider, for a module."""
    folder = tmp_path_factory.mktemp("trusting") / "data"
    with running(settings(folder, oidc=trusted(identity_provider)), people=[("aud", "auditor", "audit-office")]) as world:
        yield world


@pytest.fixture
def show(trusting: World) -> Callable[..., keys.Identity]:
    """Show a token at the enrolment door, under keys of one's own; `make` is given the nonce of those keys."""

    def shown(make: Callable[[str], str]) -> keys.Identity:
        ticket = public_ticket(trusting.registry.config)
        return enrol_with_token(ticket, make, fresh=keys.FreshKeys.generate(), timeout_s=10.0)

    return shown


if __name__ == "__main__":
    print(package())
