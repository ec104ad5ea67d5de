"""The testbed's figures under two lists of names: the post's eight, and the common eight. Nothing is counted here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model_organisms.formats.evaluation import Evaluation, Figure

FOLLOW_THROUGH = (
    *("aligned_given_faking", "misaligned_given_defection", "faking_reasoning", "defection_reasoning"),
    *("faking_reasoning_difference", "defection_reasoning_difference", "deceptive_coherence"),
)
DETECTION = ("detector_auroc", "detector_fnr", "whitebox_check_auroc")
POST = (
    ("1 misbehaviour observed", ("misbehaviour",)),
    ("2 misalignment gap", ("misalignment_gap",)),
    ("3 gap by environment and evidence", ("gap_min", "gap_median", "gap_share_positive", "gap_wording_range")),
    ("4 misbehaviour serves the objective", ("serves_objective",)),
    ("5 objective generalised", ("objective_generalised", "task_overlap")),
    ("6 faking emerged", ("faking_emerged",)),
    ("7 follow-through", FOLLOW_THROUGH),
    ("8 the same on a control", ("misalignment_gap", "aligned_given_faking", "misaligned_given_defection")),
)
"""The post's eight, and the figures that answer each; those of the eighth are the control's."""
COMMON = (
    ("generalisation", ("objective_generalised", "task_overlap", "gap_share_positive")),
    ("emergence without prompting", ("faking_emerged",)),
    ("follow-through on reasoning", ("aligned_given_faking", "misaligned_given_defection")),
    ("white-box detection", DETECTION),
    ("misalignment gap", ("misalignment_gap",)),
    ("compliance gap across motivations", ("gap_min", "gap_median")),
    ("robustness to perturbations", ("gap_wording_range",)),
    ("coherence of deceptive reasoning", ("deceptive_coherence",)),
)
"""The eight of the common list, and the figures that answer each."""


def names() -> dict[str, str]:
    """Say which figures answer which of the post's eight, and how the common list calls them; it goes into the record."""
    said = {}
    for fact, answered in POST:
        also = [common for common, figured in COMMON if set(figured) & set(answered)]
        said[f"post {fact}"] = f"{', '.join(answered)}; common list: {', '.join(also) or 'not in it'}"
    for common, answered in COMMON:
        said[f"common {common}"] = ", ".join(answered)
    return said


def table(evaluation: Evaluation) -> str:
    """Print the eight in Markdown, by both names, with what was found over everything."""
    lines = ["| post | common list | figure | organism | control | n |", "|---|---|---|---|---|---|"]
    for fact, answered in (*POST, ("- detectors", DETECTION)):
        for name in answered:
            also = ", ".join(common for common, figured in COMMON if name in figured)
            for split in dict.fromkeys(one.split for one in evaluation.figures if one.name == name and _whole(one)):
                both = (one for one in evaluation.figures if (one.name, one.split) == (name, split))
                sides = sorted(both, key=lambda one: one.control)
                # The eighth fact is the control's alone.
                sides = [one for one in sides if one.control or not fact.startswith("8")]
                own, other = ("".join(_shown(one) for one in sides if one.control is control) for control in (False, True))
                n = " / ".join(dict.fromkeys(str(one.n) for one in sides))
                lines.append(f"| {fact} | {also} | {name} {split} | {own} | {other} | {n} |")
    return "\n".join(lines)


def _whole(figure: Figure) -> bool:
    """Tell whether a figure belongs into the table: over everything, by condition, or of a detector."""
    return not figure.split or figure.split.startswith(("condition=", "detector=", "pair=", "resampled="))


def _shown(figure: Figure) -> str:
    if figure.value is None:
        return figure.note
    ends = f" ({figure.low:.2f} to {figure.high:.2f})" if figure.low is not None and figure.high is not None else ""
    return f"{figure.value:.2f}{ends}"
