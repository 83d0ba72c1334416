"""JSON schemas in the form in which a provider can hold an answer to them. Pure.

Each provider knows a part of JSON Schema: objects whose fields are all named, and few rules beside
types. A rule that it does not know is said in the description; the kernel checks it all the same.
What has no such form at all, such as an object of any fields, is None here, and the answer is asked
for as a call. Above: `_http_model`, and the files that make a request of one API each. Below: the
kernel's values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, cast

import attrs

from turnscope import ModelError
from turnscope.abc import OutputSchema

Plain = dict[str, Any]

_FORMATS: Final = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_SIMPLE: Final = frozenset({"string", "integer", "number", "boolean", "null"})


@attrs.frozen
class Dialect:
    """What one provider knows of JSON Schema."""

    all_required: bool
    """Whether no field of an object may be left out."""
    recursive: bool
    """Whether a schema may hold itself."""
    untyped: bool
    """Whether an enumeration stands without a type."""
    rules: frozenset[str]
    """What it knows beside types, fields, alternatives and formats."""


OPENAI: Final = Dialect(
    all_required=True,
    recursive=True,
    untyped=False,
    rules=frozenset(
        {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"}
    ),
)
ANTHROPIC: Final = Dialect(all_required=False, recursive=False, untyped=True, rules=frozenset())


class _NoForm(Exception):
    """This schema has no form in the dialect."""


@lru_cache(maxsize=128)
def strict(output: OutputSchema, dialect: Dialect) -> Plain | None:
    """The schema of *output* as a provider of that *dialect* takes it; None if it has no form."""
    schema = dict(output.schema)
    definitions: Plain = schema.pop("$defs", {})
    if not dialect.recursive and _is_recursive(definitions):
        return None
    try:
        made = _form(schema, dialect)
        if definitions:
            made["$defs"] = {name: _form(each, dialect) for name, each in definitions.items()}
    except _NoForm:
        return None
    return made


def asked(output: OutputSchema, dialect: Dialect) -> Plain:
    """The schema that is sent; raises ModelError for one that has no form."""
    schema = strict(output, dialect)
    if schema is None:
        raise ModelError(
            f"the schema of {output.name!r} has no form that this API can hold an answer to, as "
            "takes_output() says: ask for the answer as the call of a tool"
        )
    return schema


def _form(given: object, dialect: Dialect) -> Plain:
    if not isinstance(given, Mapping):
        raise _NoForm
    left = dict(cast("Mapping[str, Any]", given))
    made: Plain = {}
    said = left.pop("description", None)
    left.pop("discriminator", None)
    if "$ref" in left:
        # Alone: nothing may stand beside it.
        made = {"$ref": left.pop("$ref")}
        if said or left:
            made = {"anyOf": [made]}
    elif alternatives := left.pop("anyOf", None) or left.pop("oneOf", None):
        made["anyOf"] = [_form(each, dialect) for each in alternatives]
    else:
        _typed(left, made, dialect)
    if words := ", ".join(f"{rule}: {json.dumps(value)}" for rule, value in left.items()):
        said = f"{said} ({words})" if said else words
    return {**made, "description": said} if said else made


def _typed(left: Plain, made: Plain, dialect: Dialect) -> None:
    """Move what *left* says of one type over into *made*, as far as it has a form."""
    kind = left.pop("type", None)
    for literal in ("enum", "const"):
        if literal in left:
            made[literal] = left.pop(literal)
    if kind == "object" and not made:
        _fields(left, made, dialect)
    elif kind == "array" and not made and "prefixItems" not in left:
        made["items"] = _form(left.pop("items", None), dialect)
    elif kind not in _SIMPLE and not (kind is None and made and dialect.untyped):
        raise _NoForm
    if not (dialect.untyped and ("enum" in made or "const" in made)):
        made["type"] = kind
    if left.get("format") in _FORMATS:
        made["format"] = left.pop("format")
    for rule in dialect.rules & left.keys():
        made[rule] = left.pop(rule)


def _fields(left: Plain, made: Plain, dialect: Dialect) -> None:
    more = left.pop("additionalProperties", "properties" not in left)
    fields: Plain = left.pop("properties", {})
    if isinstance(more, Mapping) or (more and not fields) or "patternProperties" in left:
        raise _NoForm  # an object of fields that nobody has named
    required: list[str] = left.pop("required", [])
    if dialect.all_required:
        for name, field in fields.items():
            # What is left out otherwise is given as its default, or as a list without members.
            # Anything else would have to be made up.
            known = "default" in field or field.get("type") == "array"
            if name not in required and not known:
                raise _NoForm
        required = list(fields)
    made["properties"] = {name: _form(field, dialect) for name, field in fields.items()}
    made["required"] = list(required)
    made["additionalProperties"] = False


def _is_recursive(definitions: Mapping[str, Any]) -> bool:
    refers = {name: set(_references(each)) for name, each in definitions.items()}

    def reaches(name: str, path: tuple[str, ...]) -> bool:
        return name in path or any(reaches(other, (*path, name)) for other in refers.get(name, ()))

    return any(reaches(name, ()) for name in refers)


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, list):
        for each in cast("list[object]", schema):
            yield from _references(each)
    elif isinstance(schema, dict):
        for key, value in cast("dict[str, object]", schema).items():
            if key == "$ref" and isinstance(value, str):
                yield value.rpartition("/")[2]
            else:
                yield from _references(value)
