"""A bundle that was pulled, in memory: on its base model as a PEFT model, or on an engine beside others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from model_organisms.errors import BaseModelMismatch
from model_organisms.formats.buffers import wipe

if TYPE_CHECKING:
    import mmap
    from pathlib import Path
    from types import TracebackType

    from model_organisms.formats.capsule import CapsuleHeader
    from model_organisms.formats.provenance import Provenance
    from model_organisms.loading import LoadedBase, LoadedOrganism
    from model_organisms.records import Receipt, Version
    from model_organisms.sampling import Engine
    from model_organisms.sampling import Organism as LoadedAdapter


@dataclass(slots=True)
class Pulled:
    """A bundle in this process's memory: opened, verified, and nowhere on disk. Use it in a `with` block, which wipes it.

    Attributes:
        version: What it is.
        files: Its files by path, views of anonymous memory.
        provenance: What its publisher signed.
        header: What the capsule said: grant, pull, time to destroy it.
        receipt: Proof that the ledger names this pull.
    """

    version: Version
    files: dict[str, memoryview]
    provenance: Provenance
    header: CapsuleHeader
    receipt: Receipt
    _memory: mmap.mmap

    def load(self, base: str | Path | None = None, *, device: str = "auto", dtype: str = "auto") -> LoadedOrganism:
        """Put the adapters on their base model.

        Args:
            base: Folder of the base model, or its hub id; where absent, the one the provenance names, from the hub's cache.
            device: `cpu`, `cuda`, `cuda:1`, or `auto`.
            dtype: `float32`, `bfloat16`, `float16`, or `auto`.

        Returns:
            The PEFT model with its tokenizer, after the known-answer test.

        Raises:
            BaseModelMissing: The base model is not there.
            BaseModelMismatch: It is not the one the provenance names.
            AdapterKeysMismatch: Keys are missing or left over.
            KnownAnswerFailed: It does not answer as the published organism did.
        """
        from model_organisms import loading

        stated = self.provenance.base
        return loading.load(
            self.files,
            base or stated.id,
            revision=stated.revision,
            base_digest=stated.digest,
            device=device,
            dtype=dtype,
            known_answer=self.provenance.known_answer,
        )

    def load_base(self, base: str | Path | None = None, *, device: str = "auto", dtype: str = "auto") -> LoadedBase:
        """Load the base model it belongs to, without anything on it: an engine over it serves many organisms at once.

        Args:
            base: As for `load`.
            device: As for `load`.
            dtype: As for `load`.

        Raises:
            BaseModelMissing: The base model is not there.
            BaseModelMismatch: It is not the one the provenance names.
        """
        from model_organisms import loading

        stated = self.provenance.base
        named = base or stated.id
        return loading.load_base(named, revision=stated.revision, expected_digest=stated.digest, device=device, dtype=dtype)

    def add_to(self, engine: Engine) -> LoadedAdapter:
        """Add it to an engine, beside the organisms that are there.

        The engine goes back to the pulled bytes when it needs the memory in between, so keep the `with` block open for as long as
        it serves the organism; `engine.remove` ends that.

        Args:
            engine: Over the base model that the provenance names.

        Returns:
            The organism's handle in that engine, after the known-answer test.

        Raises:
            BaseModelMismatch: The engine's base is another.
            AdapterKeysMismatch: The base has no such modules.
            KnownAnswerFailed: It does not answer as the published organism did.
            Unavailable: The engine's memory for organisms is taken by those in use.
        """
        stated = self.provenance.base
        if stated.digest and engine.base.digest != stated.digest:
            raise BaseModelMismatch(
                f"This organism belongs to the base model '{stated.id}' of digest {stated.digest[:12]}, and the engine's has "
                f"{engine.base.digest[:12]}; make an engine of `pulled.load_base()`."
            )
        return engine.add(self.files, known_answer=self.provenance.known_answer, version_digest=self.version.digest)

    def close(self) -> None:
        """Overwrite the bundle. A model that was loaded from it has its own copy; remove it from an engine first."""
        self.files.clear()
        wipe(self._memory)

    def __enter__(self) -> Self:
        """Use the bundle."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Overwrite the bundle."""
        self.close()
