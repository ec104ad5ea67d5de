"""The device flow against providers that stall, refuse, and lie: it waits as RFC 8628 says, ends, and shows nothing unsafe."""

from __future__ import annotations

import pytest
from model_organisms import errors
from model_organisms.client import oidc

from tests.support.pages import serving
from tests.support.refusals import refused

DISCOVERY = "/.well-known/openid-configuration"
PENDING, SLOW = {"error": "authorization_pending"}, {"error": "slow_down"}
DONE = {"id_token": "a.b.c"}


@pytest.fixture
def pages():
    with serving() as made:
        made.said = {
            DISCOVERY: {
                "issuer": made.address,
                "device_authorization_endpoint": f"{made.address}/device",
                "token_endpoint": f"{made.address}/token",
            },
            "/device": {
                "device_code": "secret",
                "user_code": "ABCD-EFGH",
                "verification_uri": f"{made.address}/go",
                "expires_in": 60,
                "interval": 2,
            },
            "/token": DONE,
        }
        yield made


@pytest.fixture
def sign_in(pages):
    """Run the flow; what was shown, and how long was waited, is kept beside the answer."""

    def run(issuer=None):
        run.shown, run.waited = [], []
        provider = oidc.Provider(issuer or pages.address, "model-organisms", ("openid", "profile"))
        return oidc.sign_in(provider, "n" * 43, tell=run.shown.append, pause=run.waited.append)

    return run


def refusing(pages, said, status=400):
    """Answers of the token endpoint, whose last is a success or is repeated."""
    pages.said["/token"] = list(said)
    pages.status["/token"] = (status, "")


def test_the_person_is_shown_where_to_go_and_the_token_comes_back(pages, sign_in):
    assert sign_in() == "a.b.c"
    assert sign_in.shown == [oidc.Prompt(f"{pages.address}/go", "ABCD-EFGH", "")]
    assert sign_in.waited == []
    assert pages.asked == [DISCOVERY, "/device", "/token"]


def test_the_whole_address_is_shown_where_there_is_one(pages, sign_in, capsys):
    pages.said["/device"]["verification_uri_complete"] = f"{pages.address}/go?user_code=ABCD-EFGH"
    sign_in()
    oidc.show(*sign_in.shown)
    assert f"{pages.address}/go?user_code=ABCD-EFGH" in capsys.readouterr().err


def test_waiting_keeps_the_providers_pace_and_slows_down_when_told(pages, sign_in):
    refusing(pages, [PENDING, SLOW, PENDING, SLOW, {"error": "access_denied"}])
    with refused(errors.EnrolmentRefused, "refused at the provider"):
        sign_in()
    assert sign_in.waited == [2, 7, 7, 12]


@pytest.mark.parametrize("said", [{}, {"interval": "soon"}, {"interval": -1}, {"interval": True}, {"interval": 10**9}])
def test_without_a_sensible_pace_it_is_five_seconds(pages, sign_in, said):
    del pages.said["/device"]["interval"]
    pages.said["/device"] |= said
    refusing(pages, [PENDING, {"error": "expired_token"}])
    with refused(errors.EnrolmentRefused, "in time"):
        sign_in()
    assert sign_in.waited == [5]


def test_nobody_is_waited_for_longer_than_the_code_lives(pages, sign_in):
    refusing(pages, [PENDING])
    with refused(errors.EnrolmentRefused, "in time"):
        sign_in()
    assert sum(sign_in.waited) == 60


@pytest.mark.parametrize("said", [b"<html>gone</html>", b"", b'{"id_token": "a", "id_token": "b"}', b"x" * (300 << 10)])
def test_a_provider_that_stops_making_sense_is_asked_less_often_and_given_up(pages, sign_in, said):
    refusing(pages, [said], status=500)
    with refused(errors.Unavailable, "provider"):
        sign_in()
    assert sign_in.waited == [7, 12, 17, 22]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"error": "invalid_client"}, "invalid_client"),
        ({"error": "\x1b[2Jowned"}, "no reason"),
        ({"error": ["access_denied"]}, "no reason"),
        ({}, "no reason"),
    ],
)
@pytest.mark.parametrize("path", ["/device", "/token"])
def test_what_a_provider_says_no_with_is_told_plainly(pages, sign_in, path, said, shown):
    pages.said[path], pages.status[path] = said, (401, "")
    with refused(errors.EnrolmentRefused, shown):
        sign_in()


@pytest.mark.parametrize("token", [None, 7, ["a.b.c"]])
def test_an_answer_without_an_id_token_is_none(pages, sign_in, token):
    pages.said["/token"] = {"access_token": "x", "id_token": token}
    with refused(errors.EnrolmentRefused, "no ID token"):
        sign_in()


LIES = {
    "another issuer": (DISCOVERY, "issuer", "https://login.example.org"),
    "no issuer": (DISCOVERY, "issuer", None),
    "no device flow": (DISCOVERY, "device_authorization_endpoint", None),
    "device flow on a plain page": (DISCOVERY, "device_authorization_endpoint", "http://login.example.org/device"),
    "tokens from a file": (DISCOVERY, "token_endpoint", "file:///etc/passwd"),
    "tokens beyond loopback": (DISCOVERY, "token_endpoint", "http://127.0.0.1.example.org/"),
    "a page that runs": ("/device", "verification_uri", "javascript:alert(1)"),
    "a page that draws": ("/device", "verification_uri", "https://login.example.org/\x1b[2J"),
    "a page of two lines": ("/device", "verification_uri", "https://login.example.org/\nrun this"),
    "an endless page": ("/device", "verification_uri", "https://login.example.org/" + "x" * 1000),
    "a whole page that is none": ("/device", "verification_uri_complete", 7),
    "a code that draws": ("/device", "user_code", "\x1b]0;owned\x07"),
    "a code of look-alikes": ("/device", "user_code", "\u202eABCD"),
    "an endless code": ("/device", "user_code", "A" * 65),
    "no code": ("/device", "user_code", None),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_provider_that_lies_is_neither_believed_nor_shown(pages, sign_in, lie):
    path, name, value = LIES[lie]
    pages.said[path][name] = value
    with refused(errors.Unavailable, "registry's admins"):
        sign_in()
    assert sign_in.shown == [] or name == "token_endpoint"


@pytest.mark.parametrize("path", [DISCOVERY, "/device", "/token"])
def test_redirects_are_not_followed(pages, sign_in, path):
    pages.status[path] = (307, f"{pages.address}/elsewhere")
    with pytest.raises((errors.Unavailable, errors.EnrolmentRefused)):
        sign_in()
    assert "/elsewhere" not in pages.asked


def test_an_issuer_on_a_plain_page_is_not_asked(sign_in):
    with refused(errors.Unavailable, "no safe address"):
        sign_in("http://login.example.org")


def test_a_provider_that_is_not_there(sign_in):
    with refused(errors.Unavailable, "cannot be reached"):
        sign_in("http://127.0.0.1:9")
