"""What Inspect loads by the package's entry point: importing this registers models and tasks. Nobody else imports it."""

from __future__ import annotations

from model_organisms.evaluate.emergent import emergent

__all__ = ["emergent"]
