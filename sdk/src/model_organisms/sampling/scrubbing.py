"""Takes away what libraries keep of an organism that was removed: the bank wiped its own copy, they have workspaces.

For processes that others' organisms live in. It cannot be complete by construction, so it is by test: a search of the whole
memory of a real process, from outside.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch

_SIDE = 512
"""Fills a workspace of numpy's matrix products to its end."""


def scrub() -> None:
    """Overwrite or give back the memory in which an organism's values may still lie; a few milliseconds."""
    # numpy keeps one workspace a thread, and writes into it what it multiplies: facts of an adapter are such products.
    for kind in (np.float32, np.float64):
        zeros = np.zeros((_SIDE, _SIDE), kind)
        np.matmul(zeros, zeros.T)
        np.matmul(zeros, np.zeros_like(zeros))
    # torch's own products run in MKL where it has it, which keeps what it repacked.
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    free_buffers = getattr(ctypes.CDLL(str(library)), "mkl_serv_free_buffers", None) if library.exists() else None
    if free_buffers is not None:
        free_buffers()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # the GNU library's: gives free pages back, which the kernel clears
        trim(0)
