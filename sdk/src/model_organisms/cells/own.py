"""A cell of one's own: the jailed process that holds one organism on its holder's machine. Registries have a pool instead.

There is no cell without a jail here, at no level: that the weights are plain only behind its walls is all it is for.
"""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import re
import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING

from model_organisms.cells.cell import Cell
from model_organisms.cells.frames import Sealing
from model_organisms.cells.launcher import Jail, plan
from model_organisms.cells.starting import EmptyCell
from model_organisms.cells.walls import REQUIRED
from model_organisms.cells.warden import Warden
from model_organisms.errors import CellUnavailable, ConfigurationInvalid, JailMissing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from model_organisms.cells.frames import CellInfo, Numbers, Piece
    from model_organisms.cells.tenant import Tenant
    from model_organisms.records import Message, SamplingParameters

__all__ = ["OwnCell", "Sealing", "check_machine", "device_here"]

_ENDING_S = 5.0
_DEVICE = re.compile(r"auto|cpu|cuda(:(?P<index>[0-9]{1,2}))?")
_DTYPES = ("float32", "bfloat16", "float16")
_BUBBLEWRAP = "bwrap"
_INSTALL = "Debian and Ubuntu: `apt install bubblewrap libseccomp2`; Fedora: `dnf install bubblewrap libseccomp`"


def check_machine(device: str = "auto", dtype: str = "") -> None:
    """Refuse what no cell could be started with here, before anything is asked of a registry and paid for.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, or `auto`.
        dtype: What it is to compute in; empty for what suits the device.

    Raises:
        JailMissing: There is no bubblewrap.
        ConfigurationInvalid: What models need is not installed, there is no such device, or no such dtype.
    """
    if shutil.which(_BUBBLEWRAP) is None:
        raise JailMissing(f"A glove box needs bubblewrap, which builds its jail; install it ({_INSTALL}).")
    lacking = [name for name in ("torch", "transformers", "peft", "pyseccomp") if importlib.util.find_spec(name) is None]
    if lacking:
        msg = f"A glove box needs {', '.join(lacking)}; run `{sys.executable} -m pip install 'model-organisms[cells]'`."
        raise ConfigurationInvalid(msg, missing=",".join(lacking))
    if dtype not in {"", "auto", *_DTYPES}:
        raise ConfigurationInvalid(f"'{dtype}' is not a dtype; write {', '.join(map(repr, _DTYPES))} or 'auto'.")
    named = _DEVICE.fullmatch(device)
    if named is None:
        raise ConfigurationInvalid(f"'{device}' is not a device; write 'cpu', 'cuda', 'cuda:1' or 'auto'.")
    seen = _gpus()
    if device.startswith("cuda") and int(named["index"] or 0) >= seen:
        raise ConfigurationInvalid(f"There is no device '{device}' here ({seen} seen); use 'cpu' or 'auto'.", device=device)


def _gpus() -> int:
    """How many NVIDIA GPUs a cell could use: nodes that its jail binds in, where torch can use them; torch is not imported."""
    nodes = glob.glob("/dev/nvidia[0-9]*")  # noqa: PTH207 - one fixed folder
    return 0 if "+cpu" in importlib.metadata.version("torch") else len(nodes)


def device_here(wanted: str = "auto") -> str:
    """Choose a device without importing torch: `cuda` where there is an NVIDIA GPU and a torch that may use one, else `cpu`."""
    if wanted != "auto":
        return wanted
    return "cuda" if _gpus() else "cpu"


class OwnCell:
    """A jailed process with its base model, and then with one organism.

    Args:
        base: Folder of the base model.
        device: `cpu`, `cuda`, or `auto`.
        dtype: What it computes in; empty leaves it to `loading`.
        start_timeout_s: Seconds for it to start, load and answer.

    Raises:
        ConfigurationInvalid: There is no such device or dtype.
        JailMissing: The jail cannot be built, or a wall of it does not stand.
        CellUnavailable: The process did not come up.
    """

    def __init__(self, base: Path, *, device: str = "auto", dtype: str = "", start_timeout_s: float = 300.0) -> None:
        check_machine(device, dtype)
        self._warden = Warden()
        self._closing = threading.Lock()
        self._cell: Cell | None = None
        self._tenant: Tenant | None = None
        self._timeout_s = start_timeout_s
        try:
            jail = Jail(bubblewrap=_BUBBLEWRAP, device=device_here(device), dtype=dtype)
            self._empty = EmptyCell(self._warden, plan(jail, base))
            self.walls = self._greeted()
        except BaseException:
            self._warden.close()
            raise

    @property
    def alive(self) -> bool:
        """Tell whether it can be asked."""
        return self._tenant is not None and self._tenant.alive

    def load(self, body: int, sealing: Sealing, *, version_digest: str, known_answer: Mapping[str, object] | None) -> CellInfo:
        """Hand it the body of a capsule, which it opens.

        Args:
            body: Descriptor of sealed memory that holds the body; the caller closes it.
            sealing: What opens the body.
            version_digest: What the manifest in it must hash to.
            known_answer: What the organism answered when it was published.

        Raises:
            LoadingFailed: The bundle does not go on the base model, or does not answer as it did when published.
            InvalidArgument: The bundle is not what its digest or its manifest says.
            CellUnavailable: The cell was lost.
        """
        until = time.monotonic() + self._timeout_s
        self._cell = Cell(self._empty, until=until)
        self._cell.reserve()
        self._tenant = self._cell.load(
            body, version_digest=version_digest, known_answer=known_answer, until=until, sealing=sealing
        )
        return self._tenant.info

    def sample(self, messages: Sequence[Message], parameters: SamplingParameters, *, max_seconds: float) -> Iterator[Piece]:
        """Draw text, as `Tenant.sample` does."""
        return self._loaded().sample(messages, parameters, max_seconds=max_seconds)

    def probe(self, messages: Sequence[Message], *, max_seconds: float) -> Numbers:
        """Ask for numbers, as `Tenant.probe` does."""
        return self._loaded().probe(messages, max_seconds=max_seconds)

    def close(self) -> None:
        """End the process; harmless the second time. What it had in memory ends with it."""
        with self._closing:
            if self._tenant is not None:
                self._tenant.kill()  # who waits for it hears of that
            if self._cell is not None:
                self._cell.kill()  # its listener closes the channel
                self._empty.process.wait(_ENDING_S)
            else:
                self._empty.discard()
            self._warden.close()

    def _loaded(self) -> Tenant:
        if self._tenant is None:
            raise CellUnavailable("The cell holds nothing; open a new session.")
        return self._tenant

    def _greeted(self) -> tuple[str, ...]:
        try:
            hello = self._empty.greet(time.monotonic() + self._timeout_s)
        except CellUnavailable:
            complaint = self._empty.process.wrapper_said()
            self._empty.discard()
            if not complaint:
                raise
            msg = f"bubblewrap could not build the jail here ({complaint}); unprivileged user namespaces must be allowed."
            raise JailMissing(msg) from None
        if missing := sorted(REQUIRED - set(hello.standing)):
            self._empty.discard()
            told = "; ".join(f"{name}: {hello.missing.get(name, 'not reported')}" for name in missing)
            raise JailMissing(f"The jail's walls do not all stand on this machine ({told}).", missing=",".join(missing))
        return hello.standing
