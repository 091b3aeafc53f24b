"""JSON for processes that must stay small: the C scanner and encoder of the standard library without its Python layer.

`json` imports re and enum, and each call through it dirties 150 kB of pages that a keeper would share with the launcher.
Where an interpreter has no such accelerators, `json` itself does the work.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


class _Settings:
    """What the C scanner reads from its context (json.decoder.JSONDecoder)."""

    strict = True
    object_hook = object_pairs_hook = parse_constant = None
    parse_float = float
    parse_int = int


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} is not JSON")


_scan: Callable[[str, int], tuple[Any, int]]
_encode: Callable[[object, Any], Iterable[str]]
try:
    import _json

    settings: Any = _Settings()
    _scan = _json.make_scanner(settings)
    _encode = _json.make_encoder(None, _refuse, _json.encode_basestring_ascii, None, ":", ",", False, False, False)
except (ImportError, AttributeError, TypeError):
    import json

    decoder: Any = json.JSONDecoder()
    _scan = decoder.scan_once
    _encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).iterencode


def dumps(value: object) -> str:
    """Returns a value as compact JSON in ASCII. Raises TypeError for what is not JSON."""
    return "".join(_encode(value, 0))


def loads(text: str | bytes) -> Any:
    """Reads one JSON value that starts at the first character. Raises ValueError for anything else."""
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value, end = _scan(text, 0)
    except (StopIteration, ImportError) as error:  # the scanner would import its exception, which keepers forbid
        raise ValueError(f"not JSON: {text[:40]!r}") from error
    if text[end:].strip():
        raise ValueError(f"more than one JSON value: {text[end : end + 40]!r}")
    return value
