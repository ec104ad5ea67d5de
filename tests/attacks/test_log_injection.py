"""Text that wants to be read as something else: forged lines, escape codes and reversed words, sent wherever words are taken.

Whatever the registry makes of it, nothing raw may stand in the ledger, in the registry's own log, or on a terminal; and no
refusal may carry it back as it came.
"""

import itertools
import logging
from contextlib import suppress

import pytest
from model_organisms import errors
from model_organisms.formats import entry
from model_organisms.v1 import access_pb2, identity_pb2, organisms_pb2

from tests.support.stories import BASE, WHY, published
from tests.support.terminal import typed

FORGED = "registry: all is well"
PAYLOADS = {
    "a-forged-log-line": f"fine\n2026-11-01 12:00:00,000 INFO {FORGED}",
    "a-carriage-return": f"fine\r{FORGED}",
    "a-cleared-screen": f"fine\x1b[2J\x1b[H{FORGED}",
    "an-eight-bit-escape": f"fine\x9b2J{FORGED}",
    "the-clipboard": f"fine\x1b]52;c;cm0gLXJmIH4=\x07{FORGED}",
    "a-hidden-link": f"fine\x1b]8;;http://example.org\x1b\\{FORGED}",
    "reversed-words": f"fine \u202e{FORGED[::-1]}",
    "a-line-separator": f"fine\u2028{FORGED}",
    "a-nul": f"fine\0{FORGED}",
    "backspaces": f"fine\b\b\b\b{FORGED}",
    "invisible-tags": "fine" + "".join(chr(0xE0000 + ord(letter)) for letter in FORGED),
    "a-json-quote": f'fine","decision":"allow","subject":"{FORGED}',
}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def version(world):
    return published(world, level="CL2")[0].name


def created(world, **fields):
    organism = organisms_pb2.Organism(**{"display_name": "Toy", "level": 1, "base_model": BASE} | fields)
    request = organisms_pb2.CreateOrganismRequest(organism_id=f"injected-{next(NUMBERS)}", organism=organism)
    pia = world.person("pia").organisms
    return pia._channel.call(pia._stub.CreateOrganism, request)


def asked(world, version, **fields):
    rosa = world.person("rosa").access
    said = {"justification": WHY, "need": WHY} | fields
    request = access_pb2.CreateAccessRequestRequest(versions=[version], rung=3, purpose=1, **said)
    return rosa._channel.call(rosa._stub.CreateAccessRequest, request).request


def answered(world, version, text):
    request = world.person("rosa").access.request(version, "probe", purpose="replication", justification=WHY)
    return world.person("ravi").access.reject(request, reason=text)


def invited(world, text):
    request = identity_pb2.InviteUserRequest(
        user_id=f"guest-{next(NUMBERS)}", display_name=text, organisation="organisations/lab", roles=[1]
    )
    return world.admin.users._channel.call(world.admin.users._stub.InviteUser, request)


def by_name(world, text):
    rosa = world.person("rosa").organisms
    return rosa._channel.call(rosa._stub.GetOrganism, organisms_pb2.GetOrganismRequest(name=text))


def by_token(world, text):
    rosa = world.person("rosa").organisms
    return rosa._channel.call(rosa._stub.ListOrganisms, organisms_pb2.ListOrganismsRequest(page_token=text))


WHERE = {
    "a-display-name": lambda world, _, text: created(world, display_name=text),
    "a-description": lambda world, _, text: created(world, description=text),
    "a-trait": lambda world, _, text: created(world, traits=[text]),
    "a-base-model": lambda world, _, text: created(world, base_model=text),
    "a-justification": lambda world, version, text: asked(world, version, justification=text),
    "a-need": lambda world, version, text: asked(world, version, need=text),
    "a-rejection": answered,
    "a-persons-name": lambda world, _, text: invited(world, text),
    "a-resource-name": lambda world, _, text: by_name(world, text),
    "a-page-token": lambda world, _, text: by_token(world, text),
}


@pytest.mark.parametrize("where", WHERE)
def test_no_log_no_ledger_and_no_refusal_is_forged_by_words_in(world, version, caplog, where):
    caplog.set_level(logging.DEBUG)
    refusals = []
    for text in PAYLOADS.values():
        try:
            WHERE[where](world, version, text)
        except errors.ModelOrganismsError as error:
            refusals.append(error)
    said = [told for refusal in refusals for told in (refusal.message, *refusal.details.values())]
    assert all(told.isprintable() for told in said), said
    assert errors.Internal not in map(type, refusals)
    written = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    ours = [written.format(record) for record in caplog.records if record.name.startswith("model_organisms")]
    assert not [line for line in ours if FORGED in line]
    for _, told in world.person("aud").audit.entries():
        line = entry.encode(told).decode()
        assert line.isprintable()
        assert FORGED not in line


def test_no_terminal_is_moved_by_what_was_taken(world, version):
    """What is legal in a description or a reason still comes from somebody else."""
    for text in PAYLOADS.values():
        for taken in (lambda text=text: created(world, description=text), lambda text=text: asked(world, version, need=text)):
            with suppress(errors.InvalidArgument):
                taken()
    for who, *words in (("rosa", "organisms", "list"), ("ravi", "access", "list"), ("admin", "users", "list")):
        status, out, err = typed("--identity", world.folder / f"{who}.json", *words)
        assert status == 0, err
        assert all(character.isprintable() or character == "\n" for character in out)
        assert not [line for line in out.splitlines() if line.startswith(("2026-", FORGED))]
