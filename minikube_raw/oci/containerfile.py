"""Containerfile syntax: text into instructions with their line and column. Pure; nothing is looked up or built here.

Follows the Dockerfile reference for what it takes: comments, continuation lines, flags, JSON and shell forms. What is
not supported is an error that names line and column, never something silently left out.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import NamedTuple

SUPPORTED = (
    *("FROM", "COPY", "ADD", "ENV", "LABEL", "CMD", "ENTRYPOINT"),
    *("WORKDIR", "USER", "EXPOSE", "VOLUME", "STOPSIGNAL"),
)
KNOWN = (*SUPPORTED, "RUN", "ARG", "SHELL", "HEALTHCHECK", "ONBUILD", "MAINTAINER")
_WITH_VARIABLES = tuple(keyword for keyword in SUPPORTED if keyword not in ("CMD", "ENTRYPOINT"))
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S*))?(?:\s+|$)")


class ContainerfileError(ValueError):
    """The text is no Containerfile we can build; `line` and `column` count from 1, `hint` is the cure if there is one."""

    def __init__(self, line: int, column: int, message: str, hint: str = "") -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.line = line
        self.column = column
        self.hint = hint


class Instruction(NamedTuple):
    """One instruction: `text` is what follows keyword and flags, continuation lines joined."""

    keyword: str
    flags: tuple[tuple[str, str], ...]
    text: str
    line: int
    column: int

    def error(self, message: str, hint: str = "") -> ContainerfileError:
        """The error to raise about this instruction."""
        return ContainerfileError(self.line, self.column, message, hint)

    def flag(self, name: str) -> str | None:
        """The last value of a flag, or None."""
        values = self.flag_values(name)
        return values[-1] if values else None

    def flag_values(self, name: str) -> list[str]:
        """Every value of a flag that may repeat."""
        return [value for key, value in self.flags if key == name]

    def words(self) -> list[str]:
        """The text as words, JSON array or quoted as a shell would; raises ContainerfileError."""
        if (array := self.json_array()) is not None:
            return array
        try:
            return shlex.split(self.text)
        except ValueError as error:
            raise self.error(f"{self.keyword}: {error}") from None

    def json_array(self) -> list[str] | None:
        """The exec form, or None if the text is the shell form."""
        if not self.text.startswith("["):
            return None
        try:
            array = json.loads(self.text)
        except ValueError:
            return None  # the reference says: what does not parse as JSON is the shell form
        return array if isinstance(array, list) and all(isinstance(item, str) for item in array) else None

    def command(self) -> tuple[str, ...]:
        """CMD and ENTRYPOINT: the exec form as it is, the shell form under /bin/sh -c."""
        array = self.json_array()
        return tuple(array) if array is not None else ("/bin/sh", "-c", self.text)

    def pairs(self) -> list[tuple[str, str]]:
        """ENV and LABEL: `KEY=value …`, or ENV's old `KEY value`."""
        words = self.words()
        if self.keyword == "ENV" and words and "=" not in words[0]:
            key, _, value = self.text.partition(" ")
            words = [f"{key}={value.strip()}"] if value.strip() else []
        if not words or any(not word.partition("=")[1] or word.startswith("=") for word in words):
            raise self.error(f"{self.keyword} takes KEY=value pairs")
        return [(key, value) for key, _, value in (word.partition("=") for word in words)]


def parse(text: str) -> list[Instruction]:
    """All instructions, FROM first and once. Raises ContainerfileError."""
    instructions = [_instruction(line, column, body) for line, column, body in _logical_lines(text)]
    if not instructions:
        raise ContainerfileError(1, 1, "no instruction in the file")
    if instructions[0].keyword != "FROM":
        raise instructions[0].error("the first instruction must be FROM")
    for later in instructions[1:]:
        if later.keyword == "FROM":
            raise later.error("a second FROM: builds of several stages are not supported")
    return instructions


def _logical_lines(text: str) -> list[tuple[int, int, str]]:
    """(line, column, text) with comments dropped and lines that end in a backslash joined to the next."""
    lines: list[tuple[int, int, str]] = []
    pending: list[str] = []
    start = column = 0
    for number, raw in enumerate(text.splitlines(), 1):
        stripped = raw.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if not pending:
            start, column = number, len(raw) - len(raw.lstrip()) + 1
        pending.append(stripped.removesuffix("\\").rstrip())
        if not stripped.endswith("\\"):
            lines.append((start, column, " ".join(pending)))
            pending = []
    if pending:
        lines.append((start, column, " ".join(pending)))
    return lines


def _instruction(line: int, column: int, body: str) -> Instruction:
    keyword, _, rest = body.partition(" ")
    keyword, rest = keyword.upper(), rest.strip()
    if keyword not in KNOWN:
        raise ContainerfileError(line, column, f"unknown instruction {keyword[:40]}")
    if keyword not in SUPPORTED:
        raise ContainerfileError(line, column, f"{keyword} is not supported; supported are {', '.join(SUPPORTED)}")
    flags = []
    while match := _FLAG.match(rest):
        flags.append((match[1], match[2] or ""))
        rest = rest[match.end() :]
    instruction = Instruction(keyword, tuple(flags), rest, line, column)
    if not rest:
        raise instruction.error(f"{keyword} needs an argument")
    if keyword in _WITH_VARIABLES and "$" in rest:
        raise ContainerfileError(line, column + body.index("$"), f"variables in {keyword} are not supported")
    return instruction
