"""The recorder as a callback of `transformers.Trainer`; imported only where transformers is."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from model_organisms.recording.recorder import Recorder

# What decides a training; folders, host names and reporting of the Trainer's hundred settings stay out.
SETTINGS = (
    "learning_rate",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "optim",
    "bf16",
    "fp16",
    "seed",
    "data_seed",
    "label_smoothing_factor",
)


class TrainerRecorder(Recorder, TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """Records through the Trainer's events; give it as `callbacks=[rec]`."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002 - transformers calls it so
        """Take settings and seed, and start the clock."""
        self.__enter__()
        settings = {name: getattr(args, name) for name in SETTINGS if hasattr(args, name)}
        known: dict[str, object] = {
            name: value if isinstance(value, (bool, int, float, type(None))) else str(value) for name, value in settings.items()
        }
        self._config = self._config or known
        self._seed = args.seed if self._seed is None else self._seed

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ANN401, ARG002 - as above
        """Note what the Trainer logs of a step."""
        if logs and "loss" in logs:
            norm, rate = float(logs.get("grad_norm") or 0.0), float(logs.get("learning_rate") or 0.0)
            self.step(state.global_step, loss=float(logs["loss"]), learning_rate=rate, gradient_norm=norm)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ANN401, ARG002 - as above
        """Keep a checkpoint every so many steps."""
        if self._every and state.global_step % self._every == 0:
            self.checkpoint(model, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ANN401, ARG002 - as above
        """Keep what the Trainer saves."""
        if not self._every:
            self.checkpoint(model, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401, ARG002 - as above
        """Stop the clock."""
        self.__exit__(None, None, None)
