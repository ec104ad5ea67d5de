"""Another process on the host tries to read a cell: as another user, and as the very user the cell became."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cells import jailed, said
from tests.support.processes import innermost

ROOT = os.geteuid() == 0


def test_the_cells_memory_is_closed_to_other_users_and_its_own():
    if not ROOT:
        pytest.skip("only root can play another user")
    with jailed("report('up'); import time; time.sleep(30)") as cell:
        assert said(cell) == "up"
        inside = innermost(cell.process.pid)
        assert Path(f"/proc/{inside}/status").read_text().split("Uid:")[1].split()[0] == str(cell.user)
        for uid in (cell.user, 61000 if cell.user != 61000 else 61001):
            assert read_memory(inside, uid) == {"ptrace": "EPERM", "vm": "EPERM", "mem": "EACCES", "fd": "EACCES"}


def test_a_dumpable_process_of_the_same_user_would_have_been_read():
    """The control of the test above: without PR_SET_DUMPABLE, the same reader gets in."""
    if not ROOT:
        pytest.skip("only root can play another user")
    ready = "libc.prctl(4, 1, 0, 0, 0); os.write(1, b'x'); time.sleep(30)"
    victim = subprocess.Popen(as_user(61000, ready), stdout=subprocess.PIPE)
    try:
        assert victim.stdout.read(1) == b"x"
        assert read_memory(victim.pid, 61000)["ptrace"] == "DONE"
    finally:
        victim.kill()
        victim.communicate()


READER = """
def how(result):
    return "DONE" if result >= 0 else errno.errorcode[ctypes.get_errno()]
def opened(name):
    try:
        os.close(os.open(f"/proc/{PID}/{name}", os.O_RDONLY))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "DONE"
there = ctypes.create_string_buffer(8)
vector = struct.pack("@PN", ctypes.addressof(there), 8)
found = {"vm": how(libc.process_vm_readv(PID, vector, 1, vector, 1, 0)), "mem": opened("mem"), "fd": opened("fd/0")}
found["ptrace"] = how(libc.ptrace(0x4206, PID, None, None))
print(json.dumps(found))
"""


def as_user(uid, code):
    """Run code as another user; the interpreter may lie where only root can go, so root is given up once it runs."""
    imports = "import ctypes, errno, json, os, struct, sys, time; libc = ctypes.CDLL(None, use_errno=True); "
    drop = f"os.setgroups([]); os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid}); "
    return [sys.executable, "-I", "-S", "-c", imports + drop + "exec(sys.argv[1])", code]


def read_memory(pid, uid):
    done = subprocess.run(as_user(uid, READER.replace("PID", str(pid))), check=True, capture_output=True, timeout=20)
    return json.loads(done.stdout)
