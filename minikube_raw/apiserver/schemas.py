"""The published schemas in OpenAPI's form, as kube-apiserver publishes them: nullable and int-or-string undone, references rewritten.

The rewrite walks schemas by position (properties' values, items, …), never by key alone: in apiextensions' JSONSchemaProps
`$ref`, `type` and `enum` are names of properties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Schema = dict[str, Any]
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_CARRIED = (
    "description",
    "format",
    "required",
    "x-kubernetes-group-version-kind",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-unions",
)


def ref_name(schema: Schema) -> str:
    """Return the definition a schema refers to, empty for none."""
    reference = schema.get("$ref")
    return reference.rsplit("/", 1)[1] if isinstance(reference, str) else ""


def reachable(definitions: dict[str, Schema], roots: Iterable[str]) -> list[str]:
    """Return the roots and everything they refer to, sorted."""
    found: set[str] = set()
    waiting = [root for root in roots if root in definitions]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [reference for reference in _references(definitions[name]) if reference in definitions]
    return sorted(found)


def _references(schema: Schema) -> Iterable[str]:
    if name := ref_name(schema):
        yield name
    for child in _children(schema):
        yield from _references(child)


def _children(schema: Schema) -> Iterable[Schema]:
    yield from (schema.get("properties") or {}).values()
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield schema[key]


def v2(name: str, schema: Schema) -> Schema:
    """Return a definition for Swagger 2.0."""
    if name == _INT_OR_STRING:
        return _with_description(schema, {"type": "string", "format": "int-or-string"})
    if name == _QUANTITY:
        return _with_description(schema, {"type": "string"})
    return _rewrite(schema, _v2_reference)


def v3(name: str, schema: Schema) -> Schema:
    """Return a definition for OpenAPI 3.0."""
    if name == _INT_OR_STRING:
        either = {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
        return _with_description(schema, either)
    if name == _QUANTITY:
        return _with_description(schema, {"oneOf": [{"type": "string"}, {"type": "number"}]})
    return _rewrite(schema, _v3_reference)


def _with_description(schema: Schema, form: Schema) -> Schema:
    return {**form, "description": schema["description"]} if "description" in schema else form


def _v2_reference(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def _v3_reference(name: str) -> Schema:
    # 3.0 ignores what stands beside a $ref; allOf lets the description stay (kube-openapi, builder3).
    return {"allOf": [{"$ref": f"#/components/schemas/{name}"}]}


def _rewrite(schema: Schema, reference: Callable[[str], Schema]) -> Schema:
    made: Schema = {key: schema[key] for key in _CARRIED if key in schema}
    if name := ref_name(schema):
        made.update(reference(name))
        return made
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next(one for one in kind if one != "null")
    if isinstance(kind, str):
        made["type"] = kind
    if "properties" in schema:
        made["properties"] = {key: _rewrite(value, reference) for key, value in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            made[key] = _rewrite(schema[key], reference)
    return made
