"""What a hub sends is believed as far as it can be checked: digests, sizes, commits, patience. The hub here is a real server."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from huggingface_hub import HfApi, hf_hub_download
from model_organisms.errors import ConfigurationInvalid, Denied, DigestMismatch, InvalidBundle, NotFound, Unavailable
from model_organisms.importing import hub as hubs
from model_organisms.importing.source import parse

from tests.support.hub import adapter, serving

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture
def hub(monkeypatch):
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


@pytest.fixture
def files():
    return adapter()


def listed(hub, where="hf://lab/tiny"):
    asked = hubs.Hub(hub.url)
    return asked, asked.listing(parse(where))


def fetched(hub, path, where="hf://lab/tiny"):
    asked, listing = listed(hub, where)
    return bytes(asked.fetch(listing, listing.files[path]))


def test_the_server_of_these_tests_speaks_as_the_library_expects(hub, files, tmp_path):
    commit = hub.repository("lab/tiny", files, card={"license": "mit"})
    api = HfApi(endpoint=hub.url, token=False)
    info = api.model_info("lab/tiny", files_metadata=True)
    assert (info.sha, info.card_data.license) == (commit, "mit")
    assert {item.rfilename: item.size for item in info.siblings} == {path: len(data) for path, data in files.items()}
    tree = {item.path: item for item in api.list_repo_tree("lab/tiny", revision=commit)}
    assert tree[WEIGHTS].lfs.sha256 == next(item.lfs.sha256 for item in info.siblings if item.rfilename == WEIGHTS)
    for path in (WEIGHTS, CONFIG):
        kept = hf_hub_download("lab/tiny", path, revision=commit, endpoint=hub.url, cache_dir=tmp_path, token=False)
        with open(kept, "rb") as file:  # noqa: PTH123 - a text of the library
            assert file.read() == files[path]


def test_files_come_whole_from_the_hub_and_from_the_store_behind_it(hub, files):
    commit = hub.repository("lab/tiny", files)
    asked, listing = listed(hub)
    assert listing.commit == commit
    assert str(listing.source) == f"hf://lab/tiny@{commit}"
    assert {path: bytes(asked.fetch(listing, file)) for path, file in listing.files.items()} == files
    assert all(f"/resolve/{commit}/" in path for path in hub.paths()[1:] if not path.startswith("/lfs/"))


def test_a_branch_that_moves_after_the_list_changes_nothing(hub, files):
    commit = hub.repository("lab/tiny", files)
    hub.after_listing.append(lambda: hub.repositories["lab/tiny"].push(adapter(seed=9)))
    asked, listing = listed(hub, "hf://lab/tiny@main")
    assert hub.repositories["lab/tiny"].branches["main"] != commit
    assert (listing.asked, listing.commit) == ("main", commit)
    assert bytes(asked.fetch(listing, listing.files[WEIGHTS])) == files[WEIGHTS]


def test_a_hub_that_serves_another_commit_is_refused(hub, files):
    hub.repository("lab/tiny", files)
    for path in (WEIGHTS, CONFIG):
        hub.orders[path] = [("says", {"X-Repo-Commit": "f" * 40})]
        with pytest.raises(DigestMismatch, match="another commit"):
            fetched(hub, path)


def test_a_hub_that_lists_one_digest_and_says_another_is_refused_before_a_byte_is_fetched(hub, files):
    hub.repository("lab/tiny", files)
    hub.orders[WEIGHTS] = [("says", {"X-Linked-ETag": f'W/"{"0" * 64}"'})]
    with pytest.raises(DigestMismatch, match="another SHA-256"):
        fetched(hub, WEIGHTS)


@pytest.mark.parametrize("path", [WEIGHTS, CONFIG])
def test_other_bytes_of_the_same_length_are_refused(hub, files, path):
    hub.repository("lab/tiny", files)
    wrong = bytes([files[path][0] ^ 1]) + files[path][1:]
    hub.orders[path] = [("other", wrong)]
    with pytest.raises(DigestMismatch, match="not the file that the hub lists"):
        fetched(hub, path)


def test_more_bytes_than_listed_are_refused(hub, files):
    hub.repository("lab/tiny", files)
    hub.orders[CONFIG] = [("other", files[CONFIG] + b" ")]
    with pytest.raises(DigestMismatch, match="sends more than"):
        fetched(hub, CONFIG)


@pytest.mark.parametrize("kind", ["cut", "short"])
def test_a_body_that_breaks_off_is_asked_for_from_there(hub, files, kind):
    hub.repository("lab/tiny", files)
    hub.orders[WEIGHTS] = [(kind, 1000), (kind, 500)]
    assert fetched(hub, WEIGHTS) == files[WEIGHTS]
    ranges = [headers["range"] for _, path, headers in hub.asked if path.startswith("/lfs/") and "range" in headers]
    assert ranges == ["bytes=1000-", "bytes=1500-"]


def test_a_body_that_always_breaks_off_is_given_up(hub, files, monkeypatch):
    monkeypatch.setattr(hubs, "PATIENCE_S", 1.6)
    hub.repository("lab/tiny", files)
    hub.orders[CONFIG] = [("cut", 0)] * 10
    with pytest.raises(Unavailable, match="cut the answer off"):
        fetched(hub, CONFIG)


def test_a_body_that_drips_is_cut_off_and_asked_for_again(hub, files, monkeypatch):
    monkeypatch.setattr(hubs, "GRACE_S", 0.3)
    hub.repository("lab/tiny", files)
    hub.orders[CONFIG] = [("drip", 0.05)]
    begun = time.monotonic()
    assert fetched(hub, CONFIG) == files[CONFIG]
    assert time.monotonic() - begun < 10
    assert sum("range" in headers for _, path, headers in hub.asked if path.endswith(CONFIG)) == 1


def test_a_busy_hub_is_waited_for_as_long_as_it_asks(hub, files):
    hub.repository("lab/tiny", files)
    hub.orders = {
        "tiny": [(429, {"Retry-After": "1"})],
        WEIGHTS: [(503, {"Retry-After": "0"}), (429, {"RateLimit": '"api";r=0;t=1'})],
    }
    begun = time.monotonic()
    assert fetched(hub, WEIGHTS) == files[WEIGHTS]
    assert 2 <= time.monotonic() - begun < 10


def test_a_date_to_wait_for_is_read_too(hub, files):
    hub.repository("lab/tiny", files)
    hub.orders["tiny"] = [(429, {"Retry-After": format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)})]
    assert fetched(hub, CONFIG) == files[CONFIG]


def test_a_hub_that_stays_busy_is_given_up_after_a_few_tries(hub, files):
    hub.repository("lab/tiny", files)
    hub.orders["tiny"] = [(429, {"Retry-After": "0"})] * 50
    with pytest.raises(Unavailable, match=f"in {hubs.TRIES} tries: it answered 429"):
        listed(hub)
    assert len(hub.asked) == hubs.TRIES


@pytest.mark.parametrize("wait", ["86400", "9" * 300, "Wed, 21 Oct 2999 07:28:00 GMT"])
def test_a_hub_that_asks_for_more_patience_than_there_is_is_not_waited_for(hub, files, wait):
    hub.repository("lab/tiny", files)
    hub.orders["tiny"] = [(429, {"Retry-After": wait})]
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="asks to wait"):
        listed(hub)
    assert time.monotonic() - begun < 5
    assert len(hub.asked) == 1


def test_a_gated_repository_says_what_to_do_and_opens_to_a_token(hub, files, monkeypatch):
    hub.repository("lab/tiny", files, gated=True)
    hub.token = "hf_ours"
    for token in ("", "hf_theirs"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(Denied, match=r"accept its terms .* HF_TOKEN"):
            fetched(hub, CONFIG)
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    assert fetched(hub, WEIGHTS) == files[WEIGHTS]


def test_a_token_goes_to_the_hub_and_not_to_the_store_behind_it(hub, files, monkeypatch):
    hub.repository("lab/tiny", files)
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    assert fetched(hub, WEIGHTS) == files[WEIGHTS]
    carried = {path.split("/")[1]: "authorization" in headers for _, path, headers in hub.asked}
    assert carried == {"api": True, "lab": True, "lfs": False}


def test_a_token_is_never_sent_in_clear(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_ours")
    with pytest.raises(ConfigurationInvalid, match="https only"):
        hubs.Hub("http://hub.example.org")
    assert hubs.Hub("https://hub.example.org").endpoint == "https://hub.example.org"


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("hf://lab/none", "there is none, or it is private"),
        ("hf://lab/secret", "private; check the name, or set HF_TOKEN"),
        ("hf://lab/tiny@v9", "no such branch, tag or commit"),
        (f"hf://lab/tiny@{'e' * 40}", "no such branch, tag or commit"),
    ],
)
def test_what_is_not_there_is_told_apart(hub, files, where, says):
    hub.repository("lab/tiny", files)
    hub.repository("lab/secret", files, private=True)
    with pytest.raises(NotFound, match=says):
        listed(hub, where)


@pytest.mark.parametrize(
    "body", [b"<html>busy</html>", b"[]", b"{}", b'{"sha": "main", "siblings": []}', b'{"sha": 1}', b"[" * 100_000]
)
def test_a_list_that_is_none_is_an_error_of_the_tree(hub, files, body):
    hub.repository("lab/tiny", files)
    hub.orders["tiny"] = [("other", body)]
    with pytest.raises(InvalidBundle):
        listed(hub)


@pytest.mark.parametrize("lie", [{"size": -1}, {"size": True}, {"blobId": None}, {"blobId": "main"}, {"rfilename": 7}])
def test_a_list_without_digests_is_refused(hub, files, lie):
    hub.repository("lab/tiny", files)
    hub.repositories["lab/tiny"].listed[CONFIG] = lie
    with pytest.raises(InvalidBundle, match="without its size and digest"):
        listed(hub)


def test_a_pinned_commit_is_answered_as_that_commit_or_refused(hub, files):
    commit = hub.repository("lab/tiny", files)
    hub.orders[commit] = [("other", b'{"sha": "%s", "siblings": []}' % (b"0" * 40))]
    with pytest.raises(DigestMismatch, match="was asked for"):
        listed(hub, f"hf://lab/tiny@{commit}")


def test_a_list_without_end_is_cut_off(hub, files, monkeypatch):
    hub.repository("lab/tiny", files)
    monkeypatch.setattr(hubs, "MAX_LISTING", 1000)
    hub.orders["tiny"] = [("other", b" " * 2000)]
    with pytest.raises(DigestMismatch, match="sends more than the 1,000 bytes"):
        listed(hub)


def test_nobody_listening_is_unavailable_and_offline_is_said(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hubs, "PATIENCE_S", 0.5)
    with pytest.raises(Unavailable, match="ConnectError"):
        hubs.Hub("http://127.0.0.1:9").listing(parse("hf://lab/tiny"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE"):
        hubs.Hub("http://127.0.0.1:9")


@pytest.mark.parametrize("endpoint", ["ftp://hub", "hub.example.org", "http://", "file:///etc"])
def test_an_endpoint_is_an_address(endpoint):
    with pytest.raises(ConfigurationInvalid):
        hubs.Hub(endpoint)
