"""Unix sockets under paths of any length: sun_path (unix(7)) holds 108 bytes, run directories may be longer."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class short_name:
    """`with short_name(path) as name`: a name for `path` that fits sun_path, for bind(2) or connect(2) inside the block.

    Raises OSError without its directory. A class, since contextlib would cost every keeper memory.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._directory = -1

    def __enter__(self) -> str:
        self._directory = os.open(os.path.dirname(self._path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._directory}/{os.path.basename(self._path)}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._directory)
