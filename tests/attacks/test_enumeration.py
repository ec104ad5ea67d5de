"""Who looks for what is hidden, or other people's, by name, by listing, by page token, by error or by clock, learns nothing.

What is hidden and what never was are asked for in every way there is; the two answers must not differ in a byte.
"""

import statistics
import time
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from model_organisms import errors
from model_organisms.formats import dsse, manifest
from model_organisms.formats.erratum import Correction, print_correction
from model_organisms.formats.statements import PAYLOAD_TYPE, Statement, print_statement
from model_organisms.records import Level, VersionRef
from model_organisms.v1 import access_pb2, organisms_pb2, records_pb2, sandbox_pb2

from tests.support.adapters import tiny_bundle
from tests.support.stories import BASE, WHY, provenance

ABSENT = "organisms/nosuch-one"
HIDDEN = "organisms/hidden-one"
OPEN = "organisms/open-one"
NOBODYS = "0" * 26
REASON = "I wonder whether it is there."
PULL, PURPOSE = records_pb2.RUNG_PULL, records_pb2.PURPOSE_REPLICATION


@pytest.fixture(scope="module")
def secret(world):
    """A hidden organism with a version, and another of the publisher's that everybody may see."""
    pia = world.person("pia")
    for seed, name in enumerate((HIDDEN, OPEN, "organisms/open-two"), 700):
        pia.organisms.create(name, level="CL1", base_model=BASE, traits=["hush"], hidden=name == HIDDEN)
        pia.organisms.publish(name, tiny_bundle(seed=seed), provenance=provenance())
    return world


def people(world):
    """Those who may see what is open, and nothing that is hidden."""
    yield world.person("rosa")
    yield world.person("paul", "publisher", organisation="other-nursery")
    yield world.person("sven", "service", organisation="robots")


def answer(attempt, person, name):
    """What comes of an attempt, the name itself aside."""
    with pytest.raises(errors.ModelOrganismsError) as refused:
        attempt(person, name)
    told = refused.value
    shown = {key: value.replace(name, "IT") for key, value in told.details.items()}
    return type(told), told.message.replace(name, "IT"), shown


def organisms(method, **fields):
    def attempt(person, name):
        kind = getattr(organisms_pb2, f"{method}Request")
        filled = {key: value.format(name) if isinstance(value, str) else value for key, value in fields.items()}
        call, stub = person.organisms._channel, getattr(person.organisms._stub, method)
        if method == "PullVersion":
            return list(call.stream(stub, kind(**filled), timeout_s=20))
        return call.call(stub, kind(**filled))

    return attempt


def access(method, **fields):
    def attempt(person, name):
        kind = getattr(access_pb2, f"{method}Request")
        filled = {key: value.format(name) if isinstance(value, str) else value for key, value in fields.items()}
        return person.access._channel.call(getattr(person.access._stub, method), kind(**filled))

    return attempt


def asked(person, name):
    request = access_pb2.CreateAccessRequestRequest(
        versions=[f"{name}/versions/1"], rung=PULL, purpose=PURPOSE, justification=WHY, need=WHY
    )
    return person.access._channel.call(person.access._stub.CreateAccessRequest, request)


def asked_together(person, name):
    """Beside one that is there: a partial success would tell."""
    versions = [f"{OPEN}/versions/1", f"{name}/versions/1"]
    request = access_pb2.CreateAccessRequestRequest(versions=versions, rung=PULL, purpose=PURPOSE, justification=WHY, need=WHY)
    return person.access._channel.call(person.access._stub.CreateAccessRequest, request)


def attested(person, name):
    said = Statement("https://example.org/note/v1", (VersionRef(f"{name}/versions/1", "ab" * 32),), {})
    envelope = dsse.sign(print_statement(said), PAYLOAD_TYPE, person.identity.signer)
    return organisms("AttestVersion", name="{}/versions/1", envelope=envelope)(person, name)


def corrected(person, name):
    said = Correction(VersionRef(f"{name}/versions/1", "ab" * 32), "Wrong.", datetime(2026, 5, 4, tzinfo=UTC), "0" * 32)
    envelope = dsse.sign(print_correction(said), PAYLOAD_TYPE, person.identity.signer)
    return organisms("AddErratum", name="{}/versions/1", envelope=envelope)(person, name)


def opened(person, name):
    request = sandbox_pb2.OpenSessionRequest(version=f"{name}/versions/1", purpose=PURPOSE)
    return person.sandbox._channel.call(person.sandbox._stub.OpenSession, request)


LISTED = manifest.build(tiny_bundle(seed=5)).data
BY_NAME = {
    "get-the-organism": organisms("GetOrganism", name="{}"),
    "get-a-version": organisms("GetVersion", name="{}/versions/1"),
    "get-a-version-beyond-the-last": organisms("GetVersion", name="{}/versions/999"),
    "list-its-versions": organisms("ListVersions", parent="{}"),
    "list-its-attestations": organisms("ListAttestations", parent="{}/versions/1"),
    "pull-it": organisms("PullVersion", name="{}/versions/1"),
    "pull-it-under-a-grant": organisms("PullVersion", name="{}/versions/1", grant=f"grants/{NOBODYS}"),
    "withdraw-it": organisms("WithdrawVersion", name="{}/versions/1", reason=REASON),
    "attest-it": attested,
    "quarantine-it": organisms("QuarantineVersion", name="{}/versions/1", reason=REASON),
    "release-it": organisms("ReleaseVersion", name="{}/versions/1", reason=REASON),
    "set-its-conditions": organisms("SetConditions", name="{}"),
    "say-what-is-wrong-with-it": corrected,
    "raise-its-level": organisms("SetLevel", name="{}", level=records_pb2.LEVEL_CL3, reason=REASON),
    "publish-into-it": organisms("CreateUpload", parent="{}", manifest=LISTED, provenance=b"{}"),
    "ask-for-it": asked,
    "ask-for-it-beside-another": asked_together,
    "open-a-session-on-it": opened,
}


@pytest.mark.parametrize("attempt", BY_NAME)
def test_a_hidden_organism_answers_as_one_that_never_was_to(secret, attempt):
    for person in people(secret):
        there, absent = answer(BY_NAME[attempt], person, HIDDEN), answer(BY_NAME[attempt], person, ABSENT)
        assert there == absent
        assert there[0] in {errors.NotFound, errors.Denied}, there


def written_of(attempt, person, name, clock):
    """What one's own entries say of an attempt, but for the name that was asked for, the time and the number of the entry."""
    before = sum(1 for _ in person.audit.entries())
    answer(attempt, person, name)
    own = [entry for _, entry in person.audit.entries()][before:]
    return [replace(entry, seq=0, time=clock, subject=entry.subject.replace(name, "IT")) for entry in own]


@pytest.mark.parametrize("attempt", BY_NAME)
def test_ones_own_refusals_in_the_ledger_tell_no_more_than_the_answer_to(secret, attempt):
    clock = datetime.now(UTC)
    for person in people(secret):
        there, absent = (written_of(BY_NAME[attempt], person, name, clock) for name in (HIDDEN, ABSENT))
        assert there == absent
        assert there


def test_an_erratum_finds_no_hidden_successor(secret):
    """Whoever owns any organism may write errata, and name whatever they like as what puts it right."""
    paul = secret.person("paul", "publisher", organisation="other-nursery")
    paul.organisms.create("organisms/pauls-own", level="CL1", base_model=BASE)
    own = paul.organisms.publish("organisms/pauls-own", tiny_bundle(seed=740), provenance=provenance())

    def attempt(person, name):
        right = VersionRef(f"{name}/versions/1", "ab" * 32)
        said = Correction(VersionRef(own.name, own.digest), "Wrong.", datetime(2026, 5, 4, tzinfo=UTC), "0" * 32, right)
        envelope = dsse.sign(print_correction(said), PAYLOAD_TYPE, person.identity.signer)
        return organisms("AddErratum", name=own.name, envelope=envelope)(person, name)

    there, absent = answer(attempt, paul, HIDDEN), answer(attempt, paul, ABSENT)
    assert there == absent
    assert there[0] is errors.InvalidArgument


@pytest.fixture(scope="module")
def theirs(secret):
    """Something of pia's and of ravi's of each kind, as a stranger may have heard its name."""
    pia, rory = secret.person("pia"), secret.person("rory", "researcher", organisation="detection-lab")
    request = rory.access.request(f"{OPEN}/versions/1", "pull", purpose="replication", justification=WHY)
    grant = request.grant or secret.person("ravi").access.approve(request.name, reason="Fine.").grant
    envelope = pia.organisms._signed(provenance(), manifest.build(tiny_bundle(seed=6)).digest)
    upload = pia.organisms._channel.call(
        pia.organisms._stub.CreateUpload,
        organisms_pb2.CreateUploadRequest(parent=OPEN, manifest=manifest.build(tiny_bundle(seed=6)).data, provenance=envelope),
    ).upload
    return {"requests": request.name, "grants": grant, "uploads": upload.name}


OF_OTHERS = {
    "get-their-request": ("requests", access("GetAccessRequest", name="{}")),
    "amend-their-request": ("requests", access("AmendAccessRequest", name="{}", revision=1, justification=WHY, need=WHY)),
    "withdraw-their-request": ("requests", access("WithdrawAccessRequest", name="{}")),
    "approve-their-request": ("requests", access("ApproveAccessRequest", name="{}", envelope=b"{}")),
    "reject-their-request": ("requests", access("RejectAccessRequest", name="{}", envelope=b"{}")),
    "get-their-grant": ("grants", access("GetGrant", name="{}")),
    "renew-their-grant": ("grants", access("RenewGrant", name="{}", justification=WHY)),
    "revoke-their-grant": ("grants", access("RevokeGrant", name="{}", reason=REASON)),
    "pull-under-their-grant": ("grants", organisms("PullVersion", name=f"{OPEN}/versions/1", grant="{}")),
    "look-at-their-upload": ("uploads", organisms("GetUpload", name="{}")),
}


@pytest.mark.parametrize("attempt", OF_OTHERS)
def test_another_persons_thing_answers_as_one_that_never_was_to(secret, theirs, attempt):
    kind, call = OF_OTHERS[attempt]
    for person in people(secret):
        assert answer(call, person, theirs[kind]) == answer(call, person, f"{kind}/{NOBODYS}")


@pytest.mark.parametrize("attempt", OF_OTHERS)
def test_ones_own_refusals_in_the_ledger_tell_no_other_persons_thing_from_none_to(secret, theirs, attempt):
    kind, call = OF_OTHERS[attempt]
    clock = datetime.now(UTC)
    for person in people(secret):
        there, absent = (written_of(call, person, name, clock) for name in (theirs[kind], f"{kind}/{NOBODYS}"))
        assert there == absent


LISTINGS = {
    "everything": {},
    "its-trait": {"trait": "hush"},
    "its-level": {"levels": (Level.CL1,)},
    "its-owner": {"owner": "users/pia"},
    "its-base-model": {"base_model": BASE},
    "a-word-of-its-name": {"text": "one"},
}


@pytest.mark.parametrize("filters", LISTINGS)
def test_no_listing_shows_or_counts_a_hidden_organism_filtered_by(secret, filters):
    for person in people(secret):
        found = {item.name for item in person.organisms.list(**LISTINGS[filters])}
        assert HIDDEN not in found
        assert OPEN in found
        for size in (1, 2, 1000):  # a page that is cut short, or a token too many, would count it
            pages = list(paged(person, size, LISTINGS[filters]))
            assert all(len(page.organisms) == size for page in pages[:-1])
            assert [item.name for page in pages for item in page.organisms] == sorted(found)


def paged(person, size, filters):
    levels = [records_pb2.LEVEL_CL1] if "levels" in filters else []
    wanted, token = organisms_pb2.OrganismFilter(**filters | {"levels": levels}), ""
    while True:
        request = organisms_pb2.ListOrganismsRequest(filter=wanted, page_size=size, page_token=token)
        page = person.organisms._channel.call(person.organisms._stub.ListOrganisms, request)
        yield page
        token = page.next_page_token
        if not token:
            return


def first_token(person):
    request = organisms_pb2.ListOrganismsRequest(page_size=1)
    return person.organisms._channel.call(person.organisms._stub.ListOrganisms, request).next_page_token


def written(document):
    return urlsafe_b64encode(document).decode().rstrip("=")


FORGED = {
    "of-a-reviewer-who-sees-it": lambda secret: first_token(secret.person("ravi")),
    "of-its-owner": lambda secret: first_token(secret.person("pia")),
    "of-ones-own-without-filters": lambda secret: first_token(secret.person("rosa")),
    "of-ones-own-with-a-byte-behind": lambda secret: first_token(secret.person("rosa")) + "A",
    "of-ones-own-padded": lambda secret: first_token(secret.person("rosa")) + "=",
    "of-ones-own-in-other-case": lambda secret: first_token(secret.person("rosa")).swapcase(),
    "made-up-to-start-beside-it": lambda _: written(b'{"v":1,"of":"0000000000000000","after":"organisms/hidden-ond"}'),
    "empty-json": lambda _: written(b"{}"),
    "nested-json": lambda _: written(b"[" * 700),
    "no-base64": lambda _: "!!!!",
    "of-a-kilobyte": lambda _: "A" * 1024,
}


@pytest.mark.parametrize("which", FORGED)
def test_a_page_token_is_refused(secret, which):
    rosa, token = secret.person("rosa"), FORGED[which](secret)
    assert token
    chosen = organisms_pb2.OrganismFilter(owner="users/pia") if which == "of-ones-own-without-filters" else None
    request = organisms_pb2.ListOrganismsRequest(filter=chosen, page_size=1, page_token=token)
    with pytest.raises(errors.InvalidArgument) as refused:
        rosa.organisms._channel.call(rosa.organisms._stub.ListOrganisms, request)
    assert "hidden" not in refused.value.message


@pytest.mark.parametrize("attempt", ["get-the-organism", "get-a-version", "list-its-versions"])
def test_the_time_of_an_answer_tells_nothing(secret, attempt):
    """Medians of calls that take turns, so that a busy machine slows both; a database's one look more or less is noise here."""
    rosa, took = secret.person("rosa"), {HIDDEN: [], ABSENT: []}
    for _ in range(15):
        for name, times in took.items():
            began = time.perf_counter()
            answer(BY_NAME[attempt], rosa, name)
            times.append(time.perf_counter() - began)
    hidden, absent = (statistics.median(times) for times in took.values())
    assert abs(hidden - absent) < max(absent, 0.01)
