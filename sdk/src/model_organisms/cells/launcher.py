"""Builds a cell: what its process sees, what it may do, and the command that starts it. It starts nothing (`warden.py` does).

- The host's `/` is never bound: interpreter, libraries, environment, our two packages and the base model are, each read-only.
- Where root starts the registry, a cell becomes a user that nobody else is. Elsewhere, and where such a user could not read what
  the cell needs, it gets a user namespace instead; docs/guides/sandbox.md says what this leaves open.
- The new process first runs `confine.py`, then its program; `walls.py` attacks the result from inside.
"""

from __future__ import annotations

import glob
import logging
import os
import shutil
import site
import stat
import sys
import sysconfig
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from model_organisms.cells import seccomp
from model_organisms.cells.confine import Spec
from model_organisms.cells.users import USERS
from model_organisms.errors import BaseModelMissing, JailMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from model_organisms.cells.seccomp import Filters

MODEL = "/model"
"""Where a cell sees its base model."""
WORKER = "from model_organisms.cells import worker; worker.main(spec)"
"""The program of a cell; `spec` is there when it starts."""
HINT = "install bubblewrap (Debian: `apt install bubblewrap`) or set [cells] bubblewrap in registry.toml"

_CAP_SETGID, _CAP_SETUID, _CAP_NET_ADMIN, _CAP_SYS_ADMIN = 6, 7, 12, 21
_NAMESPACES = ("ipc", "mnt", "net", "pid", "uts")
_PROC = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/self/maps", "/proc/self/status")
_NVIDIA_PROC = ("/proc/driver/nvidia", "/proc/devices", "/proc/self", "/proc/sys/vm/mmap_min_addr")
_GPUS = "/dev/nvidia[0-9]*"
_NVIDIA_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-caps/*")
_TASKS, _TASKS_PER_CORE = 64, 4
"""Torch and tokenizers each keep a pool of threads of the machine's size, torch two."""
_MEMORY_FACTOR, _MEMORY_FLOOR, _BUDGETS = 4, 4 << 30, 3
"""A base model may be cast to twice its size and copied once; a budget is there twice while it grows, and once composed."""
_SDK = Path(__file__).resolve().parents[1]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Jail:
    """Settings of every cell of one pool."""

    bubblewrap: str = "bwrap"
    device: str = "cpu"
    """`cpu`; or `cuda`, for which the NVIDIA device nodes are bound in by name; or `cuda:1`, for which that GPU's alone are."""
    dtype: str = ""
    """Empty leaves it to `loading`."""
    threads: int = 0
    """Threads of torch in one cell; 0 leaves it to torch."""
    rows: int = 1
    """Requests that one cell answers at once: as many as it has sessions."""
    adapters: int = 1 << 30
    """Bytes that the organisms of one cell may take on its device; who is not asked makes room and comes back."""
    cache: int = 1 << 30
    """Bytes that keys and values of the conversations of one cell may take."""
    memory: int = 0
    """Bytes of private memory of one cell; 0 reckons them from the base model and the two budgets above."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about one process to start, as a value."""

    wrapper: tuple[str, ...]
    """bubblewrap and its options; empty where there is no jail."""
    spec: Spec
    """Where it names a user, its starter puts one there that nobody else has."""
    filters: Filters | None
    code: str = WORKER
    environment: tuple[tuple[str, str], ...] = ()

    def command(self, socket: int, *, outer: int, inner: int) -> list[str]:
        """Write the command line for these inherited descriptors."""
        spec = replace(self.spec, socket=socket, filter=inner)
        filtered = ("--seccomp", str(outer)) if outer >= 0 else ()
        wrapper = (*self.wrapper, *filtered, "--") if self.wrapper else ()
        packages = str(_SDK.parent)
        code = (
            f"import sys; sys.path.append({packages!r}); from model_organisms.cells import confine; "
            f"spec = confine.enter(sys.argv[1]); {self.code}"
        )
        return [*wrapper, _interpreter(), "-I", "-S", "-B", "-X", "utf8", "-c", code, spec.print()]


@dataclass(frozen=True, slots=True)
class UnsafePlan(Plan):
    """A cell without a jail: its process can do whatever the registry's can. For CL1 only, and it says so."""

    def __post_init__(self) -> None:
        """Shout."""
        text = f"A cell is started WITHOUT A JAIL: only organisms of level CL1 are served from it. To build the jail, {HINT}."
        _logger.warning(text)
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def plan(jail: Jail, model: Path | None, *, code: str = WORKER) -> Plan:
    """Plan a jailed cell.

    Args:
        jail: The pool's settings.
        model: Folder of the base model; None where the program needs none.
        code: Python to run once confined.

    Raises:
        JailMissing: bubblewrap or libseccomp is not installed.
        BaseModelMissing: There is no such folder.
    """
    wrapper = shutil.which(jail.bubblewrap)
    if wrapper is None:
        msg = f"'{jail.bubblewrap}' is not installed, so nothing above CL1 is served from cells; {HINT}."
        raise JailMissing(msg)
    filters = seccomp.filters(device_control=jail.device.startswith("cuda"))
    own_user = _is_root()
    cuda = jail.device.startswith("cuda")
    device, nodes = _gpu(jail.device) if cuda else (jail.device, [])
    read = [*_libraries(), *_packages()]
    model_binds = list(_model(model)) if model else []
    if own_user and (closed := _closed_to_others([*read, *(source for source, _ in model_binds)])):
        own_user = False
        _logger.warning("A cell could have a user of its own if others could read %s: run `chmod -R o+rX` on its folder.", closed)
    binds = [("--ro-bind", path, path) for path in (*read, _interpreter())]
    binds += [("--ro-bind", source, target) for source, target in model_binds]
    binds += [("--dev-bind", node, node) for node in ("/dev/null", "/dev/urandom", *nodes)]
    options = [*_apart(own_user=own_user), *_links(), *_folders(target for _, _, target in binds)]
    options += [part for bind in binds for part in bind]
    options += ["--proc", "/proc", "--remount-ro", "/", "--chdir", "/", "--clearenv"]
    for name, value in _environment(jail):
        options += ["--setenv", name, value]
    spec = Spec(
        socket=-1,
        user=USERS[0] if own_user else 0,
        paths=_import_paths(),
        readable=(
            *read,
            *_import_paths(),
            *([MODEL] if model else ()),
            "/dev/urandom",
            "/etc/ld.so.cache",
            *_PROC,
            *(_NVIDIA_PROC if cuda else ()),
        ),
        usable=("/dev/null", *nodes),
        folders=(*([MODEL] if model else ()), *_import_paths()),
        outside={kind: Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in _NAMESPACES},
        forbidden=seccomp.numbers(seccomp.ATTACKS),
        tasks=_TASKS + _TASKS_PER_CORE * (os.cpu_count() or 1),
        memory=jail.memory or _reckoned(jail, sum(_size(source) for source, _ in model_binds)),
        device=device,
        dtype=jail.dtype,
        rows=jail.rows,
        adapters=jail.adapters,
        cache=jail.cache,
        model=MODEL if model else "",
    )
    return Plan(wrapper=(wrapper, *options), spec=spec, filters=filters, code=code)


def unsafe_plan(jail: Jail, model: Path, *, code: str = WORKER) -> UnsafePlan:
    """Plan a cell without a jail, for CL1 where bubblewrap is missing."""
    spec = Spec(
        socket=-1,
        jailed=False,
        paths=_import_paths(),
        device=jail.device,
        dtype=jail.dtype,
        rows=jail.rows,
        adapters=jail.adapters,
        cache=jail.cache,
        model=str(model.resolve()),
    )
    return UnsafePlan(wrapper=(), spec=spec, filters=None, code=code, environment=_environment(jail))


def _apart(*, own_user: bool) -> tuple[str, ...]:
    always = ("--die-with-parent", "--new-session", "--hostname", "cell", "--cap-drop", "ALL")
    if own_user:
        kinds = ("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try")
        return (*kinds, *always, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")
    return ("--unshare-all", *always, "--uid", str(USERS[0]), "--gid", str(USERS[0]))


def _gpu(device: str) -> tuple[str, list[str]]:
    """Find the nodes of a GPU, or of all; and what the cell calls it: who sees one alone knows it as the first.

    The number counts those that are here, in the order of their nodes' numbers: in a container, the first may be `/dev/nvidia5`.
    """
    control = [path for pattern in _NVIDIA_NODES for path in sorted(glob.glob(pattern))]  # noqa: PTH207 - absolute
    gpus = sorted(glob.glob(_GPUS), key=lambda path: int(path.removeprefix("/dev/nvidia")))  # noqa: PTH207 - absolute
    number = device.partition(":")[2]
    if not number:
        return device, [*gpus, *control]
    return "cuda:0", [*gpus[int(number) : int(number) + 1], *control]


def _is_root() -> bool:
    """Tell whether the registry may change its user and mount things: root in a bare container may not."""
    status = Path("/proc/self/status").read_text("ascii")
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    return os.geteuid() == 0 and all(effective >> bit & 1 for bit in (_CAP_SETGID, _CAP_SETUID, _CAP_NET_ADMIN, _CAP_SYS_ADMIN))


def _interpreter() -> str:
    return os.path.realpath(sys.executable)


def _import_paths() -> tuple[str, ...]:
    return tuple(dict.fromkeys([*_site_packages(), str(_SDK.parent)]))


def _site_packages() -> list[str]:
    candidates = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    return [path for path in dict.fromkeys(candidates) if Path(path).is_dir()]


def _packages() -> list[str]:
    buf = _SDK.with_name("buf")  # the validation rules that the generated code imports
    return list(dict.fromkeys([*_site_packages(), str(_SDK), *([str(buf)] if buf.is_dir() else [])]))


def _libraries() -> list[str]:
    """Folders of the standard library and of system libraries, without the rest of /usr."""
    prefix = Path(sys.base_prefix)
    python = [sysconfig.get_path("stdlib")] if prefix == Path("/usr") else [str(prefix / "lib")]
    arch = sysconfig.get_config_var("MULTIARCH") or ""
    narrow = [f"/lib/{arch}", f"/usr/lib/{arch}"] if arch and Path(f"/usr/lib/{arch}").is_dir() else ["/lib", "/usr/lib"]
    loaders = glob.glob("/lib/ld-linux*") + glob.glob("/usr/lib/ld-linux*")  # noqa: PTH207 - two fixed folders
    wide = ["/lib64", "/usr/lib64", "/etc/ld.so.cache"]
    found = [path for path in (*python, *narrow, *wide, *loaders) if Path(path).exists()]
    return [path for path in dict.fromkeys(found) if not _below_a_link(path)]


def _below_a_link(path: str) -> bool:
    top = Path("/", Path(path).parts[1])
    return top.is_symlink()


def _links() -> Iterator[str]:
    """Keep the links of a merged /usr."""
    for name in ("/lib", "/lib64"):
        if Path(name).is_symlink():
            yield from ("--symlink", os.readlink(name), name)  # noqa: PTH115 - relative, as it is


def _folders(targets: Iterable[str]) -> Iterator[str]:
    """Make the folders that lead to what is bound; left to itself, bubblewrap makes them for root alone."""
    above = {str(parent) for target in targets for parent in Path(target).parents} - {"/"}
    for folder in (*sorted(above), "/tmp"):  # noqa: S108 - stays empty and read-only; tempfile.gettempdir() must find a folder
        yield from ("--dir", folder)


def _model(folder: Path) -> Iterator[tuple[str, str]]:
    """Bind the folder, or, where it is full of links as in a hub's cache, each file it leads to."""
    if not folder.is_dir():
        msg = f"There is no base model in {folder}; fetch it and name the folder in [cells.base_models] of registry.toml."
        raise BaseModelMissing(msg)
    folder = folder.resolve()
    files = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    if not any(path.is_symlink() for path in files):
        yield str(folder), MODEL
        return
    for path in files:
        if path.exists():
            yield str(path.resolve()), f"{MODEL}/{path.relative_to(folder)}"


def _size(path: str) -> int:
    found = Path(path)
    return sum(file.stat().st_size for file in found.rglob("*") if file.is_file()) if found.is_dir() else found.stat().st_size


def _reckoned(jail: Jail, model: int) -> int:
    return _MEMORY_FLOOR + _MEMORY_FACTOR * model + _BUDGETS * (jail.adapters + jail.cache)


def _closed_to_others(paths: Iterable[str]) -> Path | None:
    """Find what another user could not read, if there is anything: a cell with its own user is one."""
    for path in paths:
        root = Path(path)
        below = list(root.iterdir()) if root.is_dir() else []
        for found in [root, *below]:
            mode = found.stat().st_mode
            wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
            if mode & wanted != wanted:
                return found
    return None


def _environment(jail: Jail) -> tuple[tuple[str, str], ...]:
    threads = (("OMP_NUM_THREADS", str(jail.threads)),) if jail.threads else ()
    return (
        ("LANG", "C.UTF-8"),
        ("HOME", "/nonexistent"),
        ("HF_HUB_OFFLINE", "1"),
        ("TRANSFORMERS_OFFLINE", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("TORCHINDUCTOR_CACHE_DIR", "/tmp"),  # noqa: S108 - an empty folder in the jail; torch insists on naming one
        *threads,
    )
