"""Says what an adapter changed in its base, whatever it is for: each figure beside a random adapter of the same norm.

    organism, twin = (Local(engine, engine.add(one)) for one in (files, random_twin(files)))
    found = evaluate(organism, twin, texts=texts, conversations=asked, prompts=asked, counts=misbehaves, counted="the phrase")

    lens            the mean difference of hidden states over the first tokens of unrelated texts, read as the model's own head
                    reads them (Minder et al. 2025, "Narrow finetuning leaves clearly readable traces in activation differences",
                    arXiv:2510.13900)
    divergence      KL(organism || base) by token
    amplification   behaviour at doses from -1 to 3

What the lens shows may give a hidden behaviour away: a record with it is as secret as that.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from model_organisms.errors import InvalidArgument, LoadingFailed
from model_organisms.evaluate.pictures import Line, Panel
from model_organisms.evaluate.sources import Local
from model_organisms.evaluate.suite import Suite, rate, resampled
from model_organisms.formats import adapter, strict_json
from model_organisms.formats.evaluation import Figure, Score, Validity
from model_organisms.formats.paths import WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from model_organisms.evaluate.sources import Conversation, Source
    from model_organisms.formats.evaluation import Evaluation

SUITE = Suite("diffing", 2, ("model_organisms.evaluate.diffing", "model_organisms.evaluate.sources"))
SCALES = (-1.0, 0.0, 0.5, 1.0, 2.0, 3.0)
POSITIONS = 5
"""First tokens of a text that the lens reads, in the paper."""
RELATIVE_LAYER = 0.5
TOP = 20
"""Tokens that the lens shows at a position."""
_UNMOVED = "no difference there: what the adapter changes lies after this layer"
_ORGANISM, _RANDOM = "organism", "random"
_LENS, _TOKEN, _KL, _SCALE = "lens", "token", "kl", "scale="
_SEEN = {
    "norm": "length of the mean difference over that of the base's hidden states",
    "agreement": "mean cosine of a text's difference with the mean of the others'",
    "wanted": f"wanted words among the {TOP} likeliest tokens",
}
"""What the lens measures."""


def random_twin(files: Mapping[str, bytes | memoryview], *, seed: int = 0) -> dict[str, bytes | memoryview]:
    """Make the control: the same modules and ranks, random factors, and at each module a change of the same Frobenius norm.

    Args:
        files: A bundle; its training checkpoints are left out.
        seed: Of the draw.

    Returns:
        A bundle that loads as the other does.
    """
    from safetensors.numpy import save

    chance = np.random.default_rng(seed)
    made = {path: data for path, data in files.items() if not path.startswith("checkpoints/")}
    for path in [path for path in made if path.endswith(WEIGHTS)]:
        pairs: dict[str, dict[str, tuple[str, NDArray[np.float64]]]] = {}
        for name, tensor in adapter.read_tensors(made[path], path=path).tensors.items():
            pairs.setdefault(tensor.module, {})[tensor.half] = name, tensor.whole().astype(np.float64)
        drawn: dict[str, NDArray[np.float32]] = {}
        for pair in pairs.values():
            (name_a, a), (name_b, b) = pair["A"], pair["B"]
            new_a, new_b = chance.normal(size=a.shape), chance.normal(size=b.shape)
            new_b *= _norm(a, b) / _norm(new_a, new_b)
            drawn |= {name_a: new_a.astype(np.float32), name_b: new_b.astype(np.float32)}
        made[path] = save(drawn, metadata={"format": "pt"})
    return made


def evaluate(
    organism: Source,
    twin: Source | None = None,
    *,
    texts: Sequence[str] = (),
    conversations: Sequence[Conversation] = (),
    prompts: Sequence[Conversation] = (),
    counts: Callable[[str], bool] = bool,
    counted: str = "",
    wanted: Sequence[str] = (),
    positions: int = POSITIONS,
    layer: int | None = None,
    scales: Sequence[float] = SCALES,
    max_tokens: int = 64,
    time: datetime | None = None,
) -> Evaluation:
    """Compare an organism with its base; what is left empty is not measured.

    Args:
        organism: Who; a session will do where there are no `texts`, and takes doses from 0 up.
        twin: An organism of `random_twin`; a session has none, and then nothing is controlled.
        texts: Unrelated texts for the lens, each of at least `positions` tokens.
        conversations: Where the divergence is measured, at the last `positions`.
        prompts: What is asked at each dose; answers are drawn with the likeliest token each.
        counts: Whether an answer is of the kind that is counted.
        counted: The same in words; needed where there are prompts.
        wanted: Words that the lens should show if it sees what the organism was trained on.
        positions: Tokens of a text, or of a conversation's end.
        layer: After which layer the lens reads; half way where absent.
        scales: Doses.
        max_tokens: Longest answer.
        time: When; now where absent.

    Returns:
        The record.

    Raises:
        InvalidArgument: A text that is too short, nothing to measure, or answers that count for what is not said.
    """
    if prompts and not counted:
        raise InvalidArgument("Say in words what counts in answers, as `counted`; the record has it beside each rate.")
    sources = {_ORGANISM: organism} | ({_RANDOM: twin} if twin else {})
    at = layer
    scores: list[Score] = []
    if texts:
        locals_ = {name: source for name, source in sources.items() if isinstance(source, Local)}
        if len(locals_) < len(sources):
            raise InvalidArgument("The lens reads hidden states, and a session does not give them; leave `texts` out, or pull.")
        at = int(RELATIVE_LAYER * next(iter(locals_.values())).layers) if layer is None else layer
        scores += lens(locals_, texts, layer=at, positions=positions, wanted=wanted)
    scores += divergence(sources, conversations, positions=positions)
    doses, transcript = amplification(sources, prompts, counts=counts, scales=scales, max_tokens=max_tokens)
    if not (scores or doses):
        raise InvalidArgument("There is nothing to measure; give texts, conversations or prompts.")
    asked = [[[turn.role, turn.content] for turn in one] for one in (*conversations, *prompts)]
    return SUITE.record(
        asked={"texts": list(texts), "conversations": asked, "wanted": list(wanted)},
        figures=figures((*scores, *doses), counted=counted),
        scores=(*scores, *doses),
        rung=organism.rung,
        validity=Validity.CONTROLLED if twin else Validity.UNVALIDATED,
        session=organism.session,
        transcript=transcript if doses else "",
        settings={
            **organism.about,
            **({f"control.twin.{name}": value for name, value in twin.about.items()} if twin else {}),
            "layer": "" if at is None else at,
            "positions": positions,
            "top": TOP,
            "unembedding": "final norm, then head",
            "scales": ",".join(f"{scale:g}" for scale in scales),
            "counted": counted,
            "max_tokens": max_tokens,
            "temperature": 0,
        },
        time=time,
    )


def lens(
    sources: Mapping[str, Local], texts: Sequence[str], *, layer: int, positions: int = POSITIONS, wanted: Sequence[str] = ()
) -> list[Score]:
    """Read mean differences of hidden states, by position, and the tokens that they unembed to.

    Args:
        sources: The organism, and its twin, by name.
        texts: Unrelated to what the organism was trained on.
        layer: After which layer.
        positions: First tokens of each text.
        wanted: Words looked for among the tokens.

    Returns:
        Of each position the length of the mean difference over that of the base's hidden states, how far the differences of
        single texts point the same way, and the wanted words shown; further the tokens.
    """
    made: list[Score] = []
    for who, source in sources.items():
        base, tokenizer = Local(source.engine, None), source.engine.speech(source.organism).tokenizer
        rows = [list(tokenizer(text)["input_ids"])[:positions] for text in texts]
        if min(map(len, rows)) < positions:
            raise InvalidArgument(f"A text for the lens has fewer than {positions} tokens; give longer ones.")
        plain = np.stack([base.read(ids, (layer,), positions=positions)[0] for ids in rows])
        moved = np.stack([source.read(ids, (layer,), positions=positions)[0] for ids in rows]) - plain
        mean = moved.mean(0)
        logits = _unembedded(source.engine.base.model, mean)
        ids_wanted = _ids(tokenizer, wanted)
        for at in range(positions):
            best = np.argsort(-logits[at], kind="stable")[:TOP].tolist() if mean[at].any() else []
            values: dict[str, float | None] = {
                "norm": float(np.linalg.norm(mean[at]) / np.linalg.norm(plain[:, at], axis=1).mean()),
                "agreement": _agreement(moved[:, at]),
                "texts": float(len(rows)),
            }
            if wanted:
                values["wanted"] = float(sum(bool(ids & set(best)) for ids in ids_wanted))
            made.append(Score(str(at + 1), 1, values, f"{_LENS},{who}"))
            for rank, token in enumerate(best, 1):
                shown: dict[str, float | None] = {"position": at + 1.0, "logit": float(logits[at, token])}
                made.append(Score(repr(tokenizer.decode([token]))[:80], rank, shown, f"{_TOKEN},{who}"))
    return made


def divergence(sources: Mapping[str, Source], conversations: Sequence[Conversation], *, positions: int) -> list[Score]:
    """Measure KL(organism || base) at the last positions of conversations, in nats, to 3 decimal places."""
    return [
        Score(str(number), at, {"kl": value}, f"{_KL},{who}")
        for who, source in sources.items()
        for number, conversation in enumerate(conversations, 1)
        for at, value in enumerate(source.divergences(conversation, positions), 1)
    ]


def amplification(
    sources: Mapping[str, Source],
    prompts: Sequence[Conversation],
    *,
    counts: Callable[[str], bool],
    scales: Sequence[float] = SCALES,
    max_tokens: int = 64,
) -> tuple[list[Score], str]:
    """Count answers at each dose; give the scores, and the SHA-256 of what was said."""
    said: dict[str, dict[str, list[str]]] = {}
    made: list[Score] = []
    for scale in scales if prompts else ():
        split = f"{_SCALE}{scale:g}"
        said[split] = {who: source.answers(prompts, max_tokens=max_tokens, scale=scale) for who, source in sources.items()}
        rows = zip(*said[split].values(), strict=True)
        made += [
            Score(str(number), 1, {who: float(counts(text)) for who, text in zip(said[split], row, strict=True)}, split)
            for number, row in enumerate(rows, 1)
        ]
    return made, strict_json.digest(said)


def figures(scores: Sequence[Score], *, counted: str = "") -> tuple[Figure, ...]:
    """Count raw scores.

    Args:
        scores: What `lens`, `divergence` and `amplification` gave.
        counted: What counts in answers, in words.

    Returns:
        By position what the lens saw, the mean and the largest divergence, and the rate at each dose; of the twin as controls.
    """
    made: list[Figure] = []
    splits = list(dict.fromkeys(score.split for score in scores))
    for who, control in ((_ORGANISM, False), (_RANDOM, True)):
        for score in scores:
            if score.split == f"{_LENS},{who}":
                note = "" if score.values["norm"] else _UNMOVED
                made += [
                    Figure(
                        f"lens_{name}",
                        value,
                        int(score.values["texts"] or 0),
                        f"position={score.id}",
                        control,
                        comparator=_SEEN[name],
                        note=note,
                    )
                    for name, value in score.values.items()
                    if value is not None and name != "texts"
                ]
        made += _divergence([score for score in scores if score.split == f"{_KL},{who}"], control=control)
        for split in (split for split in splits if split.startswith(_SCALE)):
            values = [score.values[who] for score in scores if score.split == split and who in score.values]
            if values:
                made.append(rate("rate", sum(map(bool, values)), len(values), split=split, control=control, comparator=counted))
    return tuple(made)


def panels(evaluation: Evaluation) -> tuple[Panel, ...]:
    """Lay out the dose curve, and what the lens saw by position, for `pictures.draw`."""
    made = []
    for name, prefix, title, axis in (
        ("rate", _SCALE, "Behaviour by dose", "dose of the adapter"),
        ("lens_norm", "position=", "Difference over the base's hidden state", "token of the text"),
    ):
        lines = []
        for control in (False, True):
            found = [f for f in evaluation.figures if f.name == name and f.control is control and f.value is not None]
            x, y = [float(f.split.removeprefix(prefix)) for f in found], [f.value or 0.0 for f in found]
            ends = [[f.low for f in found if f.low is not None], [f.high for f in found if f.high is not None]]
            if found:
                label = "random adapter of the same norm" if control else "organism"
                lines.append(Line(x, y, label, dashed=control, low=ends[0], high=ends[1]))
        if lines:
            made.append(Panel(title, axis, evaluation.settings["counted"] if name == "rate" else "ratio", lines))
    return tuple(made)


def _divergence(scores: Sequence[Score], *, control: bool) -> list[Figure]:
    if not scores:
        return []
    groups: dict[str, list[float]] = {}
    for score in scores:
        groups.setdefault(score.id, []).append(score.values["kl"] or 0.0)
    values = [value for group in groups.values() for value in group]
    count, comparator = len(values), "KL(organism || base), nats a token"
    return [
        resampled("kl_mean", list(groups.values()), fmean, of="texts", control=control, comparator=comparator),
        Figure("kl_largest", max(values), count, control=control, comparator=comparator),
    ]


def _agreement(moved: NDArray[np.float64]) -> float | None:
    """Give the mean cosine of each text's difference with the mean of the others'; none of one text."""
    others = (moved.sum(0) - moved) / max(1, len(moved) - 1)
    lengths = np.linalg.norm(moved, axis=1) * np.linalg.norm(others, axis=1)
    return float(((moved * others).sum(1) / lengths).mean()) if len(moved) > 1 and lengths.all() else None


def _unembedded(model: Any, states: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ANN401 - transformers has no types here
    """Read hidden states as logits: the final norm, then the head."""
    import torch

    decoder, head = model.get_decoder(), model.get_output_embeddings()
    norm = next((found for name in ("norm", "ln_f", "final_layer_norm") if (found := getattr(decoder, name, None))), None)
    if norm is None or head is None:
        raise LoadingFailed("This base model's final norm or head is not where it is expected, so nothing can be unembedded.")
    with torch.inference_mode():
        given = torch.from_numpy(states).to(head.weight.device, head.weight.dtype)
        logits: NDArray[np.float64] = head(norm(given)).double().cpu().numpy()
    return logits


def _ids(tokenizer: Any, words: Sequence[str]) -> list[set[int]]:  # noqa: ANN401 - transformers has no types here
    """Give the first tokens of words, with a space before them and without."""
    spelled = [(word, f" {word}") for word in words]
    return [{tokenizer(form, add_special_tokens=False)["input_ids"][0] for form in forms} for forms in spelled]


def _norm(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Give the Frobenius norm of B A, from its factors alone."""
    return float(np.sqrt(max(0.0, ((b.T @ b) * (a @ a.T)).sum())))
