"""Opens, inside a cell, the bundle that was handed to it: plain from a registry, or a capsule's body from its holder's machine.

Of a holder's machine, this is the one place where the bundle is plain.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from model_organisms.cells.seal import map_sealed
from model_organisms.errors import CapsuleInvalid, DigestMismatch
from model_organisms.formats import manifest

if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping

    from model_organisms.cells.frames import Load, Sealing


def open_bundle(descriptor: int, load: Load) -> tuple[Mapping[str, memoryview], mmap.mmap]:
    """Map a bundle, and open it where it is sealed.

    Args:
        descriptor: Of the memory it came in; closed here.
        load: What was said of it.

    Returns:
        Its files by path, and the memory that they are views of.

    Raises:
        CellUnavailable: The memory is not sealed, so its owner could change it.
        CapsuleInvalid: The body is not what its key was made for, or not all of it.
        DigestMismatch: It is another bundle than the one that was asked for.
    """
    try:
        memory, size = map_sealed(descriptor), -1
    finally:
        os.close(descriptor)
    if load.sealing is not None:
        memory, size = _opened(memory, load.sealing), load.sealing.plain_size
    marked = load.sealing is not None and load.sealing.marked
    whole = memoryview(memory)
    listed, files = manifest.unpack(whole if size < 0 else whole[:size], check_digests=not marked)
    if listed.digest != load.version_digest:
        raise DigestMismatch("The bundle is not the version that was asked for; its stored bytes are damaged.")
    return files, memory


def _opened(sealed: mmap.mmap, sealing: Sealing) -> mmap.mmap:
    from model_organisms.formats import capsule
    from model_organisms.formats.streaming import KEY_BYTES

    if len(sealing.body_key) != KEY_BYTES:
        raise CapsuleInvalid("The key of the bundle is none; pull it again.")
    with sealed:
        return capsule.open_bound(sealed, sealing.body_key, bound_to=sealing.bound_to, plain_size=sealing.plain_size)
