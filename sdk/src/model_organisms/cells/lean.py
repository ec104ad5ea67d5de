"""Keeps out of a cell what the model libraries would import and no answer needs; for `worker.py` alone, before it loads a model.

A third of what they import by themselves is for other things: a compiler, work of many processes, helpers of libraries that
happen to be installed. Without it a cell starts in two thirds of the time and takes a quarter less memory.

- Some libraries are absent: transformers and accelerate look whether they are there, and do without.
- The compiler sleeps: it can be told what not to compile. When asked for more it wakes, and runs as it would have when it was
  imported. So nothing that worked stops working, it only starts later.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec

ABSENT = frozenset({"boto3", "scipy", "sklearn"})
"""For losses, for drawing with a helper, and for a cloud."""
COMPILER = "torch._dynamo"


def keep_lean() -> None:
    """Let them be absent, or sleep. Imports torch; transformers is not imported yet."""
    sys.meta_path[:] = [_Others if finder is PathFinder else finder for finder in sys.meta_path]
    import torch

    torch.distributed.is_available = lambda: False  # a cell is one process without a network
    spec = find_spec(COMPILER)
    if spec is not None and COMPILER not in sys.modules:
        sys.modules[COMPILER] = compiler = module_from_spec(spec)
        vars(compiler).update(allow_in_graph=_marking, assume_constant_result=_marking, disable=_marking)
        compiler.__class__ = _Sleeping


class _Others(PathFinder):
    """Finds every module but those of libraries that shall be absent."""

    @classmethod
    def find_spec(cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] in ABSENT:
            return None
        return super().find_spec(fullname, path, target)


class _Sleeping(ModuleType):
    """A module before it runs. Modules below it can be imported meanwhile."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        spec = self.__spec__
        if not name.startswith("__") and spec is not None and spec.loader is not None:
            self.__class__ = ModuleType  # type: ignore[assignment] # back to what modules are
            spec.loader.exec_module(self)
        return ModuleType.__getattribute__(self, name)


def _marking(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:  # noqa: ANN401 - it, or a decorator
    """Mark nothing: only a compiler would read it."""
    return _marking if function is None else function
