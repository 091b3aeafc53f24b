"""The shapes of Kubernetes' types, made from the schemas kubernetes-validate publishes for one version, each on first use.

A shape knows what a field is, how lists and maps merge and what Go calls it. It carries structure only: defaults, enums,
ranges and rules between fields belong to the API server's tables. `typed` reads values by shapes, `patch` and `apply`
merge by them.
"""

from __future__ import annotations

import enum
import functools
import importlib.util
from pathlib import Path
from typing import Any

import msgspec

from minikube_raw.api import gotypes

VERSION = "v1.36.0"

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."


class Form(enum.IntEnum):
    """What a value is on the wire."""

    STRUCT = 1
    MAP = 2
    LIST = 3
    STRING = 4
    INTEGER = 5
    BOOLEAN = 6
    NUMBER = 7
    QUANTITY = 8
    INT_OR_STRING = 9
    TIME = 10
    MICRO_TIME = 11
    BYTES = 12
    ANY = 13


# What a scalar is when nobody set it.
ZEROES: dict[Form, str | int | bool] = {
    Form.STRING: "",
    Form.INTEGER: 0,
    Form.BOOLEAN: False,
    Form.NUMBER: 0,
    Form.QUANTITY: "0",
    Form.INT_OR_STRING: 0,
}


class Shape:
    """One type. `item` is a list's or map's element; `keys` identify a list's items where `list_type` is map."""

    __slots__ = ("atomic", "bits", "form", "go", "item", "keys", "list_type")

    def __init__(self, form: Form, go: str, item: Shape | None = None, bits: int = 64) -> None:
        self.form = form
        self.go = go
        self.item = item
        self.bits = bits
        self.atomic = False
        self.list_type = "atomic"
        self.keys: tuple[str, ...] = ()

    @property
    def element(self) -> Shape:
        """The element of a list or map."""
        assert self.item is not None
        return self.item


class Field:
    """A field of a struct. `plain`: Go leaves it out when it is zero; `required`: Go writes it even then."""

    __slots__ = ("merge_key", "plain", "required", "shape", "strategies")

    def __init__(self, shape: Shape, schema: dict[str, Any], *, plain: bool, required: bool) -> None:
        self.shape = shape
        self.plain = plain
        self.required = required
        self.strategies = frozenset(filter(None, schema.get("x-kubernetes-patch-strategy", "").split(",")))
        self.merge_key: str = schema.get("x-kubernetes-patch-merge-key", "")


class Struct(Shape):
    """A type with named fields, which are made when first asked for: types may contain themselves."""

    __slots__ = ("_embedded", "_fields", "_schema", "_written", "name")

    def __init__(self, definition: str, schema: dict[str, Any]) -> None:
        *_, version, self.name = definition.split(".")
        super().__init__(Form.STRUCT, f"{version}.{self.name}")
        self.atomic = schema.get("x-kubernetes-map-type") == "atomic"
        self._schema = schema
        self._fields: dict[str, Field] | None = None
        self._written: dict[str, Any] | None = None
        self._embedded: tuple[tuple[str, Struct], ...] | None = None

    @property
    def fields(self) -> dict[str, Field]:
        """The fields by their names on the wire."""
        if self._fields is None:
            required = self._schema.get("required", ())
            self._fields = {
                name: _field(self.name, name, schema, name in required)
                for name, schema in self._schema["properties"].items()
            }
            self._schema = {}
        return self._fields

    @property
    def written(self) -> dict[str, Any]:
        """What Go writes into every value of the type, set or not: zeroes of required scalars, and a few nulls."""
        if self._written is None:
            required = ((name, field.shape.form) for name, field in self.fields.items() if field.required)
            self._written = {name: ZEROES[form] for name, form in required if form in ZEROES}
            self._written |= gotypes.WRITTEN.get(self.name, {})
        return self._written

    @property
    def embedded(self) -> tuple[tuple[str, Struct], ...]:
        """The fields Go writes as `{}` when nobody set them."""
        if self._embedded is None:
            found = ((name, self.fields.get(name)) for name in gotypes.EMBEDDED.get(self.name, ()))
            self._embedded = tuple(
                (name, field.shape) for name, field in found if field and isinstance(field.shape, Struct)
            )
        return self._embedded


def _read() -> bytes:
    """Return the published file, without importing the package that carries it: that costs 56 ms and 7 MB."""
    package = importlib.util.find_spec("kubernetes_validate")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("kubernetes-validate is not installed, and with it the schemas of Kubernetes' types")
    folder = Path(package.origin).parent / "kubernetes-json-schema" / f"{VERSION}-local"
    return (folder / "_definitions.json").read_bytes()


@functools.cache
def _raw_definitions() -> dict[str, msgspec.Raw]:
    """The file with each definition still as text: 1.6 MB, where all of it decoded would be 12."""
    file = msgspec.json.decode(_read(), type=dict[str, msgspec.Raw])
    return msgspec.json.decode(file["$defs"], type=dict[str, msgspec.Raw])


def definitions() -> dict[str, dict[str, Any]]:
    """Return all definitions as published, descriptions included; decoded anew at each call, since few ever ask."""
    decoded: dict[str, dict[str, Any]] = msgspec.json.decode(_read())["$defs"]
    return decoded


_SPECIAL = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": (Form.QUANTITY, "resource.Quantity"),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": (Form.INT_OR_STRING, "int32"),
    _META + "Time": (Form.TIME, "string"),
    _META + "MicroTime": (Form.MICRO_TIME, "string"),
    _META + "FieldsV1": (Form.ANY, "v1.FieldsV1"),
    "io.k8s.apimachinery.pkg.runtime.RawExtension": (Form.ANY, "runtime.RawExtension"),
}


@functools.cache
def shape(definition: str) -> Shape:
    """Return the shape of a published definition. Raises KeyError for an unknown one."""
    if definition in _SPECIAL:
        return Shape(*_SPECIAL[definition])
    schema = msgspec.json.decode(_raw_definitions()[definition])
    if "properties" in schema:
        return Struct(definition, schema)
    return Shape(Form.ANY, definition.rpartition(".")[2])


def struct(definition: str) -> Struct:
    """Return the shape of a definition with fields: a kind's, for instance."""
    found = shape(definition)
    assert isinstance(found, Struct), definition
    return found


def _field(owner: str, name: str, schema: dict[str, Any], required: bool) -> Field:
    made = _shape(schema)
    if made.form is Form.STRING:
        made.go = gotypes.NAMED_STRINGS.get((owner, name), made.go)
        written = name in gotypes.WRITTEN.get(owner, ())
        plain = not written and name not in gotypes.POINTER_STRINGS.get(owner, ())
    elif made.form in (Form.LIST, Form.MAP, Form.BYTES):
        plain = (owner, name) not in gotypes.TELLING_LISTS
    else:
        plain = name in gotypes.PLAIN_SCALARS.get(owner, ())
    return Field(made, schema, plain=plain and not required, required=required)


def _shape(schema: dict[str, Any]) -> Shape:
    if "$ref" in schema:
        return shape(schema["$ref"].rpartition("/")[2])
    type_ = schema.get("type", ())
    if "array" in type_:
        return _list(schema)
    if "object" in type_ and "additionalProperties" in schema:
        return _map(schema)
    if "string" in type_:
        return Shape(Form.BYTES, "[]uint8") if schema.get("format") == "byte" else Shape(Form.STRING, "string")
    if "integer" in type_:
        bits = 32 if schema.get("format") == "int32" else 64
        return Shape(Form.INTEGER, f"int{bits}", bits=bits)
    if "boolean" in type_:
        return Shape(Form.BOOLEAN, "bool")
    return Shape(Form.NUMBER, "float64") if "number" in type_ else Shape(Form.ANY, "interface {}")


def _list(schema: dict[str, Any]) -> Shape:
    item = _shape(schema["items"])
    made = Shape(Form.LIST, f"[]{item.go}", item)
    made.list_type = schema.get("x-kubernetes-list-type", "atomic")
    made.keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
    made.atomic = made.list_type == "atomic"
    return made


def _map(schema: dict[str, Any]) -> Shape:
    item = _shape(schema["additionalProperties"])
    # Every map of quantities in the API is the named type ResourceList.
    go = "v1.ResourceList" if item.form is Form.QUANTITY else f"map[string]{item.go}"
    made = Shape(Form.MAP, go, item)
    made.atomic = schema.get("x-kubernetes-map-type") == "atomic"
    return made
