"""mtree(5) specifications: directories, links and small files of an image as readable text.

`ADD rootfs.mtree /` takes such a file as bsdtar does: as one more archive format. Full-path entries, `/set` and
`/unset`; keywords type, mode, uid, gid, link and contents (a file beside the specification).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .filetree import Node, directory, from_disk, symlink

KEYWORDS = ("type", "mode", "uid", "gid", "link", "contents")


class MtreeError(ValueError):
    """A line that is no specification we know."""


def read(file: Path) -> Iterator[tuple[str, Node]]:
    """(path, node) of each entry in order. Raises MtreeError with the line's number."""
    defaults: dict[str, str] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            if words[0] == "/set":
                defaults.update(_keywords(words[1:]))
            elif words[0] == "/unset":
                defaults = {key: value for key, value in defaults.items() if key not in words[1:]}
            else:
                yield _unescaped(words[0]), _node({**defaults, **_keywords(words[1:])}, file.parent)
        except (ValueError, OSError) as error:
            raise MtreeError(f"{file.name}, line {number}: {error}") from error


def _keywords(words: list[str]) -> dict[str, str]:
    pairs = {key: value for key, _, value in (word.partition("=") for word in words)}
    if unknown := sorted(pairs.keys() - set(KEYWORDS)):
        raise ValueError(f"unknown keyword {unknown[0]}")
    return pairs


def _node(keywords: dict[str, str], folder: Path) -> Node:
    kind, uid, gid = keywords.get("type"), int(keywords.get("uid", "0")), int(keywords.get("gid", "0"))
    if kind == "dir":
        return directory(int(keywords.get("mode", "0755"), 8), uid, gid)
    if kind == "link":
        return symlink(_unescaped(keywords["link"]))._replace(uid=uid, gid=gid)
    if kind == "file":
        node = from_disk(folder / keywords["contents"]) if "contents" in keywords else Node(b"0", 0o644)
        return node._replace(mode=int(keywords.get("mode", "0644"), 8), uid=uid, gid=gid)
    raise ValueError(f"type is {kind}, not dir, link or file")


def _unescaped(text: str) -> str:
    r"""vis(3) escapes: `\040` is a space."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
