"""JSON text judged before it is decoded: Go's words for what is malformed, and keys that occur twice.

The decoder in use (msgspec) has words of its own and lets the last of two equal keys win without a sign. Both looks are
slow and taken only when the fast ones say so.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

END = "unexpected end of JSON input"
TOO_DEEP = "exceeded max depth"
_SPACE = " \t\r\n"
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_ESCAPE = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.", re.ASCII | re.DOTALL)
_MAX_DIGITS = 1000
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)


class JSONError(ValueError):
    """Malformed JSON; the text is Go's."""


class Pairs(list[tuple[str, Any]]):
    """An object with every key it was written with, equal ones too."""


class Spelled(float):
    """A number that is no integer, with its spelling, which error messages repeat."""

    spelling: str

    def __new__(cls, text: str) -> Spelled:
        """Read a number."""
        number = super().__new__(cls, text)
        number.spelling = text
        return number


def decode(body: bytes) -> Any:
    """Decode JSON as Go does. Raises JSONError."""
    try:
        return msgspec.json.decode(body)
    except RecursionError:
        raise JSONError(TOO_DEEP) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body.decode(errors="replace")
        Scanner(text).check()
        # Well-formed: it was the encoding, or a number too long for an integer.
        return json.loads(_encodable(text), parse_int=_whole)


def with_pairs(body: bytes) -> Any:
    """Decode well-formed JSON with objects as Pairs and the spelling of numbers kept."""
    text = _encodable(body.decode(errors="replace"))
    return json.loads(text, object_pairs_hook=Pairs, parse_float=Spelled, parse_int=_whole)


def may_repeat_keys(body: bytes, decoded: Any) -> bool:
    """Whether some key may occur twice: decoded and written again it is not the same text, spaces aside."""
    try:
        return bool(msgspec.json.format(body, indent=-1) != msgspec.json.encode(decoded))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True  # one of the texts that only the slow look reads


def _encodable(text: str) -> str:
    """Put U+FFFD for escaped halves of surrogate pairs, which no encoding can write again; Go reads them so."""
    return _ESCAPE.sub(lambda match: r"\ufffd" if match[1] else match[0], text) if r"\u" in text else text


def _whole(text: str) -> int | Spelled:
    """Read an integer; one of thousands of digits, which takes quadratic time, is only spelled."""
    return int(text) if len(text) <= _MAX_DIGITS else Spelled(text)


class Scanner:
    """Walks malformed JSON to the first error (encoding/json, scanner.go)."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def check(self) -> None:
        """Raise JSONError unless the text is one value."""
        try:
            self._value()
        except RecursionError:
            raise JSONError(TOO_DEEP) from None
        if self._skip():
            self._fail("after top-level value")

    def _skip(self) -> str:
        """Skip white space and return the next character, empty at the end."""
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _fail(self, where: str) -> None:
        char = self._text[self._at : self._at + 1]
        raise JSONError(f"invalid character {_quoted(char)} {where}" if char else END)

    def _value(self) -> None:
        char = self._skip()
        if char == "{":
            self._members("}", "after object key:value pair", self._member)
        elif char == "[":
            self._members("]", "after array element", self._value)
        elif char == '"':
            self._string()
        elif char in _LITERALS:
            self._literal(_LITERALS[char])
        elif char == "-" or char.isdigit():
            self._number()
        else:
            self._fail("looking for beginning of value")

    def _members(self, close: str, after: str, member: Any) -> None:
        self._at += 1
        if self._skip() == close:
            self._at += 1
            return
        while True:
            member()
            char = self._skip()
            if char not in (",", close):
                self._fail(after)
            self._at += 1
            if char == close:
                return

    def _member(self) -> None:
        if self._skip() != '"':
            self._fail("looking for beginning of object key string")
        self._string()
        if self._skip() != ":":
            self._fail("after object key")
        self._at += 1
        self._value()

    def _string(self) -> None:
        self._at += 1
        while (char := self._next_special()) != '"':
            if not char or char < " ":
                self._fail("in string literal")
            self._at += 1
            self._escape()
        self._at += 1

    def _next_special(self) -> str:
        """Skip what stands for itself in a string and return the next character, empty at the end."""
        match = _PLAIN.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _escape(self) -> None:
        char = self._text[self._at : self._at + 1]
        if not char or char not in '"\\/bfnrtu':
            self._fail("in string escape code")
        self._at += 1
        for _ in range(4 if char == "u" else 0):
            if self._text[self._at : self._at + 1].lower() not in tuple("0123456789abcdef"):
                self._fail("in \\u hexadecimal character escape")
            self._at += 1

    def _literal(self, word: str) -> None:
        for index, expected in enumerate(word):
            if self._text[self._at : self._at + 1] != expected:
                self._fail(f"in literal {word} (expecting {_quoted(word[index])})")
            self._at += 1

    def _number(self) -> None:
        match = _NUMBER.match(self._text, self._at)
        if not match:
            self._at += 1
            self._fail("in numeric literal")
            return
        self._at = match.end()
        char = self._text[self._at : self._at + 1]
        if char == "." and match[2] is None:
            self._at += 1
            self._fail("after decimal point in numeric literal")
        if char in ("e", "E") and match[3] is None:
            self._at += 1
            self._at += self._text[self._at : self._at + 1] in ("+", "-")
            self._fail("in exponent of numeric literal")


def _quoted(char: str) -> str:
    """Write a character as Go's %q does, in single quotes."""
    if char == "'":
        return r"'\''"
    if char.isprintable():
        return f"'{char}'" if char != "\\" else r"'\\'"
    short = {"\t": r"\t", "\n": r"\n", "\r": r"\r", "\a": r"\a", "\b": r"\b", "\f": r"\f", "\v": r"\v"}
    code = ord(char)
    return "'" + (short.get(char) or (rf"\x{code:02x}" if code < 128 else rf"\u{code:04x}")) + "'"
