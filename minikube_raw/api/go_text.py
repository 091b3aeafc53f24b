"""Values as Go's %v prints them, which some of Kubernetes' messages contain: map[a:1 b:[x y]]."""

from __future__ import annotations

from typing import Any


def value(item: Any) -> str:
    """Print decoded JSON the way fmt does."""
    if isinstance(item, dict):
        return f"map[{' '.join(f'{key}:{value(item[key])}' for key in sorted(item))}]"
    if isinstance(item, list):
        return f"[{' '.join(map(value, item))}]"
    if item is None:
        return "<nil>"
    if isinstance(item, bool):
        return "true" if item else "false"
    return str(item)


def quoted(text: str) -> str:
    """Quote text as %q does for what JSON can hold."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(char, char) for char in text) + '"'
