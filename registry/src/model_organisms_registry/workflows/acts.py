"""What takes two people here: each act by the workflow that owns what it is done to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_organisms.records import MotionKind

if TYPE_CHECKING:
    from model_organisms_registry.workflows.appointing import Appointing
    from model_organisms_registry.workflows.destruction import Destruction
    from model_organisms_registry.workflows.games import Games
    from model_organisms_registry.workflows.motions import Act
    from model_organisms_registry.workflows.organisms import Organisms
    from model_organisms_registry.workflows.policies import Policies


def two_people(
    organisms: Organisms, destruction: Destruction, appointing: Appointing, policies: Policies, games: Games
) -> dict[MotionKind, Act]:
    """Give the act of each kind of motion."""
    return {
        MotionKind.LOWER_LEVEL: organisms.lowering(),
        MotionKind.DESTROY_KEY: destruction.act(),
        MotionKind.APPOINT: appointing.appoint(),
        MotionKind.REPLACE_KEYS: appointing.replace_keys(),
        MotionKind.ADOPT_POLICIES: policies.adopting(),
        MotionKind.OPEN_GAME: games.opening(),
    }
