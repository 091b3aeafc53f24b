"""Label and field selectors: parsed as the API server parses them, with its error texts (apimachinery, v1.36).

A selector is a tuple of requirements that must all hold; the same class serves `?labelSelector=`, a manifest's
metav1.LabelSelector and node affinity's expressions. Field selectors know =, == and != only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from minikube_raw.api import name_rules
from minikube_raw.api.meta import LabelSelector


class SelectorError(ValueError):
    """Not a selector; the text is Kubernetes', for a 400."""


class Requirement(NamedTuple):
    """One test. `operator` is =, !=, in, notin, exists, !, gt or lt; `values` has one entry except for in and notin."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds; != and notin hold where the key is missing."""
        value = labels.get(self.key)
        return _TESTS[self.operator](value, self.values)

    def __str__(self) -> str:
        if self.operator in ("in", "notin"):
            return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"
        if self.operator in ("exists", "!"):
            return f"{'!' if self.operator == '!' else ''}{self.key}"
        sign = {"gt": ">", "lt": "<"}.get(self.operator, self.operator)
        return f"{self.key}{sign}{self.values[0]}"


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else None


def _greater(value: str | None, values: tuple[str, ...]) -> bool:
    left, right = _integer(value or ""), _integer(values[0])
    return left is not None and right is not None and left > right


def _less(value: str | None, values: tuple[str, ...]) -> bool:
    left, right = _integer(value or ""), _integer(values[0])
    return left is not None and right is not None and left < right


_TESTS: dict[str, Callable[[str | None, tuple[str, ...]], bool]] = {
    "=": lambda value, values: value == values[0],
    "!=": lambda value, values: value != values[0],
    "in": lambda value, values: value in values,
    "notin": lambda value, values: value not in values,
    "exists": lambda value, values: value is not None,
    "!": lambda value, values: value is None,
    "gt": _greater,
    "lt": _less,
}


class Selector(NamedTuple):
    """All requirements must hold; none at all selects everything. `nothing` selects nothing."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether all requirements hold for these labels (or fields)."""
        if self.nothing:
            return False
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def everything(self) -> bool:
        """Whether it selects everything, so that callers can skip asking."""
        return not self.requirements and not self.nothing

    def exact(self, key: str) -> str | None:
        """Return the one value the selector demands for `key`, to look it up in an index instead of scanning."""
        for requirement in self.requirements:
            if requirement.key == key and requirement.operator in ("=", "in") and len(requirement.values) == 1:
                return requirement.values[0]
        return None

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING = Selector()
NOTHING = Selector(nothing=True)

_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!", "Gt": "gt", "Lt": "lt"}


def from_view(selector: LabelSelector | None) -> Selector:
    """Return a manifest's label selector; None selects nothing. Raises SelectorError for an unknown operator."""
    if selector is None:
        return NOTHING
    wanted = [Requirement(key, "=", (value,)) for key, value in selector.match_labels.items()]
    for entry in selector.match_expressions:
        wanted.append(expression(entry.key, entry.operator, entry.values))
    return Selector(tuple(sorted(wanted)))


def expression(key: str, operator: str, values: tuple[str, ...]) -> Requirement:
    """Return a manifest's match expression (In, NotIn, Exists, DoesNotExist, Gt, Lt). Raises SelectorError."""
    if operator not in _OPERATORS:
        raise SelectorError(f'"{operator}" is not a valid label selector operator')
    return Requirement(key, _OPERATORS[operator], values)


def from_labels(labels: Mapping[str, str]) -> Selector:
    """Return the selector that demands exactly these labels (a Service's, a node selector)."""
    return Selector(tuple(Requirement(key, "=", (value,)) for key, value in sorted(labels.items())))


def parse_labels(text: str) -> Selector:
    """Read `?labelSelector=`: "app=web,tier in (a,b),!canary". Raises SelectorError with the API server's text."""
    return Selector(tuple(sorted(_Parser(text).requirements())))


_BINARY = "in, notin, =, ==, !=, gt, lt"
_SIGNS = {"in": "in", "notin": "notin", "=": "=", "==": "=", "!=": "!=", ">": "gt", "<": "lt"}
_TOKEN = re.compile(r"[ \t\r\n]*(?:(==|!=|[=!(),<>])|([^ \t\r\n=!(),<>]+))")


class _Parser:
    """Recursive descent over tokens (is a symbol, literal); the end is (True, "")."""

    def __init__(self, text: str) -> None:
        self._tokens = [(bool(match[1]), match[1] or match[2]) for match in _TOKEN.finditer(text)]
        self._tokens.append((True, ""))
        self._at = 0

    def _peek(self) -> tuple[bool, str]:
        return self._tokens[min(self._at, len(self._tokens) - 1)]

    def _next(self) -> tuple[bool, str]:
        token = self._peek()
        self._at += 1
        return token

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        if self._peek() == (True, ""):
            return found
        self._expect_start("found '{}', expected: !, identifier, or 'end of string'")
        while True:
            try:
                found.append(self._requirement())
            except SelectorError as error:
                raise SelectorError(f"unable to parse requirement: {error}") from None
            token = self._next()
            if token == (True, ""):
                return found
            if token != (True, ","):
                raise SelectorError(f"found '{token[1]}', expected: ',' or 'end of string'")
            self._expect_start("found '{}', expected: identifier after ','")

    def _expect_start(self, text: str) -> None:
        symbol, literal = self._peek()
        if symbol and literal != "!":
            raise SelectorError(text.format(literal))

    def _requirement(self) -> Requirement:
        negated = self._peek() == (True, "!")
        if negated:
            self._next()
        symbol, key = self._next()
        if symbol:
            raise SelectorError(f"found '{key}', expected: identifier")
        _check_key(key)
        if negated:
            return Requirement(key, "!")
        if self._peek() in ((True, ""), (True, ",")):
            return Requirement(key, "exists")
        return self._binary(key)

    def _binary(self, key: str) -> Requirement:
        _, sign = self._next()
        if sign not in _SIGNS:
            raise SelectorError(f"found '{sign}', expected: {_BINARY}")
        operator = _SIGNS[sign]
        values = self._values() if operator in ("in", "notin") else (self._value(),)
        _check_values(key, operator, values)
        return Requirement(key, operator, values)

    def _value(self) -> str:
        if self._peek() in ((True, ""), (True, ",")):
            return ""
        symbol, literal = self._next()
        if symbol:
            raise SelectorError(f"found '{literal}', expected: identifier")
        return literal

    def _values(self) -> tuple[str, ...]:
        _, literal = self._next()
        if literal != "(":
            raise SelectorError(f"found '{literal}' expected: '('")
        values, expect_value = set(), True
        while True:
            symbol, literal = self._next()
            if not symbol and expect_value:
                values.add(literal)
                expect_value = False
            elif (symbol, literal) == (True, ")"):
                return tuple(sorted(values | {""} if expect_value else values))
            elif (symbol, literal) == (True, ","):
                if expect_value:
                    values.add("")
                expect_value = True
            else:
                raise SelectorError(f"found '{literal}', expected: ',', ')' or identifier")


def _check_key(key: str) -> None:
    if wrong := name_rules.qualified_name(key):
        raise SelectorError(f'<nil>: Invalid value: "{key}": {"; ".join(wrong)}')


def _check_values(key: str, operator: str, values: tuple[str, ...]) -> None:
    if operator in ("gt", "lt") and _integer(values[0]) is None:
        text = "for 'Gt', 'Lt' operators, the value must be an integer"
        raise SelectorError(f'values[0]: Invalid value: "{values[0]}": {text}')
    for index, value in enumerate(values):
        if wrong := name_rules.label_value(value):
            raise SelectorError(f'values[{index}][{key}]: Invalid value: "{value}": {"; ".join(wrong)}')


_FIELD = re.compile(r"(.*?)(!=|==|=)((?:\\.|[^\\=])*)", re.DOTALL)


def parse_fields(text: str) -> Selector:
    r"""Read `?fieldSelector=`: "spec.nodeName=a,status.phase!=Failed", `\` escapes. Raises SelectorError."""
    return Selector(tuple(_field(term) for term in _split_terms(text) if term))


def _split_terms(text: str) -> list[str]:
    terms, start, escaped = [], 0, False
    for index, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            terms.append(text[start:index])
            start = index + 1
    return [*terms, text[start:]]


def _field(term: str) -> Requirement:
    match = _FIELD.fullmatch(term)
    if not match:
        raise SelectorError(f"invalid selector: '{term}'; can't understand '{term}'")
    value = re.sub(r"\\([\\,=])", r"\1", match[3])
    return Requirement(match[1], "!=" if match[2] == "!=" else "=", (value,))
