"""What stands on a node of a Ray cluster: a Serve replica that takes sessions in, and beside it the keeper that they talk to.

Serve decides how many replicas there are and which one a session goes to. From then on the session talks to that replica's
keeper alone, past Serve, because nobody else has its place. While it lasts, it holds one request of the replica open, its
**lease**: so Serve counts sessions where it counts requests, starts replicas for them, and lets them end before it takes a
replica away.

With `cluster.py` and `lodging.py` the only modules that know Ray.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from model_organisms.cells.confine import undumpable
from ray import serve
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from model_organisms_registry.isolation.keeper import Keeper
from model_organisms_registry.isolation.sealed import read_secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from model_organisms_registry.config import Cells
    from model_organisms_registry.isolation.pool import CellPool
    from model_organisms_registry.isolation.sealed import Introduction

NAMESPACE = "model-organisms"
TALK, LOAD, CONTROL = "talk", "load", "control"
"""Groups of a keeper's threads: so that a kill never waits behind a sample."""
_LOOK_S = 1.0


class Ward:
    """One replica of a base model's deployment.

    Args:
        cells: The registry's settings; this node starts cells by them.
        base: Folder of the base model.
        secret: Shared with the registry.
        name: What keepers of this deployment are called.
    """

    def __init__(self, cells: Cells, base: str, secret: bytes, name: str) -> None:
        """Start the keeper, on this node and for as long as this replica lives."""
        context = ray.get_runtime_context()
        devices = ray.get_gpu_ids()
        device = (
            f"cuda:{devices[0]}" if cells.device == "cuda" and devices else cells.device
        )  # a jail is told, not its environment
        groups = {TALK: 2 * cells.cluster.most_sessions, LOAD: cells.cluster.most_sessions, CONTROL: 8}
        options = {
            "name": f"{name}/{context.get_actor_id()}",
            "namespace": NAMESPACE,
            "num_cpus": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(context.get_node_id(), soft=False),
        }
        self._keeper: Any = (
            ray.remote(concurrency_groups=groups)(Keeping).options(**options).remote(replace(cells, device=device), base, secret)
        )

    @serve.multiplexed(max_num_models_per_replica=64)  # type: ignore[untyped-decorator] # Ray's
    async def known(self, version_digest: str) -> str:
        """Tell Serve that this version was here, so that its next session comes here too."""
        return version_digest

    async def lease(self, name: str) -> AsyncIterator[tuple[Any, Introduction]]:
        """Take a session in.

        Args:
            name: The session's name on the cluster.

        Yields:
            Once: the keeper, and its introduction. Then nothing, for as long as the session lasts.
        """
        await self.known(serve.get_multiplexed_model_id())
        control = self._keeper.expect.options(concurrency_group=CONTROL)
        await control.remote(name)
        yield self._keeper, await self._keeper.introduction.options(concurrency_group=CONTROL).remote()
        while await self._keeper.holds.options(concurrency_group=CONTROL).remote(name):  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(_LOOK_S)

    async def jailed(self) -> bool:
        """Tell whether this node can build every wall."""
        return bool(await self._keeper.jailed.options(concurrency_group=LOAD).remote())

    async def check_health(self) -> None:
        """Fail where the keeper is gone, so that Serve starts another replica."""
        await self._keeper.introduction.options(concurrency_group=CONTROL).remote()


class Keeping(Keeper):
    """A keeper as an actor: it makes its own pool, so that nothing but settings crosses the cluster."""

    def __init__(self, cells: Cells, base: str, secret: bytes) -> None:
        """Start it, its memory closed to others."""
        undumpable()
        super().__init__(
            _pool(cells, base), base, secret or read_secret(cells.cluster.secret_file), start_timeout_s=cells.start_timeout_s
        )


def _pool(cells: Cells, base: str) -> CellPool:
    from model_organisms_registry.isolation.local import local

    return local(replace(cells, base_models={"": base}))
