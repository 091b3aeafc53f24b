"""Text that others wrote (images, containers, manifests, clients) where people read it: in tables and in our logs.

It stays on its line and cannot act on a terminal, so that nobody's name or message passes for a line of ours.
"""

from __future__ import annotations

import logging


def one_line(text: str) -> str:
    """The text with blanks for line breaks and escapes, as Python writes them, for all that is not to be seen."""
    return "".join(letter if letter.isprintable() else _shown(letter) for letter in text)


def _shown(letter: str) -> str:
    return " " if letter in "\t\r\n" else letter.encode("unicode_escape").decode()


class LogFormatter(logging.Formatter):
    """A record per line that begins with a date; the lines of a traceback below it are indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname).1s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        record.message = one_line(record.getMessage())
        record.asctime = self.formatTime(record)
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n  ".join([self.formatMessage(record), *map(one_line, trace.splitlines())])


def log_to_stderr() -> None:
    """Has this process log to standard error from level INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
