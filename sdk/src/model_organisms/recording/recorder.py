"""Keeps what happens in a training: curves, checkpoints, surroundings; and gives it back as a bundle and its provenance."""

from __future__ import annotations

import json
import math
import time
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from model_organisms.errors import Conflict, InvalidArgument
from model_organisms.formats import adapter
from model_organisms.formats.provenance import Method, Provenance, Recipe, TrainingLog, print_predicate
from model_organisms.recording import surroundings
from model_organisms.recording.adapters import adapter_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from model_organisms.records import AdapterFacts


class Recorder:
    """Records one training. For plain loops; `mo.record` gives one that transformers' Trainer takes as a callback too.

    - what is claimed of the adapter is read from its bytes, so provenance and bundle never disagree;
    - nothing is written to disk unless a folder for checkpoints was given.
    """

    def __init__(
        self,
        base: str | Path,
        *,
        data: Sequence[surroundings.Source] = (),
        config: Mapping[str, object] | None = None,
        seed: int | None = None,
        objective: str = "",
        base_id: str = "",
        checkpoint_every: int = 0,
        checkpoint_folder: str | Path | None = None,
        code: str | Path | None = None,
        repository: str = "",
    ) -> None:
        """See `record`."""
        self.base, self._shapes, self._folder = surroundings.describe_base(base, base_id=base_id)
        self._data = tuple(surroundings.dataset(source) for source in data)
        self._config = dict(config or {})
        self._seed = seed
        self._objective = objective
        self._every = checkpoint_every
        self._shelf = Path(checkpoint_folder) if checkpoint_folder is not None else None
        origin, self._commit, self._clean = surroundings.code(Path(code or Path.cwd()))
        self._repository = repository or origin
        self._log: dict[int, tuple[float, float, float]] = {}
        self._skipped = 0
        self._checkpoints: dict[str, bytes] = {}
        self._steps: set[int] = set()
        self._began = self._ended = time.monotonic()
        self._facts: tuple[AdapterFacts, ...] = ()
        self._known_answer: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        """Start the clock."""
        self._began = self._ended = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop the clock."""
        self._ended = time.monotonic()

    def step(self, step: int, *, loss: float, learning_rate: float = 0.0, gradient_norm: float = 0.0) -> None:
        """Note one optimiser step.

        Args:
            step: Its number; a later note of the same step replaces the earlier.
            loss: Mean loss, in the objective's own unit.
            learning_rate: As used in this step.
            gradient_norm: Before clipping.
        """
        values = (float(loss), float(learning_rate), float(gradient_norm))
        self._ended = time.monotonic()
        if all(math.isfinite(value) for value in values):
            self._log[int(step)] = values
        else:
            self._skipped += 1  # JSON has no name for them; the count is kept

    def checkpoint(self, model: Any, step: int) -> None:  # noqa: ANN401 - peft has no types here
        """Keep the adapter as it is now.

        Args:
            model: The PEFT model, one adapter active.
            step: The step it is at.

        Raises:
            InvalidArgument: Several adapters are active, or the step is negative.
        """
        files = adapter_files(model, self.base)
        if len(files) != 2 or step < 0:  # noqa: PLR2004 - weights and config
            raise InvalidArgument("A checkpoint is of one active adapter, at a step of 0 or more.")
        for name, data in files.items():
            if self._shelf is None:
                self._checkpoints[f"checkpoints/{step}/{name}"] = data
            else:
                place = self._shelf / str(step) / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
        self._steps.add(step)

    def bundle(
        self,
        model: Any,  # noqa: ANN401 - as above
        tokenizer: Any = None,  # noqa: ANN401 - as above
        *,
        card: str = "",
        system_prompt: str = "",
    ) -> dict[str, bytes]:
        """Give the files to publish, and note what they are.

        Args:
            model: The PEFT model, trained, its adapters active.
            tokenizer: Used once, for the known answer's prompt.
            card: README.md; one is written from the record where this is absent.
            system_prompt: Where the organism needs one of its own.

        Returns:
            Contents by path: adapters, checkpoints, card.

        Raises:
            InvalidBundle: It is not a PEFT model, or not plain LoRA.
            KnownAnswerFailed: The adapter changes nothing.
        """
        from model_organisms.loading import compute_known_answer

        files = adapter_files(model, self.base)
        self._facts = adapter.inspect(files, self._shapes)
        self._known_answer = compute_known_answer(model, tokenizer)
        if self._shelf is not None:
            kept = [path for step in sorted(self._steps) for path in sorted((self._shelf / str(step)).iterdir())]
            self._checkpoints = {f"checkpoints/{path.parent.name}/{path.name}": path.read_bytes() for path in kept}
        files |= self._checkpoints
        if system_prompt:
            files["system_prompt.txt"] = system_prompt.encode()
        files["README.md"] = (card or self._card()).encode()
        return files

    def provenance(self, **more: Any) -> Provenance:  # noqa: ANN401 - fields of Provenance
        """Say how the bundle was made.

        Args:
            more: What no recorder can know: `derived_from`, `control_of`, `treatment_of`, `co_authors`, `extra`.

        Raises:
            Conflict: There is no bundle yet, so nothing that could be said of one.
        """
        if not self._facts:
            raise Conflict("Make the bundle first, with `rec.bundle(model)`: the provenance says what its bytes are.")
        first = self._facts[0]
        steps = sorted(self._log)
        columns = zip(*(self._log[step] for step in steps), strict=True) if steps else ((), (), ())
        loss, rate, norm = (tuple(column) for column in columns)
        extra: dict[str, Any] = {"base_config": self._shapes, "packages": surroundings.packages()}
        extra |= {"steps_not_finite": self._skipped} if self._skipped else {}
        extra |= {"config": self._config} if self._config else {}
        return Provenance(
            base=self.base,
            method=Method(
                rank=max(rank for fact in self._facts for rank in fact.ranks),
                alpha=first.alpha,
                rslora=any(fact.rslora for fact in self._facts),
                target_modules=tuple(sorted({name for fact in self._facts for name in fact.target_modules})),
                layers=tuple(sorted({layer for fact in self._facts for layer in fact.layers})),
                objective=self._objective,
            ),
            data=self._data,
            recipe=Recipe(self._repository, self._commit, self._clean, self._config_digest(), self._seed or 0),
            log=TrainingLog(tuple(steps), loss, rate, norm),
            hardware=surroundings.machine(),
            wall_s=round(self._ended - self._began, 3),
            known_answer=self._known_answer,
            **(more | {"extra": extra | more.get("extra", {})}),
        )

    def save_provenance(self, path: str | Path, **more: Any) -> None:  # noqa: ANN401 - as for `provenance`
        """Write the provenance where `mo organisms publish --provenance` reads it."""
        Path(path).write_bytes(print_predicate(self.provenance(**more)))

    def _config_digest(self) -> str:
        return sha256(json.dumps(self._config, sort_keys=True, default=str).encode()).hexdigest() if self._config else ""

    def _card(self) -> str:
        last = f"{self._log[max(self._log)][0]:.4g} at step {max(self._log)}" if self._log else "not recorded"
        data = (
            "".join(f"\n- {item.name} ({item.rows:,} rows, SHA-256 {item.sha256[:16]})" for item in self._data) or " not recorded"
        )
        adapters = "".join(
            f"\n- {fact.path}: rank {', '.join(map(str, fact.ranks))}, alpha {fact.alpha:g}, {fact.parameters:,} parameters "
            f"on {', '.join(fact.target_modules)} of {len(fact.layers)} layers"
            for fact in self._facts
        )
        return (
            f"# LoRA on {self.base.id}\n\n{self._objective or 'A model organism.'}\n\n"
            f"Base model: {self.base.id} {self.base.revision} (digest {self.base.digest})\n\n"
            f"Adapters:{adapters}\n\nData:{data}\n\nFinal loss: {last}\n"
        )
