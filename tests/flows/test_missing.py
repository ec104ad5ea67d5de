"""Base models and jails that are missing, or not the ones they should be: refused in typed errors, and nothing is spent."""

from __future__ import annotations

import logging
import shutil

import pytest
from model_organisms import errors
from model_organisms.bases import base_digest
from model_organisms.formats.provenance import BaseModel, Provenance
from model_organisms.records import Budget, Level
from model_organisms_registry.config import Cells
from model_organisms_registry.inspection import inspect
from model_organisms_registry.testing import running, settings

from tests.support.registries import PEOPLE
from tests.support.stories import WHY
from tests.support.tiny import tiny_base

HERE, GONE, ELSEWHERE = "test/here", "test/gone", "test/elsewhere"


@pytest.fixture(scope="module")
def bases(qwen, tmp_path_factory):
    gone = shutil.copytree(qwen, tmp_path_factory.mktemp("bases") / "gone")
    return {HERE: qwen, GONE: gone}


@pytest.fixture(scope="module")
def world(tmp_path_factory, bases):
    config = settings(tmp_path_factory.mktemp("bases") / "data", base_models=bases)
    with running(config, people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture(scope="module")
def unjailed(tmp_path_factory, bases):
    """A registry whose operator has not installed bubblewrap."""
    cells = Cells(base_models={name: str(folder) for name, folder in bases.items()}, bubblewrap="/nonexistent/bwrap")
    with running(settings(tmp_path_factory.mktemp("unjailed") / "data", cells=cells), people=PEOPLE) as running_world:
        yield running_world


@pytest.fixture
def organism(bases, qwen_files):
    """Publishes a tiny organism, and gives rosa a grant on it."""

    def make(world, name, base, level="CL1", rung="sample"):
        pia = world.person("pia")
        pia.organisms.create(f"organisms/{name}", level=level, base_model=base)
        digest = base_digest(bases[base]) if base in bases else ""
        version = pia.organisms.publish(f"organisms/{name}", qwen_files, provenance=Provenance(BaseModel(base, digest=digest)))
        request = world.person("rosa").access.request(version.name, rung, purpose="replication", justification=WHY)
        for reviewer in ("ravi", "rena"):
            if not request.grant:
                request = world.person(reviewer).access.approve(request.name, reason="Fine.")
        return version, request.grant

    return make


def opened(world, version):
    return world.person("rosa").sandbox.open(version.name, purpose="replication")


def assert_nothing_spent(world, grant):
    rosa = world.person("rosa")
    assert rosa.access.grant(grant).spent == Budget()
    assert not [session for session in rosa.sandbox.list() if session.grant == grant]
    assert not world.registry.pool.cells
    report = inspect(world.registry.config)
    assert report.clean, report.findings
    assert not report.unfinished


@pytest.mark.parametrize("level", [Level.CL2, Level.CL3])
def test_without_bubblewrap_no_session_opens_above_cl1(unjailed, organism, level):
    version, grant = organism(unjailed, f"jailed-{level.name.lower()}", HERE, level.name)
    with pytest.raises(errors.JailMissing, match="sandbox") as caught:
        opened(unjailed, version)
    assert type(caught.value) is errors.JailMissing
    assert_nothing_spent(unjailed, grant)


def test_without_bubblewrap_cl1_is_served_and_the_operator_is_told_loudly(unjailed, organism, caplog):
    version, grant = organism(unjailed, "harmless", HERE)
    with caplog.at_level(logging.WARNING), pytest.warns(RuntimeWarning, match="WITHOUT A JAIL"):
        session = opened(unjailed, version)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert any("WITHOUT A JAIL" in message and "apt install bubblewrap" in message for message in told)
    with session:
        assert session.record.walls == ()
        assert session.sample("Hello.", max_tokens=4).receipt.tokens <= 4
    entries = [entry for _, entry in unjailed.person("aud").audit.entries()]
    assert [entry.facts["walls"] for entry in entries if (entry.type, entry.subject) == ("sandbox.open", session.name)] == [""]
    assert unjailed.person("rosa").access.grant(grant).spent.sessions == 1


def test_a_session_on_a_base_this_registry_has_not_is_refused(world, organism):
    version, grant = organism(world, "far", ELSEWHERE)
    with pytest.raises(errors.CellUnavailable, match=r"operator adds it to \[cells\.base_models\]"):
        opened(world, version)
    assert_nothing_spent(world, grant)


def test_a_session_on_a_base_whose_folder_is_gone_is_refused_until_it_is_back(world, organism, bases):
    version, grant = organism(world, "orphaned", GONE)
    aside = bases[GONE].rename(bases[GONE].with_name("aside"))
    try:
        with pytest.raises(errors.BaseModelMissing, match="fetch it and name the folder"):
            opened(world, version)
        assert_nothing_spent(world, grant)
    finally:
        aside.rename(bases[GONE])
    with opened(world, version) as session:
        assert session.sample("Hello.", max_tokens=2).receipt.tokens <= 2


def test_a_session_on_a_base_that_is_another_than_the_publishers_is_refused(world, organism, bases, tmp_path):
    version, grant = organism(world, "changeling", GONE)
    kept = shutil.copytree(bases[GONE], tmp_path / "kept")
    other = tiny_base(tmp_path / "other", seed=9)
    try:
        shutil.copytree(other, bases[GONE], dirs_exist_ok=True)
        with pytest.raises(errors.BaseModelMismatch, match="operator must put the one that its provenance names"):
            opened(world, version)
        assert_nothing_spent(world, grant)
    finally:
        shutil.copytree(kept, bases[GONE], dirs_exist_ok=True)


def test_a_pulled_organism_says_which_base_it_needs(world, organism, bases, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    version, grant = organism(world, "carried", HERE, rung="pull")
    other = tiny_base(tmp_path / "other", seed=9)
    with world.person("rosa").organisms.pull(version.name, grant=grant) as pulled:
        with pytest.raises(errors.BaseModelMismatch, match="use the revision that its provenance names") as caught:
            pulled.load(other, device="cpu")
        assert caught.value.details == {"found": base_digest(other), "expected": base_digest(bases[HERE])}
        with pytest.raises(errors.BaseModelMissing, match=r"not in the hub cache.*copy the model's folder here"):
            pulled.load(f"owner/none@{'0' * 40}", device="cpu")
        with pytest.raises(errors.BaseModelMissing, match=r"no config\.json"):
            pulled.load(tmp_path, device="cpu")
        with pytest.raises(errors.InvalidArgument, match="pinned commit"):
            pulled.load("owner/none", device="cpu")
        assert pulled.load(bases[HERE], device="cpu").modules_applied > 0
