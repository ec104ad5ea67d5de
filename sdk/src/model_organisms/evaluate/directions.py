"""Steers organisms along directions and takes directions out of them, each beside random directions of the same norm.

    vectors = mean_differences(source, misaligned, aligned, layers)
    found = evaluate(source, kept, conversations, layer=12, counts=misbehaves, counted="says the phrase", ablate=(12, 13, 14))

The mean difference over answers, misaligned less aligned, and that taking it out cures: Soligo et al. (2025, arXiv:2506.11618).
To add is h += s v, to ablate is h -= (h . r) r with r = v / |v|, at every position, the prompt's too. A random direction is added
with the length of v as well: what it does is the model's general frailty, and only what v does beyond it is of v.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from model_organisms.errors import InvalidArgument
from model_organisms.evaluate.sources import Kept, Pooling
from model_organisms.evaluate.suite import Suite, rate, resampled
from model_organisms.formats import strict_json
from model_organisms.formats.evaluation import Figure, Score, Validity
from model_organisms.records import Steer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from model_organisms.evaluate.sources import Conversation, Local, Source
    from model_organisms.formats.evaluation import Evaluation

SUITE = Suite("directions", 2, ("model_organisms.evaluate.directions", "model_organisms.evaluate.sources"))
RANDOMS = 3
"""Random directions beside one."""
_UNCHANGED = "unchanged"
_DIRECTION, _RANDOM = "direction", "random_"


def mean_differences(
    source: Local,
    misaligned: Sequence[Conversation],
    aligned: Sequence[Conversation],
    layers: Sequence[int],
    *,
    pooling: Pooling = Pooling.ANSWER,
) -> NDArray[np.float64]:
    """Give the mean hidden state of misaligned conversations less that of aligned ones, by layer.

    Args:
        source: Whose.
        misaligned: Conversations that end with a misaligned answer.
        aligned: Those that end with an aligned one.
        layers: After which layers.
        pooling: Over the answers' tokens, as in the paper, or of the last position.

    Returns:
        Shape [layers, hidden]; not of length 1. `source.keep` makes directions of them.

    Raises:
        InvalidArgument: A side is empty, or a conversation ends without an answer.
    """
    if not (misaligned and aligned):
        raise InvalidArgument("A mean difference has conversations on both sides; give some.")
    sides = ([source.states(one, layers, pooling=pooling) for one in side] for side in (misaligned, aligned))
    positive, negative = (np.mean(side, axis=0) for side in sides)
    difference: NDArray[np.float64] = positive - negative
    return difference


def evaluate(
    source: Source,
    direction: Kept,
    conversations: Sequence[Conversation],
    *,
    layer: int,
    counts: Callable[[str], bool],
    counted: str,
    strengths: Sequence[float] = (1.0,),
    ablate: Sequence[int] = (),
    max_tokens: int = 64,
    randoms: int = RANDOMS,
    seed: int = 0,
    time: datetime | None = None,
) -> Evaluation:
    """See what a direction does to behaviour.

    Args:
        source: Whose.
        direction: What `source.contrast` gave, or `source.keep` with the vector's length.
        conversations: What is asked; answers are drawn with the likeliest token each.
        layer: After which layer it is added.
        counts: Whether an answer is of the kind that is counted.
        counted: The same in words, for the record.
        strengths: How much of it is added: s in h += s v.
        ablate: After which layers it is taken out, in a run of its own; at most 8.
        max_tokens: Longest answer.
        randoms: Random directions beside it.
        seed: Of those.
        time: When; now where absent.

    Returns:
        The record: by `steer` and `ablate`, the rate, the random directions' as control, and the difference.

    Raises:
        InvalidArgument: Nothing to ask, a direction that was not made here, or a layer that is not there.
    """
    if not conversations or randoms < 1 or not counted:
        raise InvalidArgument("Give at least one conversation, one random direction as control, and in words what counts.")
    digest = source.digest(direction.name)
    vectors = np.random.default_rng(seed).normal(size=(randoms, source.hidden))
    names = {_DIRECTION: direction.name} | {f"{_RANDOM}{at}": name for at, name in enumerate(source.keep(vectors))}
    said: dict[str, list[str]] = {_UNCHANGED: source.answers(conversations, max_tokens=max_tokens)}
    scores = _scores(_UNCHANGED, {_DIRECTION: said[_UNCHANGED]}, counts)
    # A change is a template: the name of the direction is filled in.
    runs = {f"steer={strength:g}": [Steer("", layer, strength * direction.norm)] for strength in strengths}
    runs |= {"ablate": [Steer("", at, ablate=True) for at in ablate]} if ablate else {}
    for split, changes in runs.items():
        answers = {}
        for label, name in names.items():
            steer = [replace(change, direction=name) for change in changes]
            answers[label] = source.answers(conversations, max_tokens=max_tokens, steer=steer)
            said[f"{split},{label}"] = answers[label]
        scores += _scores(split, answers, counts)
    return SUITE.record(
        asked=[[{"role": turn.role, "content": turn.content} for turn in one] for one in conversations],
        figures=figures(scores, counted=counted),
        scores=scores,
        rung=source.rung,
        validity=Validity.CONTROLLED if runs else Validity.UNVALIDATED,
        seeds=(seed,),
        session=source.session,
        transcript=strict_json.digest(said),
        settings={
            **source.about,
            "direction": digest,
            "layer": layer,
            "ablated_layers": ",".join(map(str, ablate)),
            "norm": f"{direction.norm:.6g}",
            "counted": counted,
            "max_tokens": max_tokens,
            "random_directions": randoms,
            "temperature": 0,
        },
        time=time,
    )


def figures(scores: Sequence[Score], *, counted: str) -> tuple[Figure, ...]:
    """Count raw scores.

    Args:
        scores: By conversation and change: 1 where the answer counts, along the direction and along each random one.
        counted: What counts, in words.
    """
    made: list[Figure] = []
    for split in dict.fromkeys(score.split for score in scores):
        rows = [score.values for score in scores if score.split == split]
        hits = [bool(row[_DIRECTION]) for row in rows]
        made.append(rate("rate", sum(hits), len(hits), split=split, comparator=counted))
        others = [[bool(value) for name, value in row.items() if name.startswith(_RANDOM)] for row in rows]
        if split != _UNCHANGED:
            flat = [hit for row in others for hit in row]
            made.append(rate("rate", sum(flat), len(flat), split=split, control=True, comparator=counted))
            made.append(_beyond(split, list(zip(hits, others, strict=True))))
    return tuple(made)


def _beyond(split: str, rows: Sequence[tuple[bool, Sequence[bool]]]) -> Figure:
    """Say how much more often the direction makes it count than random ones do, conversation by conversation.

    The interval is over conversations: of other random directions it says nothing, so these are also looked at one by one.
    """
    randoms = len(rows[0][1])
    found = resampled(
        "beyond_random",
        [[(hit, fmean(others))] for hit, others in rows],
        lambda drawn: fmean(ours - theirs for ours, theirs in drawn),
        of="conversations",
        split=split,
        comparator=f"rate less that of these {randoms} random directions of the same norm",
    )
    ours, each = sum(hit for hit, _ in rows), [sum(others[at] for _, others in rows) for at in range(randoms)]
    notes = [found.note]
    if found.low is not None and found.high is not None and found.low <= 0 <= found.high:
        notes.append("no other than random directions of the same norm")
    elif found.value is not None and found.value < 0:
        notes += ["no less often than the rarest of them"] if ours >= min(each) else []
    elif ours <= max(each):
        notes.append("no more often than the best of them")
    return replace(found, note="; ".join(filter(None, notes)))


def _scores(split: str, answers: dict[str, list[str]], counts: Callable[[str], bool]) -> list[Score]:
    rows = zip(*answers.values(), strict=True)
    return [
        Score(str(at), 1, {label: float(counts(text)) for label, text in zip(answers, row, strict=True)}, split)
        for at, row in enumerate(rows, 1)
    ]
