"""The pages that `make science` writes: Markdown with tables of figures, and pictures beside it. Nothing is measured here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_organisms.evaluate import pictures

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from model_organisms.evaluate.pictures import Panel
    from model_organisms.formats.evaluation import Evaluation, Figure

NOTHING_SHOWN = "**no effect was shown**"


@dataclass(slots=True)
class Page:
    """One page."""

    name: str
    """Of its file, without the ending."""
    title: str
    blocks: list[str] = field(default_factory=list)
    drawn: dict[str, bytes] = field(default_factory=dict)
    """PNG files by name."""
    headlines: list[tuple[str, str, str]] = field(default_factory=list)
    """What the overview says of it: what, the organism's figure, the control's."""

    def say(self, *sentences: str) -> None:
        """Add a paragraph."""
        self.blocks.append(" ".join(sentences))

    def section(self, title: str) -> None:
        """Begin a section."""
        self.blocks.append(f"## {title}")

    def figures(self, evaluation: Evaluation, names: Iterable[str], *, splits: Sequence[str] | None = None) -> None:
        """Add a table of figures, a control's in the same row, and say below it by what they were measured.

        Where both were measured on as many, there is one n.

        Args:
            evaluation: Whose.
            names: Which figures, in this order.
            splits: Rows with these splits only, "" for none; one that ends with '=' stands for all that begin so.
        """
        rows = [row for name in names for row in _rows(evaluation, name, splits)]
        self.table(("figure", "of", "organism", "control", "n", "note"), rows)
        self.blocks.append(_how(evaluation))

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Add any table."""
        lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        self.blocks.append("\n".join([*lines, *("| " + " | ".join(map(_cell, row)) + " |" for row in rows)]))

    def picture(self, panels: Sequence[Panel], what: str, *, kind: str = "") -> None:
        """Draw panels, and show them.

        Args:
            panels: What to draw.
            what: What is to be seen.
            kind: Tells several pictures of a page apart.
        """
        file = "-".join(filter(None, (self.name, kind))) + ".png"
        self.drawn[file] = pictures.draw(panels)
        self.blocks.append(f"![{what}]({file})")

    def headline(self, what: str, figure: Figure, control: Figure | str = "") -> None:
        """Put a figure into the overview too."""
        self.headlines.append((what, shown(figure), control if isinstance(control, str) else shown(control)))

    def difference(
        self, what: str, found: Figure, *, more: str, less: str, headline: str = "", control: Figure | str = ""
    ) -> None:
        """Say a difference and, in words, what it shows; under a headline put it into the overview too.

        Args:
            what: Begins the sentence that ends with the figure.
            found: The difference.
            more: As for `verdict`; the next likewise.
            less: What is so where all of it lies below 0.
            headline: Its name in the overview; empty leaves it out.
            control: What stands beside it there.
        """
        self.say(f"{what} {shown(found)}.", verdict(found, more=more, less=less))
        if headline:
            self.headline(headline, found, control)

    def write(self, folder: Path) -> None:
        """Write page and pictures, and remove pictures that an earlier page of this name had."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{self.name}*.png"):
            old.unlink()
        for file, data in self.drawn.items():
            (folder / file).write_bytes(data)
        (folder / f"{self.name}.md").write_text("\n\n".join([f"# {self.title}", *self.blocks]) + "\n", encoding="utf-8")


def shown(figure: Figure) -> str:
    """Say a figure with its interval; of one that is not there, why."""
    if figure.value is None:
        return f"none: {figure.note}"
    ends = f" ({_number(figure.low)} to {_number(figure.high)})" if figure.low is not None and figure.high is not None else ""
    return f"{_number(figure.value)}{ends}"


def verdict(difference: Figure, *, more: str, less: str) -> str:
    """Say in words what a difference shows; where its interval holds 0, that is nothing.

    Args:
        difference: With an interval.
        more: What is so where all of it lies above 0.
        less: What is so where all of it lies below.
    """
    if difference.low is None or difference.high is None:
        return f"Nothing can be said: {difference.note or 'there is no interval'}."
    if difference.low <= 0 <= difference.high:
        return f"Its interval holds 0: {NOTHING_SHOWN}."
    return f"{more if difference.low > 0 else less}."


def _rows(evaluation: Evaluation, name: str, splits: Sequence[str] | None) -> list[tuple[str, ...]]:
    begun = tuple(split for split in splits or () if split.endswith("="))
    chosen = (f for f in evaluation.figures if f.name == name)
    own = [f for f in chosen if splits is None or f.split in splits or f.split.startswith(begun)]
    made = []
    for split in dict.fromkeys(figure.split for figure in own):
        mine, theirs = (next((f for f in own if f.split == split and f.control is side), None) for side in (False, True))
        if mine or theirs:
            notes = dict.fromkeys(f.note for f in (mine, theirs) if f is not None and f.note and f.value is not None)
            cells = (shown(one) if one else "" for one in (mine, theirs))
            counts = " / ".join(dict.fromkeys(str(f.n) for f in (mine, theirs) if f is not None))
            made.append((f"`{name}`", split, *cells, counts, "; ".join(notes)))
    return made


def _how(evaluation: Evaluation) -> str:
    """Say by what figures were measured, so that others can tell whether theirs compare."""
    kinds = ", ".join(sorted({f.interval.value for f in evaluation.figures if f.low is not None}))
    judge = f"judge `{evaluation.judge.id}`" if evaluation.judge else "no judge"
    if evaluation.judge and evaluation.judge.agreement is not None:
        judge += f" (kappa {_number(evaluation.judge.agreement)} on {evaluation.judge.labelled} labelled)"
    suite = f"Suite `{evaluation.suite}` {evaluation.suite_version} (`{evaluation.suite_digest[:12]}`)"
    parts = (
        f"questions `{evaluation.questions_digest[:12]}`",
        judge,
        f"validity: {evaluation.validity.value}",
        f"rung: {evaluation.rung.name.lower()}",
        f"95 % intervals: {kinds or 'none'}",
    )
    return f"<sub>{suite}; {'; '.join(parts)}.</sub>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"  # noqa: PLR2004 - no digits behind


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
