"""Puts our plugins as executables into a directory, for other runtimes' CNI_PATH."""

from __future__ import annotations

import sys
from pathlib import Path

from netplugins import invoke, program

SHEBANG_BYTES = 255  # BINPRM_BUF_SIZE less the newline: the kernel cuts the rest off (execve(2))


def install(directory: Path, *, interpreter: str = sys.executable) -> list[Path]:
    """Writes one executable per plugin (0755, replacing older ones atomically) and returns their paths.

    The files import the installed package, so they follow its upgrades. Raises OSError, or ValueError for an interpreter whose path
    no shebang line can hold.
    """
    if len(interpreter) + 6 > SHEBANG_BYTES or any(character.isspace() for character in interpreter):
        raise ValueError(
            f"{interpreter}: the interpreter's path does not fit a #! line (too long, or white space in it)"
        )
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for plugin_type in sorted(invoke.OURS):
        target = directory / plugin_type
        partial = directory / f".{plugin_type}.partial"
        partial.write_text(program.executable(plugin_type, interpreter))
        partial.chmod(0o755)
        partial.replace(target)
        written.append(target)
    return written
