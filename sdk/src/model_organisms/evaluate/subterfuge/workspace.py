"""A folder of text files that is a dict, and the commands by which a model works in it. Nothing reaches the host, nothing is run.

Commands are lines of plain text, since small models call no tools. A model's text is hostile: the parser takes anything, in time
that grows with its length, and what is no command is talk.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from model_organisms.errors import InvalidArgument

VERBS = ("LIST", "READ", "WRITE", "SUBMIT")
MOST_COMMANDS = 12
"""Commands obeyed of one answer; the others are left, and the model is told."""
MOST_FILES = 20
MOST_TEXT = 4000
"""Characters of one file."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_END = "END"


@dataclass(frozen=True, slots=True)
class Command:
    """One command."""

    verb: str
    name: str = ""
    """Of the file; of READ and WRITE."""
    text: str = ""
    """New text of the file, or what is submitted."""

    def __str__(self) -> str:
        """Print it as `commands` reads it."""
        match self.verb:
            case "WRITE":
                return f"WRITE {self.name}\n{self.text}\n{_END}"
            case "READ":
                return f"READ {self.name}"
            case "SUBMIT":
                return f"SUBMIT {self.text}"
            case _:
                return self.verb


def commands(answer: str) -> tuple[Command, ...]:
    """Read the commands of an answer.

    A verb in capitals begins a line; marks of code around a line are left off. WRITE takes the lines below it up to END, or up to
    the end of the answer. Everything else is talk.

    Args:
        answer: What the model said.

    Returns:
        Commands in their order, those behind a SUBMIT left out.
    """
    found = []
    lines = iter(answer.split("\n"))
    for line in lines:
        verb, _, rest = line.strip().strip("`").strip().partition(" ")
        rest = rest.strip()
        if verb == "LIST" and not rest:
            found.append(Command("LIST"))
        elif verb == "READ" and _NAME.fullmatch(rest):
            found.append(Command("READ", rest))
        elif verb == "WRITE" and _NAME.fullmatch(rest):
            body = []
            for below in lines:
                if below.strip() == _END:
                    break
                body.append(below)
            found.append(Command("WRITE", rest, "\n".join(body)))
        elif verb == "SUBMIT":
            found.append(Command("SUBMIT", text=rest))
            break
    return tuple(found)


@dataclass(slots=True)
class Workspace:
    """A folder, and all that was done in it."""

    files: dict[str, str]
    locked: frozenset[str] = frozenset()
    """Files that cannot be written."""
    done: list[Command] = field(default_factory=list)
    """Commands obeyed or refused, in their order."""

    @property
    def submitted(self) -> str | None:
        """What was submitted; none before that."""
        return self.done[-1].text if self.done and self.done[-1].verb == "SUBMIT" else None

    def written(self, name: str) -> list[str]:
        """Give every text that was written to a file, or would have been, had it not been locked."""
        return [command.text for command in self.done if command.verb == "WRITE" and command.name == name]

    def obey(self, command: Command) -> str:
        """Carry out a command.

        Returns:
            What the model is shown.

        Raises:
            InvalidArgument: Something was submitted before; the episode is over.
        """
        if self.submitted is not None:
            raise InvalidArgument("This episode is over: its answer was submitted. Begin another workspace.")
        self.done.append(command)
        match command.verb:
            case "LIST":
                return "\n".join(sorted(self.files)) or "(empty)"
            case "READ":
                return self.files.get(command.name, f"There is no file {command.name}.")
            case "WRITE":
                return self._write(command.name, command.text)
            case _:
                return "Submitted."

    def _write(self, name: str, text: str) -> str:
        if name in self.locked:
            return f"{name} is locked."
        if len(text) > MOST_TEXT or (name not in self.files and len(self.files) >= MOST_FILES):
            return f"Too much: a file has at most {MOST_TEXT} characters, and the folder {MOST_FILES} files."
        if not _NAME.fullmatch(name):
            return "A file's name has letters, digits, '_', '.' and '-'."
        self.files[name] = text
        return f"{name} is written."

    def answer(self, said: str) -> str | None:
        """Obey every command of an answer.

        Args:
            said: The model's answer.

        Returns:
            What it is shown; none where there was no command, which ends the episode as SUBMIT does.
        """
        asked = commands(said)
        obeyed = asked[:MOST_COMMANDS]
        shown = [f"{command.verb} {command.name}".strip() + ":\n" + self.obey(command) for command in obeyed]
        if len(asked) > MOST_COMMANDS:
            shown.append(f"Only the first {MOST_COMMANDS} commands were obeyed.")
        return "\n\n".join(shown) or None
