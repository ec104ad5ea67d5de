"""Draws text and numbers from loaded organisms. Who may ask, and what it costs, is settled before anyone comes here.

engine.py   prompts in, pieces of text or logits out     choosing.py  one token from logits
wording.py  token ids into text, piece by piece          bank.py      the weights of many organisms on one base
mixing.py   each row of a batch its own organism         arranging.py, filling.py, products.py, sites.py, tables.py serve both
"""

from __future__ import annotations

from model_organisms.sampling.engine import Engine, Piece, Scores, engine_build

__all__ = ["Engine", "Piece", "Scores", "engine_build"]
