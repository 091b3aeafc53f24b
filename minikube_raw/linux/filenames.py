"""Names of files that are made of an object's namespace and name, which together may be longer than a file's name."""

from __future__ import annotations

LONGEST = 255  # bytes, on most file systems
_SHORTENED = 180  # what is shortened leaves room for a uid or a suffix


def of_object(namespace: str, name: str, *, beside: int = 0) -> str:
    """namespace_name, or its beginning, ~ and a digest where that and `beside` further bytes are no file's name.

    Namespaces and names are ASCII without "_" and "~", so that two objects' names never become one.
    """
    whole = f"{namespace}_{name}"
    if len(whole) + beside <= LONGEST:
        return whole
    import hashlib  # here: processes that make containers import this module and have no use for it

    digest = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return f"{whole[: _SHORTENED - len(digest) - 1]}~{digest}"
