"""Draws text and numbers from organisms, many over one base model. Who may ask, and what it costs, is settled elsewhere.

engine.py   prompts in, pieces of text or logits out     bank.py     whose weights are on the device
batch.py    the rows, step by step                       mixing.py   whose change each row gets
answering.py, waiting.py, forward.py, cache.py, choosing.py, wording.py and scoring.py serve the first;
arranging.py, filling.py, products.py, sites.py and tables.py the second
"""

from __future__ import annotations

from model_organisms.sampling.answering import Piece, Row
from model_organisms.sampling.bank import Bank, Organism
from model_organisms.sampling.engine import Engine, engine_build
from model_organisms.sampling.mixing import Mix, Mixer
from model_organisms.sampling.scoring import Scores

__all__ = ["Bank", "Engine", "Mix", "Mixer", "Organism", "Piece", "Row", "Scores", "engine_build"]
