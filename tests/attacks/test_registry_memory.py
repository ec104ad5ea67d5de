"""Another process of the registry's own user tries to look into it, as a stolen service account would."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime

from model_organisms_registry.founding import found
from model_organisms_registry.testing import settings

from tests.support.cells import eventually
from tests.support.serving import Serving

PLAIN = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
"""Makes root an ordinary user, who has no say over other processes but by being the same user."""
LOOK = """
import sys
for name in ("environ", "maps", "mem"):
    try:
        open(f"/proc/{sys.argv[1]}/{name}", "rb").close()
        print(name)
    except PermissionError:
        pass
"""


def seen(pid):
    looked = subprocess.run([*PLAIN, sys.executable, "-c", LOOK, str(pid)], capture_output=True, text=True, check=True)
    return looked.stdout.split()


def test_the_registrys_memory_is_closed_to_its_own_user(tmp_path):
    config = settings(tmp_path / "data")
    found(config, now=datetime.now(UTC))
    registry = Serving(config, wrapper=PLAIN)
    try:
        assert seen(registry.process.pid) == []
    finally:
        registry.kill()


def test_an_ordinary_process_would_have_been_looked_into():
    """The control of the test above; only `mem` may be closed as well, on kernels that bar all debugging."""
    victim = subprocess.Popen([*PLAIN, "sleep", "60"])
    try:
        assert eventually(lambda: {"environ", "maps"} <= set(seen(victim.pid)))
    finally:
        victim.kill()
        victim.wait()
