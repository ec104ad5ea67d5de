"""Keeps the model libraries' own bars and notices off the terminal while we load and convert; ours are in `progress.py`."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence transformers' progress bars and load reports, and the one warning PEFT causes there, while the block runs.

    Filters of warnings belong to the process, so blocks should be short and not overlap in threads.
    """
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 still reads an attribute that transformers 5.23 has renamed; nobody here can act on it.
            warnings.filterwarnings("ignore", message=r".*is_gradient_checkpointing", category=FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
