"""Gives each cell that root starts a user which no other cell of this machine has, whoever started that. Others draw no numbers.

A user is taken by a lock on a file with its number. Who starts a cell holds the lock until the cell's process is gone; the kernel
gives it back where the starter itself ends, which no cell outlives.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
from pathlib import Path

from model_organisms.errors import CellUnavailable

USERS = range(60706, 61184)
"""Users that cells become: a range that systemd's documentation leaves to nobody."""
FOLDER = Path("/run/model-organisms-cells")
"""Where the files are. Only root writes in `/run`, and nothing of it outlives the machine's run."""
_logger = logging.getLogger(__name__)


def take() -> tuple[int, int]:
    """Take a user; where `/run` cannot be written, chance alone keeps it apart from those of other pools, and the log says so.

    Returns:
        Its number; and the descriptor of its lock, which gives it back when it is closed, or -1.

    Raises:
        CellUnavailable: All are taken.
    """
    for number in random.SystemRandom().sample(USERS, len(USERS)):
        try:
            FOLDER.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(FOLDER / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            _logger.warning("Cells' users are drawn at random, because %s cannot be written (%s).", FOLDER, error.strerror)
            return number, -1
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return number, lock
    raise CellUnavailable(
        f"All {len(USERS)} users that cells become are taken on this machine; close a session or try again later."
    )


def give_back(lock: int) -> None:
    """Give a user back."""
    if lock >= 0:
        os.close(lock)
