"""A registry that answers with a true receipt of another entry: no call of the client takes it for its own."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms_registry.testing import running, settings
from model_organisms_registry.workflows.changes import Change
from model_organisms_registry.workflows.sampling import Sampling

from tests.support import evaluations
from tests.support.registries import PEOPLE
from tests.support.stories import WHY

BASE = "test/tiny-qwen2"
RECEIPT = Change.receipt
NUMBERS = itertools.count()
REASON = "It is the reason of a test."


class Stage:
    """People, a version, and for each call something fresh to be called about."""

    def __init__(self, world, base, files):
        self.world, self.files = world, files
        self.stated = Provenance(BaseModel(BASE, digest=base_digest(base)))
        for name in ("pia", "rosa", "ravi"):
            setattr(self, name, world.person(name))
        self.version = self.published()
        for rung in ("probe", "pull"):
            self.granted(rung)

    def organism(self):
        return self.pia.organisms.create(f"organisms/toy-{next(NUMBERS)}", level="CL1", base_model=BASE).name

    def published(self):
        return self.pia.organisms.publish(self.organism(), self.files, provenance=self.stated)

    def aside(self):
        return self.pia.organisms.quarantine(self.published().name, reason=REASON)

    def copied(self):
        grant = self.granted("pull")
        self.rosa.organisms.pull(self.version.name, grant=grant).close()
        return grant

    def asked(self):
        return self.rosa.access.request(self.version.name, "probe", purpose="replication", justification=WHY)

    def granted(self, rung="probe"):
        asked = self.rosa.access.request(self.version.name, rung, purpose="replication", justification=WHY)
        return self.ravi.access.approve(asked, reason=REASON).grant

    def opened(self):
        return self.rosa.sandbox.open(self.version.name, purpose="replication")

    def somebody(self):
        return self.world.person(f"sam-{next(NUMBERS)}", "researcher").identity.user

    def suspended(self):
        name = self.somebody()
        self.world.admin.users.suspend(name, reason=REASON)
        return name

    def statement(self):
        return evaluations.statement(self.version, seeds=(next(NUMBERS),))


@pytest.fixture(scope="module")
def stage(tmp_path_factory, qwen, qwen_files):
    config = settings(tmp_path_factory.mktemp("receipts") / "data", base_models={BASE: qwen})
    with running(config, people=PEOPLE) as world:
        yield Stage(world, qwen, qwen_files)


CALLS = {
    "request": (None, lambda at, _: at.asked()),
    "amend": (Stage.asked, lambda at, made: at.rosa.access.amend(made, justification=WHY + " Again.")),
    "withdraw request": (Stage.asked, lambda at, made: at.rosa.access.withdraw(made.name)),
    "approve": (Stage.asked, lambda at, made: at.ravi.access.approve(made, reason=REASON)),
    "reject": (Stage.asked, lambda at, made: at.ravi.access.reject(made, reason=REASON)),
    "renew": (Stage.granted, lambda at, made: at.rosa.access.renew(made)),
    "revoke": (Stage.granted, lambda at, made: at.ravi.access.revoke(made, reason=REASON)),
    "open": (None, lambda at, _: at.opened()),
    "sample": (Stage.opened, lambda _, made: made.sample("Hello.", max_tokens=2)),
    "probe": (Stage.opened, lambda _, made: made.probe("Hello.")),
    "close": (Stage.opened, lambda _, made: made.close()),
    "kill": (Stage.opened, lambda at, made: at.ravi.sandbox.kill(made.name, reason=REASON)),
    "pull": (None, lambda at, _: at.rosa.organisms.pull(at.version.name)),
    "create": (None, lambda at, _: at.organism()),
    "publish": (Stage.organism, lambda at, made: at.pia.organisms.publish(made, at.files, provenance=at.stated)),
    "withdraw": (Stage.published, lambda at, made: at.pia.organisms.withdraw(made.name, reason=REASON)),
    "quarantine": (Stage.published, lambda at, made: at.ravi.organisms.quarantine(made.name, reason=REASON)),
    "release": (Stage.aside, lambda at, made: at.ravi.organisms.release(made.name, reason=REASON)),
    "attest destroyed": (Stage.copied, lambda at, made: at.rosa.access.attest_destroyed(made, how=REASON)),
    "erratum": (Stage.published, lambda at, made: at.ravi.organisms.erratum(made.name, text=REASON)),
    "read notices": (None, lambda at, _: at.rosa.access.read_notices(f"notices/{next(NUMBERS):026d}")),
    "attest": (Stage.statement, lambda at, made: at.rosa.organisms.attest(at.version.name, made)),
    "raise level": (Stage.organism, lambda at, made: at.ravi.organisms.raise_level(made, "CL3", reason=REASON)),
    "invite": (None, lambda at, _: at.world.admin.users.invite(f"new-{next(NUMBERS)}", organisation="lab", roles=["auditor"])),
    "suspend": (Stage.somebody, lambda at, made: at.world.admin.users.suspend(made, reason=REASON)),
    "reinstate": (Stage.suspended, lambda at, made: at.world.admin.users.reinstate(made, reason=REASON)),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_call_takes_another_entrys_receipt_for_its_own(stage, call, monkeypatch):
    prepare, play = CALLS[call]
    log = stage.world.registry.storage.log
    lies = {
        "of the first entry": lambda _: log.receipt(0),
        "of the entry before": lambda change: log.receipt(RECEIPT.fget(change).index - 1),
    }
    for lie in lies.values():
        made = prepare(stage) if prepare else None
        with monkeypatch.context() as lying:
            lying.setattr(Change, "receipt", property(lie))
            with pytest.raises(errors.ReceiptInvalid, match="another entry"):
                play(stage, made)
        if call in {"open", "sample", "probe"}:
            for session in stage.rosa.sandbox.list(state="open"):
                stage.rosa.sandbox.close(session.name)


@pytest.mark.parametrize("changed", [{"engine": "none"}, {"modules_applied": 0}, {"base_digest": "0" * 64}, {"tokens": 999}])
def test_a_sample_whose_receipt_is_not_the_one_in_the_ledger_is_refused(stage, changed, monkeypatch):
    true = Sampling.receipt_of

    def lie(turn, receipt):
        return replace(true(turn, receipt), **changed) if receipt else true(turn, receipt)

    with stage.opened() as session:
        monkeypatch.setattr(Sampling, "receipt_of", staticmethod(lie))
        for ask in (lambda: session.sample("Hello.", max_tokens=2), lambda: session.probe("Hello.")):
            with pytest.raises(errors.ReceiptInvalid):
                ask()
