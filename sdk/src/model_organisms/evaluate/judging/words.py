"""Any Inspect model, asked for one word of a few about a text. The instructions are this project's, not a published prompt."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from inspect_ai.model import GenerateConfig

if TYPE_CHECKING:
    from inspect_ai.model import Model


@dataclass(frozen=True, slots=True)
class OneWord:
    """Asks at temperature 0; whoever is one says what is asked, and which words are answers."""

    INSTRUCTIONS: ClassVar[str]
    """With `{NAME}` for what the question is about."""
    WORDS: ClassVar[tuple[str, ...]]

    model: Model

    @property
    def id(self) -> str:
        """As Inspect names the model."""
        return str(self.model)

    @property
    def prompt_digest(self) -> str:
        """SHA-256 of the instructions."""
        return hashlib.sha256(self.INSTRUCTIONS.encode()).hexdigest()

    async def word(self, **about: str) -> str | None:
        """Ask.

        Args:
            about: A text for each name in the instructions.

        Returns:
            One of the words, as they are written there; none where the answer has not exactly one.
        """
        # One pass, so that a text which holds "{thought}" is no place for another.
        prompt = re.sub(rf"\{{({'|'.join(about)})\}}", lambda found: about[found[1]], self.INSTRUCTIONS)
        output = await self.model.generate(prompt, config=GenerateConfig(temperature=0.0, max_tokens=8))
        said = {one for one in self.WORDS if re.search(rf"\b{one}\b", output.completion, re.IGNORECASE)}
        return said.pop() if len(said) == 1 else None
