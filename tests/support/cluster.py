"""A Ray cluster of this machine's own, for as long as a test needs one: two processors, no dashboard, nothing sent to anybody."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_organisms_registry.isolation.lodging import Lodging


@contextmanager
def ray_cluster() -> Iterator[Path]:
    """Hold a cluster that this process is in; the folder is where Ray keeps its sockets, logs and what it spills."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else one is left in the home folder
    import ray
    from ray import serve

    folder = Path(tempfile.mkdtemp(prefix="mo-ray-"))  # short: Ray puts sockets in it, and their paths have 107 bytes at most
    try:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=80 << 20,
            _temp_dir=str(folder),
        )
        serve.start(proxy_location="Disabled")
        yield folder
        serve.shutdown()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def object_store() -> list[int]:
    """Find the process that keeps Ray's shared memory; its file has no name any more."""
    return [process.pid for process in psutil.Process().children(recursive=True) if process.name() == "raylet"]


def jails(below: int | None = None) -> set[int]:
    """Find the jails that stand below a process, else below this one, which is above Ray's."""
    return {process.pid for process in psutil.Process(below).children(recursive=True) if process.name() == "bwrap"}


def jails_of(place: Lodging) -> set[int]:
    """Find the jails that a place's keeper started."""
    import ray

    return jails(ray.get(place.keeper.__ray_call__.remote(lambda _: os.getpid())))
