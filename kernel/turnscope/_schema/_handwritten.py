"""Tools whose JSON schema is written by hand: the check of arguments against it, by jsonschema.

Above: `_schema`, which loads this file with the first such schema. Below: jsonschema, pydantic's
reader of JSON text, `_problems`. Nothing is fetched: a schema holds all that it refers to.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from typing import Any, cast

import attrs
import jsonschema
import jsonschema.exceptions
import jsonschema.validators
import pydantic_core
import referencing
import referencing.exceptions
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

from . import _problems
from ._problems import NotValid


@attrs.frozen(eq=False)
class Handwritten:
    """A schema that was found valid, and the two checks against it; they raise `NotValid`."""

    schema: Mapping[str, Any]
    from_text: Callable[[str | bytes], dict[str, Any]]
    from_mapping: Callable[[Mapping[str, Any]], dict[str, Any]]


def handwritten(schema: Mapping[str, Any]) -> Handwritten:
    """Check *schema* itself, and make its checks.

    Raises ValueError if it is not a valid JSON schema of type object, or refers to what it does not
    hold.
    """
    own: dict[str, Any] = copy.deepcopy(dict(schema))
    if own.setdefault("type", "object") != "object":
        raise ValueError(
            f"the schema of a tool's arguments has type {own['type']!r}; it must be 'object', "
            "with one property for each argument"
        )
    kind = jsonschema.validators.validator_for(own, jsonschema.Draft202012Validator)
    try:
        kind.check_schema(own)
    except jsonschema.exceptions.SchemaError as error:
        raise ValueError(
            f"not a valid JSON schema, at {error.json_path}: {_problems.cut(error.message)}"
        ) from error
    resource = referencing.Resource.from_contents(own, default_specification=DRAFT202012)
    base = resource.id() or ""
    resolver = EMPTY_REGISTRY.with_resource(base, resource).resolver(base)
    for reference in _references(own):
        try:
            resolver.lookup(reference)
        except referencing.exceptions.Unresolvable as error:
            raise ValueError(
                f"the schema refers to {reference!r}, which it does not hold and which is not "
                "fetched; put it under '$defs'"
            ) from error
    # With a registry given, jsonschema fetches nothing.
    validator = kind(own, registry=EMPTY_REGISTRY)

    def from_mapping(arguments: object) -> dict[str, Any]:
        if not isinstance(arguments, Mapping):
            raise NotValid([_problems.root(arguments)])
        plain = dict(cast("Mapping[object, Any]", arguments))
        named = {key: value for key, value in plain.items() if isinstance(key, str)}
        for odd in plain.keys() - named.keys():
            raise NotValid([f"the names of arguments are strings, not {_problems.given(odd)}"])
        errors = itertools.islice(validator.iter_errors(named), 100)
        problems = [each for error in errors for each in _broken(error, own)]
        if problems:
            raise NotValid(_problems.bounded(problems))
        return named

    def from_text(text: str | bytes) -> dict[str, Any]:
        try:
            read = pydantic_core.from_json(text)
        except ValueError as error:
            raise NotValid([f"not valid JSON: {_problems.cut(str(error))}"]) from error
        return from_mapping(read)

    return Handwritten(own, from_text, from_mapping)


def _broken(error: Any, whole: Mapping[str, Any]) -> list[str]:
    """Word an error of jsonschema; its own messages repeat the value, however long."""
    path = list(error.absolute_path)
    schema, value, rule = error.schema, error.instance, error.validator
    if rule == "required":
        absent = [name for name in error.validator_value if name not in value]
        return [_problems.missing([*path, name], whole) for name in absent]
    if rule == "additionalProperties" and not schema.get("patternProperties"):
        known = schema.get("properties", {})
        return [_problems.unknown([*path, name], known) for name in value if name not in known]
    wanted = _problems.expected(schema, whole)
    if rule in ("type", "enum", "const", "anyOf") and wanted:
        return [_problems.mismatch(path, value, wanted)]
    place = f"{_problems.place(path)}: " if path else ""
    limit = _problems.cut(str(error.validator_value), 120)
    return [f"{place}does not satisfy {rule}: {limit}; was given {_problems.given(value)}"]


def _references(schema: object) -> list[str]:
    if isinstance(schema, list):
        return [each for part in cast("list[object]", schema) for each in _references(part)]
    if not isinstance(schema, dict):
        return []
    found: list[str] = []
    for key, value in cast("dict[str, object]", schema).items():
        if key == "$ref" and isinstance(value, str):
            found.append(value)
        elif key not in ("default", "const", "enum", "examples"):
            found += _references(value)
    return found
