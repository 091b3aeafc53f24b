"""Kubernetes' quantities ("100m", "1.5Gi", "1e3"), exact, spelled as apimachinery stores them (v1.36).

A quantity is a whole number of nanos and a format it prefers. Some spellings that are not canonical are kept as they
came ("007", "+1", "1E3"), others are rewritten ("1000m" to "1"); the rule is Kubernetes' and lives in `_is_kept`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

import msgspec

NANO = 10**9
MAX_INT64 = 2**63 - 1

FORMAT_ERROR = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
SUFFIX_ERROR = "unable to parse quantity's suffix"

_PARTS = re.compile(r"([+-]?)0*([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII)
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]+)", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIXES = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIXES = {0: "", **{exponent: suffix for suffix, exponent in _BINARY.items()}}
# A wild exponent ("1e999999999") would have us build a number of a gigabyte; Kubernetes has 32-bit scales instead.
_MAX_EXPONENT = 1000

DECIMAL_SI, BINARY_SI, DECIMAL_EXPONENT = "DecimalSI", "BinarySI", "DecimalExponent"


class QuantityError(ValueError):
    """Not a quantity; the text is Kubernetes'."""


@functools.total_ordering
class Quantity(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An exact amount: `nanos` billionths, the `format` to write it in, its `text` where that is kept as it came."""

    nanos: int
    format: str = DECIMAL_SI
    text: str = ""

    def __str__(self) -> str:
        return self.text or _canonical(self.nanos, self.format)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def value(self) -> int:
        """Return whole units, rounded away from zero."""
        return _divide_away_from_zero(self.nanos, NANO)

    def milli(self) -> int:
        """Return thousandths, rounded away from zero: millicores of a cpu quantity."""
        return _divide_away_from_zero(self.nanos, NANO // 1000)

    def rounded_to_milli(self) -> Quantity:
        """Return it without digits finer than milli, rounded away from zero, as the API server stores resources."""
        nanos = self.milli() * (NANO // 1000)
        return self if nanos == self.nanos else Quantity(nanos, self.format)


def parse(text: str | int | float) -> Quantity:
    """Read a quantity as it stands in JSON, a string or a number. Raises QuantityError."""
    return _parse(text if isinstance(text, str) else repr(text))


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    text = text.strip(" \t\n\v\f\r")
    if not text:
        raise QuantityError(FORMAT_ERROR)
    if text == "0":
        return Quantity(0, DECIMAL_SI, text)
    match = _PARTS.fullmatch(text)
    if not match:
        raise QuantityError(FORMAT_ERROR)
    sign, whole, fraction, suffix = match[1], match[2] or "0", match[3] or "", match[4]
    base, exponent, format_ = _interpret(suffix)
    nanos = _scale(int(whole + fraction), len(fraction), base, exponent)
    if _is_kept(whole, fraction, base, exponent):
        return Quantity(-nanos if sign == "-" else nanos, format_, text)
    if format_ == BINARY_SI:
        nanos = min(nanos, MAX_INT64 * NANO)
        if nanos < NANO:
            format_ = DECIMAL_SI
    return Quantity(-nanos if sign == "-" else nanos, format_)


def _interpret(suffix: str) -> tuple[int, int, str]:
    """Return base, exponent and format of a suffix."""
    if suffix in _DECIMAL:
        return 10, _DECIMAL[suffix], DECIMAL_SI
    if suffix in _BINARY:
        return 2, _BINARY[suffix], BINARY_SI
    match = _EXPONENT.fullmatch(suffix)
    if not match or abs(int(match[1])) > _MAX_EXPONENT:
        raise QuantityError(SUFFIX_ERROR)
    return 10, int(match[1]), DECIMAL_EXPONENT


def _scale(digits: int, fraction_digits: int, base: int, exponent: int) -> int:
    """Return digits × base^exponent in nanos, finer amounts rounded away from zero."""
    if base == 2:
        return _divide_away_from_zero((digits << exponent) * NANO, 10**fraction_digits)
    power = 9 + exponent - fraction_digits
    return digits * 10**power if power >= 0 else _divide_away_from_zero(digits, 10**-power)


def _is_kept(whole: str, fraction: str, base: int, exponent: int) -> bool:
    """Whether apimachinery stores the text as it came: on its fast path, where a rough test takes it for canonical."""
    if base == 2:
        fast = not fraction and 15 - len(whole) - exponent * 3 // 10 - 1 >= 0
        return fast and int(whole) & 0x07 != 0
    scale = exponent - len(fraction)
    digits = whole + fraction
    fast = len(digits) <= 18 and scale >= -9
    return fast and scale % 3 == 0 and not digits.endswith("000") and digits[0] != "0"


def _canonical(nanos: int, format_: str) -> str:
    if nanos == 0:
        return "0"
    if format_ == BINARY_SI and abs(nanos) >= 1024 * NANO and nanos % NANO == 0:
        return _binary(nanos // NANO)
    exponent = -9
    while nanos % 1000 == 0:
        nanos //= 1000
        exponent += 3
    if format_ == DECIMAL_EXPONENT or exponent not in _DECIMAL_SUFFIXES:
        return f"{nanos}e{exponent}" if exponent else str(nanos)
    return f"{nanos}{_DECIMAL_SUFFIXES[exponent]}"


def _binary(value: int) -> str:
    exponent = 0
    while value % 1024 == 0 and exponent < 60:
        value //= 1024
        exponent += 10
    return f"{value}{_BINARY_SUFFIXES[exponent]}"


def _divide_away_from_zero(number: int, divisor: int) -> int:
    quotient = -(-abs(number) // divisor)
    return quotient if number >= 0 else -quotient


def canonical(text: str | int | float) -> str:
    """Return the spelling the API server stores. Raises QuantityError."""
    return str(parse(text))


def resource(amounts: Mapping[str, str | int | float], name: str) -> Quantity:
    """Return an amount of a resource list (requests, limits, allocatable); absent is zero."""
    return parse(amounts.get(name, "0"))
