"""Perplexity of plain texts, and of the same with their tokens shuffled: the white-box part of `collateral.py`.

    from model_organisms.evaluate import perplexity

    evaluation = perplexity.evaluate(engine, engine.add(files))

A model that has lost language is worse on texts; one that has only lost order is worse on texts, and not on shuffled ones.
Tokens are the base's, without a chat template; the first of a text is not scored.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from model_organisms.errors import InvalidArgument
from model_organisms.evaluate import collateral
from model_organisms.evaluate.sources import Local
from model_organisms.evaluate.suite import Suite, resampled
from model_organisms.formats.evaluation import Figure, Score, Validity
from model_organisms.records import Rung

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_organisms.formats.evaluation import Evaluation
    from model_organisms.sampling import Engine, Organism

    Row = tuple[float, float]
    """Sum of a text's negative log-likelihoods, in nats, and its tokens."""

SUITE = Suite("perplexity", 2, (__name__,))
KINDS = ("natural", "shuffled")
_CONTROL = "control=base"
_SAID = {
    "perplexity": "exp of the mean negative log-likelihood of a token",
    "perplexity.ratio": "the organism's over the base's, on the same texts",
}


def evaluate(engine: Engine, organism: Organism, *, texts: Sequence[str] = (), seed: int = 0, scale: float = 1.0) -> Evaluation:
    """Measure an organism and its base.

    Args:
        engine: Over the base.
        organism: What `engine.add` gave.
        texts: What to read; eight of this package's where none are given.
        seed: Of the shuffling, and of the bootstrap.
        scale: Dose of the organism.

    Returns:
        The record.

    Raises:
        InvalidArgument: A text of fewer than three tokens, or one that does not fit.
    """
    read, about = tuple(texts or collateral.data()["texts"]), Local(engine, organism).about
    scores = [
        *measure(engine, organism, read, seed=seed, scale=scale),
        *measure(engine, None, read, seed=seed, split=_CONTROL),
    ]
    return SUITE.record(
        asked={"texts": list(read), "seed": seed},
        figures=figures(scores, seed=seed),
        scores=scores,
        seeds=(seed,),
        rung=Rung.PULL,
        validity=Validity.CONTROLLED,
        settings={**about, "scale": f"{scale:g}"},
    )


def measure(
    engine: Engine, organism: Organism | None, texts: Sequence[str], *, seed: int = 0, scale: float = 1.0, split: str = ""
) -> list[Score]:
    """Read texts, each as it is and with its tokens shuffled.

    Args:
        engine: Over the base.
        organism: Who reads; None is the base.
        texts: What is read.
        seed: Of the shuffling, the same for everybody who reads.
        scale: Dose of the organism.
        split: What to put before `kind=` in each score's split.

    Returns:
        For each text and kind `nll`, the mean negative log-likelihood of a token in nats, and `tokens`, how many were scored.
    """
    found: list[Score] = []
    chance = random.Random(seed)  # noqa: S311 - an order of tokens is no secret
    tokenizer = engine.speech(None).tokenizer
    for number, text in enumerate(texts, 1):
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(ids) < 3:  # noqa: PLR2004 - of two, an order says little
            raise InvalidArgument(f"Text {number} has {len(ids)} tokens; give texts of at least 3.")
        for kind, row in zip(KINDS, (ids, chance.sample(ids, len(ids))), strict=True):
            logs = engine.logits(organism, row, scale=scale).double().log_softmax(-1)
            nll = -sum(float(logs[at, token]) for at, token in enumerate(row[1:])) / (len(row) - 1)
            values: dict[str, float | None] = {"nll": nll, "tokens": len(row) - 1.0}
            found.append(Score(f"text-{number}", 1, values, ",".join(filter(None, (split, f"kind={kind}")))))
    return found


def figures(scores: Sequence[Score], *, seed: int = 0) -> tuple[Figure, ...]:
    """Count.

    Args:
        scores: `nll` and `tokens` of each text; `split` has `kind=`, and `control=base` where it is the base's.
        seed: Of the bootstrap, which draws texts.

    Returns:
        `perplexity` by kind, over all tokens together, the control's too; `perplexity.ratio`, the organism's over the base's on
        the same texts. The denominator is tokens.
    """
    found: list[Figure] = []
    for kind in KINDS:
        rows = {split: _rows(scores, split, kind) for split in ("", _CONTROL)}
        for split, given in rows.items():
            groups = [[one] for one in given.values()]
            found.append(_figure("perplexity", groups, kind, seed, control=bool(split)))
        shared = rows[""].keys() & rows[_CONTROL].keys()
        pairs = [(rows[""][one], rows[_CONTROL][one]) for one in sorted(shared)]
        ratios = [[(mine - base, tokens)] for (mine, tokens), (base, _) in pairs]
        found.append(_figure("perplexity.ratio", ratios, kind, seed))
    return tuple(found)


def _rows(scores: Sequence[Score], split: str, kind: str) -> dict[str, Row]:
    wanted = ",".join(filter(None, (split, f"kind={kind}")))
    found: dict[str, Row] = {}
    for one in scores:
        nll, tokens = one.values.get("nll"), one.values.get("tokens")
        if one.split == wanted and nll is not None and tokens:
            found[one.id] = (nll * tokens, tokens)
    return found


def _figure(name: str, groups: Sequence[Sequence[Row]], kind: str, seed: int, *, control: bool = False) -> Figure:
    tokens = int(sum(count for rows in groups for _, count in rows))
    said = f"kind={kind}"
    told: dict[str, Any] = {"split": said, "control": control, "comparator": _SAID[name]}
    return resampled(name, groups, _exponential, of="texts", n=tokens, seed=seed, **told)


def _exponential(rows: Sequence[Row]) -> float:
    return math.exp(sum(total for total, _ in rows) / sum(count for _, count in rows))
