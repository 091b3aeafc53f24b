"""Unix sockets under paths of any length: sun_path (unix(7)) holds 108 bytes, run directories may be longer."""

from __future__ import annotations

import os
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def short_name(path: str) -> Iterator[str]:
    """A name for `path` that fits sun_path, for bind(2) or connect(2) inside the block. Raises OSError without its directory."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    finally:
        os.close(directory)
