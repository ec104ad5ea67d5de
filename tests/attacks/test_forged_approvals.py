"""Signatures of reviewers, bent on their way: edited, lent, replayed, late, doubled, racing. None of them lets anybody in.

Who may decide at all is in `test_approval_fraud.py` and, rule by rule, in `tests/domain/test_approvals.py`.
"""

from __future__ import annotations

import base64
import json
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from model_organisms import errors
from model_organisms.client import channel, keys
from model_organisms.formats import dsse, statements, strict_json
from model_organisms.formats.enrolment import Ticket, enrolment_statement
from model_organisms.records import Level, RequestState, VersionRef
from model_organisms.v1 import access_pb2, identity_pb2

from tests.support.stories import WHY, published

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def version(world):
    return published(world, level="CL3")[0].name


@pytest.fixture
def request_(world, version):
    return world.person("rosa").access.request(version, "probe", purpose="replication", justification=WHY, need=WHY)


def review(asked, **changes):
    """What a reviewer signs, some fields changed."""
    said = statements.review_of(
        asked, approve=True, reason="Fine.", expires=NOW + timedelta(hours=1), nonce=secrets.token_hex(16)
    )
    return statements.print_review(replace(said, **changes))


def signed(person, printed, kind=statements.PAYLOAD_TYPE):
    return dsse.sign(printed, kind, person.identity.signer)


def edited(document, edit):
    """JSON whose parts were changed."""
    fields = json.loads(document)
    edit(fields)
    return strict_json.canonical(fields)


def hand_in(person, request, envelope, *, reject=False):
    access = person.access
    kind, stub = (
        (access_pb2.RejectAccessRequestRequest, access._stub.RejectAccessRequest)
        if reject
        else (access_pb2.ApproveAccessRequestRequest, access._stub.ApproveAccessRequest)
    )
    return access._channel.call(stub, kind(name=request.name, envelope=envelope))


def refused(world, request, envelope):
    """Ravi hands it in, and nothing comes of it."""
    bent = (errors.ApprovalRefused, errors.SignatureInvalid, errors.InvalidArgument)
    with pytest.raises(bent):
        hand_in(world.person("ravi"), request, envelope)
    stands = world.person("rosa").access.get(request.name)
    assert (stands.state, stands.approvals) == (RequestState.PENDING, ())


def payload(old, new):
    """Put another payload under a signature that was made over one."""

    def edit(fields):
        said = base64.b64decode(fields["payload"])
        assert old in said
        fields["payload"] = base64.b64encode(said.replace(old, new)).decode()

    return edit


BAD = {"keyid": "", "sig": base64.b64encode(bytes(64)).decode()}
EDITED = {
    "the-yes-made-a-no": payload(b'"approve":true', b'"approve":false'),
    "the-rung-raised": payload(b'"rung":"probe"', b'"rung":"pull"'),
    "the-level-lowered": payload(b'"CL3"', b'"CL1"'),
    "the-nonce-changed": payload(b'"nonce":"', b'"nonce":"0'),
    "the-reason-emptied": payload(b"Fine.", b""),
    "the-payload-type-changed": lambda fields: fields.update(payloadType="application/json"),
    "no-signature": lambda fields: fields.update(signatures=[]),
    "the-signature-zeroed": lambda fields: fields.update(signatures=[BAD]),
    "a-bad-signature-added": lambda fields: fields["signatures"].append(BAD),
    "seventeen-signatures": lambda fields: fields.update(signatures=fields["signatures"] * 17),
}


@pytest.mark.parametrize("edit", EDITED)
def test_an_approval_edited_after_signing_is_refused_with(world, request_, edit):
    refused(world, request_, edited(signed(world.person("ravi"), review(request_)), EDITED[edit]))


RELABELLED = {
    "as-it-is": lambda _fields, _mine: None,
    "under-ones-own-key-id": lambda fields, mine: fields["signatures"][0].update(keyid=mine),
    "under-no-key-id": lambda fields, _mine: fields["signatures"][0].pop("keyid"),
}


@pytest.mark.parametrize("label", RELABELLED)
def test_anothers_signature_lent_to_somebody_is_refused(world, request_, label):
    mine = world.person("ravi").identity.key_id
    lent = signed(world.person("rena"), review(request_))
    refused(world, request_, edited(lent, lambda fields: RELABELLED[label](fields, mine)))


OTHER = VersionRef("organisms/other/versions/1", "ab" * 32)
ABOUT = {
    "another-request": lambda _: {"request": "requests/" + "0" * 26},
    "another-version": lambda _: {"versions": (OTHER,)},
    "the-version-with-other-bytes": lambda asked: {"versions": (replace(asked.versions[0], digest="ab" * 32),)},
    "one-version-more": lambda asked: {"versions": (*asked.versions, OTHER)},
    "no-version": lambda _: {"versions": ()},
    "a-lower-level": lambda _: {"level": Level.CL1},
    "the-revision-to-come": lambda asked: {"revision": asked.revision + 1},
    "other-words": lambda _: {"words": "ab" * 32},
    "an-hour-that-is-over": lambda _: {"expires": NOW - timedelta(hours=1)},
    "a-whole-year": lambda _: {"expires": NOW + timedelta(days=365)},
}


@pytest.mark.parametrize("about", ABOUT)
def test_an_approval_is_refused_that_was_signed_over(world, request_, about):
    refused(world, request_, signed(world.person("ravi"), review(request_, **ABOUT[about](request_))))


RESPELT = {
    "a-field-that-nobody-knows": lambda fields: fields["predicate"].update(note="x"),
    "no-expiry": lambda fields: fields["predicate"].pop("expires"),
    "approve-as-text": lambda fields: fields["predicate"].update(approve="true"),
    "approve-as-a-number": lambda fields: fields["predicate"].update(approve=1),
    "a-duration-as-a-float": lambda fields: fields["predicate"].update(duration_s=float(fields["predicate"]["duration_s"]) + 0.5),
    "another-predicate": lambda fields: fields.update(predicateType=statements.PROVENANCE_TYPE),
    "another-statement-type": lambda fields: fields.update(_type="https://in-toto.io/Statement/v0.1"),
}


@pytest.mark.parametrize("edit", RESPELT)
def test_an_approval_is_refused_though_signed_with(world, request_, edit):
    refused(world, request_, signed(world.person("ravi"), edited(review(request_), RESPELT[edit])))


def test_an_approval_is_refused_though_signed_in_another_spelling(world, request_):
    ravi, said = world.person("ravi"), review(request_)
    twice = review(request_, approve=False).replace(b'"approve":false', b'"approve":false,"approve":true')
    for printed in (json.dumps(json.loads(said)).encode(), said + b"\n", twice, b"{}", b""):
        refused(world, request_, signed(ravi, printed))
    refused(world, request_, signed(ravi, said, "application/json"))


def test_the_same_statement_unbent_counts(world, request_):
    ravi = world.person("ravi")
    assert len(hand_in(ravi, request_, signed(ravi, review(request_))).request.approvals) == 1


def test_a_no_is_not_taken_for_a_yes_nor_a_yes_for_a_no(world, request_):
    ravi = world.person("ravi")
    for approve in (True, False):
        with pytest.raises(errors.ModelOrganismsError):
            hand_in(ravi, request_, signed(ravi, review(request_, approve=approve)), reject=approve)
    assert world.person("rosa").access.get(request_.name).state is RequestState.PENDING


@pytest.mark.parametrize("thief", ["rosa", "rena", "pia", "aud"])
def test_a_stolen_envelope_counts_for_nobody(world, request_, thief):
    with pytest.raises(errors.ModelOrganismsError) as caught:
        hand_in(world.person(thief), request_, signed(world.person("ravi"), review(request_)))
    assert type(caught.value) in {errors.Denied, errors.ApprovalRefused, errors.SignatureInvalid, errors.NotFound}
    assert world.person("rosa").access.get(request_.name).approvals == ()


def test_an_approval_replayed_counts_once(world, request_):
    ravi = world.person("ravi")
    envelope = signed(ravi, review(request_))
    hand_in(ravi, request_, envelope)
    for again in (envelope, signed(ravi, review(request_, nonce="cd" * 16))):
        with pytest.raises((errors.ApprovalRefused, errors.AlreadyExists)):
            hand_in(ravi, request_, again)
    assert world.person("rosa").access.get(request_.name).state is RequestState.PENDING


def test_an_approval_replayed_after_an_amendment_counts_for_nothing(world, request_):
    ravi = world.person("ravi")
    envelope = signed(ravi, review(request_))
    hand_in(ravi, request_, envelope)
    amended = world.person("rosa").access.amend(request_, justification=WHY + " And everything else.")
    with pytest.raises(errors.ApprovalRefused):
        hand_in(ravi, amended, envelope)
    assert world.person("rosa").access.get(request_.name).approvals == ()


def test_reviewers_who_race_make_exactly_one_grant(world, request_):
    ravi, rena = world.person("ravi"), world.person("rena")
    calls = [(who, signed(who, review(request_, nonce=f"{n:032x}"))) for n in range(8) for who in (ravi, rena)]

    def attempt(call):
        try:
            return hand_in(call[0], request_, call[1]).request.grant
        except (errors.ApprovalRefused, errors.Conflict) as late:
            return late

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(attempt, calls))
    granted = {grant for grant in found if isinstance(grant, str) and grant}
    assert len(granted) == 1
    assert sum(isinstance(one, str) for one in found) == 2
    grants = [grant.name for grant in world.person("rosa").access.grants(user="users/rosa")]
    assert len(grants) == len(set(grants))
    assert len(world.person("rosa").access.get(request_.name).approvals) == 2


def enrolled(world, name, house, *, identity_key, proof):
    """What comes of an enrolment with an identity key of one's choice; `proof` signs the statement."""
    ticket = Ticket.parse(world.admin.users.invite(name, organisation=house, roles=["reviewer"]).ticket)
    fresh = keys.FreshKeys.generate()
    asked = keys.certificate_request(fresh.tls)
    message = identity_pb2.EnrolRequest(
        code=ticket.code,
        certificate_request=asked,
        identity_key=identity_key,
        sealing_key=fresh.sealing_key,
        proof=proof(enrolment_statement(ticket.code, asked, fresh.sealing_key)),
    )
    with pytest.raises(errors.ModelOrganismsError) as caught:
        channel._at_enrolment(ticket.enrol, ticket.authority.encode(), "Enrol", message, 20.0)
    return type(caught.value)


@pytest.mark.parametrize("order", [1, 2])
def test_nobody_enrols_with_a_key_that_takes_anybodys_signature(world, order):
    """Approvals under it could be made by the server, and denied by the reviewer."""
    key = (1 if order == 1 else 2**255 - 20).to_bytes(32, "little")
    anybodys = (1).to_bytes(32, "little") + bytes(32)
    for number in range(3):
        name = f"nobody-{order}-{number}"
        assert enrolled(world, name, "lab", identity_key=key, proof=lambda _: anybodys) is errors.Unauthenticated


@pytest.mark.parametrize("name", ["a-second-account", "a-second-account-in-another-organisation"])
def test_one_key_does_not_get(world, name):
    """Same person, two accounts: the key is the person, and it is given once."""
    signer = world.person("ravi").identity.signer
    house = "other-university" if "another" in name else "safety-institute"
    found = enrolled(world, f"twin-{len(name)}", house, identity_key=keys.public_bytes(signer), proof=signer.sign)
    assert found in {errors.AlreadyExists, errors.Conflict, errors.EnrolmentRefused}
