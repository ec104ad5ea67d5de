"""Fixtures of models: tiny ones made on the spot, and SmolLM2 from the cache. Each is made once a session and only read."""

from __future__ import annotations

import pytest

from tests.support.tiny import ARCHITECTURES, peft_oracle, tiny_base, tiny_organism


@pytest.fixture(scope="session", params=ARCHITECTURES)
def each_base(request, tmp_path_factory):
    """A tiny base model's folder, one of each architecture in turn."""
    return tiny_base(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def qwen(tmp_path_factory):
    """A tiny Qwen2's folder."""
    return tiny_base(tmp_path_factory.mktemp("qwen"), "qwen2")


@pytest.fixture(scope="session")
def qwen_files(qwen):
    """A bundle over `qwen`."""
    return tiny_organism(qwen)


@pytest.fixture(scope="session")
def qwen_oracle(qwen, qwen_files, tmp_path_factory):
    """The same bundle, loaded by PEFT from a folder."""
    return peft_oracle(qwen, qwen_files, tmp_path_factory.mktemp("oracle"))


@pytest.fixture(scope="session")
def smollm2():
    """The folder of SmolLM2-135M-Instruct in the user's cache; fetched and converted on the first run."""
    from model_organisms import bases

    return bases.find(bases.BUILT_IN, progress=False)
