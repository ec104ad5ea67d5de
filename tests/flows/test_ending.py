"""A registry that is told to end does so, says so in its ledger, and leaves nothing running."""

import ctypes
import os
import signal
from pathlib import Path

import psutil
import pytest
from model_organisms.client.client import connect
from model_organisms_registry.inspection import inspect
from model_organisms_registry.testing import settings

from tests.support.serving import serving


def told(process, thread):
    """Have the kernel hand SIGTERM to one thread; by itself it picks any, mostly the first."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.tgkill(process, thread, signal.SIGTERM) == 0, os.strerror(ctypes.get_errno())


@pytest.mark.parametrize("whose", ["the first thread", "another thread"])
def test_sigterm_ends_it_whichever_thread_takes_it(tmp_path, whose):
    with serving(settings(tmp_path / "data"), tmp_path, ("aud", "auditor")) as registry:
        number = registry.process.pid
        # Numbers begin again where the machine's largest was given, so their order tells nothing.
        others = {int(path.name) for path in Path(f"/proc/{number}/task").iterdir()} - {number}
        assert others
        below = registry.below()
        assert below
        told(number, number if whose == "the first thread" else max(others))
        assert registry.process.wait(timeout=60) == 0
        assert not psutil.wait_procs(below, timeout=10)[1]
        assert inspect(registry.config).findings == ()
        registry.start()
        with connect(tmp_path / "aud.json") as auditor:
            size = auditor.audit.checkpoint().size
            said = [found.type for _, found in auditor.audit.entries(start=size - 8)]
    assert [what for what in said if what.startswith("registry.")][-2:] == ["registry.stop", "registry.start"]
