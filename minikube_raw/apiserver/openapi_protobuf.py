"""Swagger 2.0 as gnostic's protobuf (openapi_v2/OpenAPIv2.proto, message Document): what kubectl before 1.27 reads and nothing else.

Only the messages that our document has are written. A message is a list of fields, a field is number and value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

_VARINT, _BYTES = 0, 2


def document(swagger: dict[str, Any]) -> bytes:
    """Encode a Swagger document."""
    info = _text(1, swagger["info"]["title"]) + _text(2, swagger["info"]["version"])
    paths = b"".join(_message(2, _named(name, _path_item(item))) for name, item in swagger["paths"].items())
    definitions = _named_schemas(swagger["definitions"])
    return _text(1, swagger["swagger"]) + _message(2, info) + _message(8, paths) + _message(9, definitions)


def _path_item(item: dict[str, Any]) -> bytes:
    numbers = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
    return b"".join(_message(numbers[method], _operation(operation)) for method, operation in item.items())


def _operation(operation: dict[str, Any]) -> bytes:
    made = [_text(1, tag) for tag in operation["tags"]]
    made.append(_text(5, operation["operationId"]))
    made += [_text(6, media) for media in operation["produces"]]
    made += [_text(7, media) for media in operation["consumes"]]
    made += [_message(8, _message(1, _parameter(parameter))) for parameter in operation["parameters"]]
    made.append(_message(9, b"".join(_response(code, body) for code, body in operation["responses"].items())))
    made += _extensions(13, operation)
    return b"".join(made)


def _parameter(parameter: dict[str, Any]) -> bytes:
    if parameter["in"] == "body":
        body = _text(2, parameter["name"]) + _text(3, "body") + _flag(4) + _message(5, _schema(parameter["schema"]))
        return _message(1, body)
    query = _text(2, "query") + _text(4, parameter["name"]) + _text(6, parameter["type"])
    return _message(2, _message(3, query))


def _response(code: str, response: dict[str, Any]) -> bytes:
    made = _text(1, response["description"])
    if "schema" in response:
        made += _message(2, _message(1, _schema(response["schema"])))
    return _message(1, _named(code, _message(1, made)))


def _schema(schema: dict[str, Any]) -> bytes:
    made = []
    for number, key in ((1, "$ref"), (2, "format"), (4, "description")):
        if key in schema:
            made.append(_text(number, schema[key]))
    made += [_text(19, name) for name in schema.get("required", ())]
    if "additionalProperties" in schema:
        made.append(_message(21, _message(1, _schema(schema["additionalProperties"]))))
    if "type" in schema:
        made.append(_message(22, _text(1, schema["type"])))
    if "items" in schema:
        made.append(_message(23, _message(1, _schema(schema["items"]))))
    if "properties" in schema:
        made.append(_message(25, _named_schemas(schema["properties"])))
    made += _extensions(31, schema)
    return b"".join(made)


def _named_schemas(schemas: dict[str, Any]) -> bytes:
    return b"".join(_message(1, _named(name, _schema(schema))) for name, schema in schemas.items())


def _extensions(number: int, obj: dict[str, Any]) -> Iterable[bytes]:
    """Yield NamedAny messages, whose value is YAML text."""
    for name, value in obj.items():
        if name.startswith("x-"):
            text = yaml.safe_dump(value, default_flow_style=False).removesuffix("...\n")
            yield _message(number, _named(name, _text(2, text)))


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _message(2, value)


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _flag(number: int) -> bytes:
    return _varint(number << 3 | _VARINT) + b"\1"


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
