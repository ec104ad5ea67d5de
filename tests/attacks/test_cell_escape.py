"""Code in a cell tries to get out: each probe is a real system call, made by a process in the very jail of production."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from model_organisms.cells import seccomp
from model_organisms.cells.walls import OWN_USER, REQUIRED

from tests.support.cells import in_jail, without

ROOT = os.geteuid() == 0
REFUSED = {"PermissionError:EPERM", "PermissionError:EACCES", "OSError:ENOSYS"}
GONE = {"FileNotFoundError:ENOENT", "PermissionError:EACCES", "NotADirectoryError:ENOTDIR"}
NO_LANDLOCK = ("/dev/null/nothing",)
"""A path that cannot even be looked for: Landlock is then not set up at all."""
ATTACK = "from model_organisms.cells import walls; report(walls.attack(spec))"


def test_every_wall_stands():
    standing, missing = in_jail(ATTACK)
    assert missing == {}
    assert set(standing) - {OWN_USER} == REQUIRED
    assert (OWN_USER in standing) == ROOT


def test_no_socket_can_be_made_and_nobody_reached():
    listening = socket.create_server(("127.0.0.1", 0))
    with listening:
        code = f"""
        import socket
        found = {{}}
        for family in ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_VSOCK"):
            found[family] = attempt(socket.socket, getattr(socket, family), socket.SOCK_STREAM)
        found["pair"] = attempt(socket.socketpair)
        found["connect"] = attempt(socket.create_connection, ("127.0.0.1", {listening.getsockname()[1]}), 1)
        found["resolve"] = attempt(socket.getaddrinfo, "example.org", 443)
        report(found)
        """
        found = in_jail(code)
        assert found.pop("resolve").startswith("gaierror")
        assert {*found.values()} <= REFUSED, found


def test_without_the_filter_the_namespace_still_reaches_nobody():
    def no_filter(planned):
        return replace(planned, filters=None)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        code = f"""
        import socket
        opened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        opened.settimeout(2)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        report({{"near": attempt(opened.connect, ("127.0.0.1", {port})),
                "far": attempt(udp.sendto, b"x", ("192.0.2.1", 53)),
                "abstract": attempt(socket.socket(socket.AF_UNIX).connect, "\\0dbus")}})
        """
        found = in_jail(code, change=no_filter)
    assert found["near"] in {"PermissionError:EACCES", "ConnectionRefusedError:ECONNREFUSED", "OSError:ENETUNREACH"}
    assert found["far"] == "OSError:ENETUNREACH"
    assert found["abstract"].startswith(("PermissionError", "ConnectionRefusedError"))


def test_files_of_the_host_are_not_there(tmp_path):
    (tmp_path / "secret").write_text("secret")
    names = ["/etc/shadow", "/etc/passwd", "/root/.ssh", "/root/.bashrc", str(tmp_path / "secret"), "/var/lib", "/usr/bin/env"]
    names += ["/sys/kernel", "/proc/kcore", "/proc/1/environ", "/proc/1/root/etc/passwd", "/proc/sysrq-trigger", "/dev/mem"]
    names += [str(Path(__file__)), str(Path("pyproject.toml").resolve()), "/boot", "/run"]
    found = in_jail(f"report({{name: attempt(os.open, name, os.O_RDONLY) for name in {names!r}}})")
    assert {*found.values()} <= GONE, found
    listed = in_jail("report({name: attempt(os.listdir, name) for name in ('/', '/sys', '/root', '/proc', '/dev', '/tmp')})")
    assert {*listed.values()} <= GONE, listed


def test_nothing_can_be_written(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    code = """
    found = {}
    for folder in ("/", "/tmp", "/dev", "/dev/shm", "/proc", "/var/tmp", "/model", *spec.paths):
        found[folder + " file"] = attempt(os.open, folder + "/x", os.O_CREAT | os.O_WRONLY)
        found[folder + " folder"] = attempt(os.mkdir, folder + "/x")
        found[folder + " link"] = attempt(os.symlink, "/", folder + "/x")
    found["change"] = attempt(os.open, "/model/config.json", os.O_WRONLY)
    found["truncate"] = attempt(os.truncate, "/model/config.json", 0)
    found["remove"] = attempt(os.unlink, "/model/config.json")
    found["rename"] = attempt(os.rename, "/model/config.json", "/model/other.json")
    found["mode"] = attempt(os.chmod, "/model/config.json", 0o777)
    found["memory"] = attempt(os.memfd_create, "x")
    report(found)
    """
    found = in_jail(code, model=model)
    assert not [name for name, outcome in found.items() if outcome.startswith("DONE")], found
    assert (model / "config.json").read_text() == "{}"


def test_without_landlock_and_filter_the_mounts_are_still_read_only():
    def bare(planned):
        return replace(planned, filters=None, spec=replace(planned.spec, readable=NO_LANDLOCK))

    code = """
    from model_organisms.cells import walls
    made = {folder: attempt(os.mkdir, folder + "/x") for folder in ("/", "/tmp", "/dev", *spec.paths)}
    report([made, walls.attack(spec)[1]])
    """
    made, missing = in_jail(code, change=bare)
    assert not [name for name, outcome in made.items() if outcome.startswith("DONE")], made
    assert "landlock" in missing
    assert not {"read-only", "writes"} & missing.keys()


def test_processes_outside_are_neither_seen_nor_touched():
    code = f"""
    import ctypes, signal
    libc = ctypes.CDLL(None, use_errno=True)
    found = {{}}
    for pid in (1, os.getppid(), {os.getpid()}):
        found[f"signal {{pid}}"] = attempt(os.kill, pid, 0)
        traced = libc.ptrace(16, pid, None, None)
        found[f"trace {{pid}}"] = "DONE" if traced == 0 else "OSError:" + errno.errorcode[ctypes.get_errno()]
        found[f"memory {{pid}}"] = attempt(os.open, f"/proc/{{pid}}/mem", os.O_RDONLY)
        found[f"command {{pid}}"] = attempt(os.open, f"/proc/{{pid}}/cmdline", os.O_RDONLY)
    report(found)
    """
    found = in_jail(code)
    allowed = REFUSED | GONE | {"OSError:EPERM"}
    assert {*found.values()} <= allowed, found


def test_no_program_runs_and_no_process_is_made():
    code = """
    import subprocess
    report({
        "fork": attempt(os.fork),
        "exec": attempt(os.execv, sys.executable, ["python", "-c", "1"]),
        "spawn": attempt(os.posix_spawn, sys.executable, ["python"], {}),
        "run": attempt(subprocess.run, [sys.executable, "-c", "1"]),
    })
    """
    found = in_jail(code)
    assert not [name for name, outcome in found.items() if outcome.startswith("DONE")], found


def test_a_call_that_succeeds_is_no_refusal():
    code = f"""
    from dataclasses import replace
    from model_organisms.cells import walls
    numbers = {seccomp.numbers(["ptrace", "getpid", "personality"])}
    report([walls.attack(replace(spec, forbidden={{name: numbers[name] for name in names}}))[1].get("seccomp", "")
            for names in (["ptrace"], ["ptrace", "getpid"], ["ptrace", "getpid", "personality"])])
    """
    assert in_jail(code) == ["", "getpid was let through", "getpid was let through"]


def test_memory_of_another_process_that_can_be_read_is_told():
    """A child traces its parent; a second time it may not, but what it then reads it reads, whatever was refused before."""
    if not ROOT:
        pytest.skip("a child may not trace its parent everywhere")
    code = """
import ctypes, os
from model_organisms.cells import walls
libc = ctypes.CDLL(None, use_errno=True)
if os.fork() == 0:
    assert libc.ptrace(0x4206, os.getppid(), None, None) == 0
    os.write(1, walls.ATTACKS["ptrace"](None).encode())
    os._exit(0)
os.wait()
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("memory of process ")
    assert done.stdout.endswith(" was read")


def test_no_limit_or_wall_can_be_taken_back():
    code = """
    import ctypes, resource
    libc = ctypes.CDLL(None, use_errno=True)
    found = {
        "core": attempt(resource.setrlimit, resource.RLIMIT_CORE, (1, 1)),
        "root": attempt(os.setresuid, 0, 0, 0),
        "group": attempt(os.setgroups, [0]),
        "dumpable": libc.prctl(4, 1, 0, 0, 0),
        "parent death": libc.prctl(1, 0, 0, 0, 0),
        "filter": libc.prctl(22, 2, 0, 0, 0),
        "mount": libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
        "unmount": libc.umount2(b"/proc", 2),
        "unshare": libc.unshare(0x10000000),
        "personality": libc.personality(0x0040000),
        "chroot": attempt(os.chroot, "/proc"),
    }
    report(found)
    """
    found = in_jail(code)
    assert not [name for name, outcome in found.items() if outcome == 0 or str(outcome).startswith("DONE")], found


@pytest.mark.parametrize(
    ("wall", "change"),
    [
        ("namespaces", lambda p: without(p, "--unshare-net", "--unshare-all", "--unshare-ipc")),
        ("read-only", lambda p: without(p, "--remount-ro")),
        ("seccomp", lambda p: replace(p, filters=None)),
        ("network", lambda p: replace(p, filters=None)),
        ("forks", lambda p: replace(p, filters=None)),
        ("exec", lambda p: replace(p, filters=None)),
        ("memory", lambda p: replace(p, filters=None)),
        ("limits", lambda p: replace(p, filters=None)),
        ("landlock", lambda p: replace(p, spec=replace(p.spec, readable=NO_LANDLOCK))),
        ("files", lambda p: replace(p, spec=replace(p.spec, readable=NO_LANDLOCK))),
        (
            "writes",
            lambda p: replace(without(p, "--remount-ro"), filters=None, spec=replace(p.spec, readable=NO_LANDLOCK, user=0)),
        ),
        ("privileges", lambda p: replace(p, spec=replace(p.spec, user=0))),
    ],
)
def test_a_wall_that_is_missing_is_found_missing(wall, change):
    if wall in {"privileges", "writes"} and not ROOT:
        pytest.skip("only root starts a cell that could stay root")
    standing, missing = in_jail(ATTACK, change=change)
    assert wall in missing, (standing, missing)
    assert wall not in standing


def test_a_registry_that_is_not_root_builds_the_same_walls():
    if not ROOT:
        pytest.skip("the other tests show it")
    python = next((path for path in (os.path.realpath(sys.executable), "/usr/bin/python3") if open_to_all(path)), None)
    if python is None:
        pytest.skip("no interpreter here that another user could run")
    code = f"""
import sys
sys.path[:0] = {[path for path in sys.path if path]!r}
import json
from tests.support.cells import in_jail
print(json.dumps(in_jail({ATTACK!r})))
"""
    done = subprocess.run(
        [python, "-c", code],
        user=61000,
        group=61000,
        extra_groups=[],
        check=True,
        capture_output=True,
        timeout=60,
        cwd=Path.cwd(),
    )
    standing, missing = json.loads(done.stdout)
    assert missing == {}
    assert set(standing) == REQUIRED


def open_to_all(path):
    """Whether it is this version of Python, in a place that every user can reach."""
    found = Path(path).resolve()
    same = found.name == f"python{sys.version_info.major}.{sys.version_info.minor}"
    return same and all(parent.stat().st_mode & 0o001 for parent in found.parents)
