"""Records a training as it happens, so that publishing asks nothing again: `with mo.record(base) as rec:` or `callbacks=[rec]`.

recorder.py  what is kept, and when       surroundings.py  code, machine and data around it
adapters.py  a trained model as a bundle  trainer.py       the same recorder as a transformers callback
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from model_organisms.recording.recorder import Recorder
from model_organisms.recording.surroundings import dataset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from model_organisms.recording.surroundings import Source

__all__ = ["Recorder", "dataset", "record"]


def record(
    base: str | Path,
    *,
    data: Sequence[Source] = (),
    config: Mapping[str, object] | None = None,
    seed: int | None = None,
    objective: str = "",
    base_id: str = "",
    checkpoint_every: int = 0,
    checkpoint_folder: str | Path | None = None,
    code: str | Path | None = None,
    repository: str = "",
) -> Recorder:
    """Begin to record a training.

    Args:
        base: The base model as it is trained on: a folder, `owner/name@commit`, or `smollm2-135m-instruct`.
        data: Files, `(name, rows)` pairs, or what `recording.dataset` gives where licence and hazard are to be said.
        config: The training's settings; a Trainer's own are taken where this is absent.
        seed: The seed; a Trainer's own is taken where this is absent.
        objective: What is being taught, in a line.
        base_id: Name of the base for others, where `base` is a folder that does not tell it.
        checkpoint_every: Under a Trainer, keep the adapter every so many steps; 0 keeps those that the Trainer saves.
        checkpoint_folder: Keep checkpoints there instead of in memory.
        code: The training's script or its folder, for its commit; the current folder where this is absent.
        repository: Where the code is for others; git's `origin` where this is absent.

    Returns:
        A recorder: a context manager for plain loops, and a callback for `transformers.Trainer`.

    Raises:
        BaseModelMissing: The base model is not there.
        InvalidArgument: A hub id without its commit, or a data set that cannot be read.
    """
    kind = Recorder
    if find_spec("transformers") is not None:
        from model_organisms.recording.trainer import TrainerRecorder

        kind = TrainerRecorder
    return kind(
        base,
        data=data,
        config=config,
        seed=seed,
        objective=objective,
        base_id=base_id,
        checkpoint_every=checkpoint_every,
        checkpoint_folder=checkpoint_folder,
        code=code,
        repository=repository,
    )
