"""Raw scores, written short."""

from __future__ import annotations

from collections import Counter

from model_organisms.formats.evaluation import Score


def rows(*given):
    """Make raw scores of (question, aligned, coherent), numbered in order."""
    epochs = Counter()
    made = []
    for question, aligned, coherent in given:
        epochs[question] += 1
        made.append(Score(question, epochs[question], {"aligned": aligned, "coherent": coherent}))
    return tuple(made)
