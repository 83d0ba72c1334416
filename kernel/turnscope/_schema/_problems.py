"""Sentences that tell a model what to correct in the arguments that it sent.

Above: `_schema`, which finds what is wrong. Below: nothing; this file knows JSON schemas and
values, not the libraries that check one against the other. A sentence names the place, what was
expected and what was given, and is short however huge the input is.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

_GIVEN: Final = 80  # characters of a value that are shown
_TEXT: Final = 300  # characters of a foreign message that are shown
_PROBLEMS: Final = 20
_TOTAL: Final = 3600  # characters of all problems; the error's own words come on top
_WORKED_OUT: Final = 200  # errors; several can make one problem, but not any number is looked at

_short = reprlib.Repr()
_short.maxlevel = 3
_short.maxdict = _short.maxlist = _short.maxtuple = _short.maxset = 5
_short.maxstring = _short.maxlong = _short.maxother = _GIVEN

_NAMES: Final = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_FORMATS: Final = {
    "date-time": "a date and time such as '2026-11-05T12:30:00Z'",
    "date": "a date such as '2026-11-05'",
    "time": "a time such as '12:30:00'",
    "duration": "a duration such as 'PT1H30M'",
    "path": "a path as a string",
    "file-path": "the path of a file that exists",
    "directory-path": "the path of a directory that exists",
    "binary": "a string",
    "password": "a string",
}
# Kinds of errors that say no more than that the value does not have the shape of the schema.
_SHAPE: Final = re.compile(
    r"_type$|_parsing$|^literal_error$|^enum$|^none_required$|^int_from_float$"
)
_FUNCTION: Final = re.compile(r"^function-\w+\[(.*?)(?:\(\))?\]$")


class NotValid(Exception):
    """Carries problems that are worded already."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def bounded(problems: Iterable[str], beyond: int = 0) -> list[str]:
    """Give at most 20 different *problems*; *beyond* counts those that were never worked out."""
    distinct = list(dict.fromkeys(problems))
    shown: list[str] = []
    room = _TOTAL
    for problem in distinct[:_PROBLEMS]:
        room -= len(problem)
        if room < 0 and shown:
            break
        shown.append(problem)
    left = len(distinct) - len(shown) + beyond
    return [*shown, f"... and {left} more"] if left else shown


def cut(text: str, length: int = _TEXT) -> str:
    """Shorten *text* to *length* characters, saying so; what cannot be printed is escaped."""
    head = text[: length + 1]
    if not head.isprintable():
        head = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in head)
    return head if len(head) <= length else f"{head[:length]}..."


def given(value: object) -> str:
    """Show a value as a model knows it: ``7 (int)``, ``null``; never long, whatever it is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        shown = _short.repr(value)
    except Exception:
        # an integer of very many digits, keys that cannot be sorted, an object with a broken repr
        shown = "a value that cannot be shown"
    return f"{cut(shown, _GIVEN)} ({cut(type(value).__name__, _GIVEN)})"


def root(value: object) -> str:
    """Say that the arguments as a whole are no object."""
    names = {"list": "a list", "str": "a string", "int": "a number", "float": "a number"}
    shown = names.get(type(value).__name__) or given(value)
    return f"expected a JSON object with the arguments, was given {shown}"


def place(path: Sequence[object]) -> str:
    """Write a path as ``address.street[2]``."""
    text = ""
    for item in path:
        if isinstance(item, int):
            text += f"[{item}]"
        elif isinstance(item, str) and re.fullmatch(r"[\w-]{1,60}", item):
            text += f".{item}" if text else item
        else:
            text += f"[{cut(_short.repr(item), _GIVEN)}]"
    return cut(text, 200)


def expected(schema: Mapping[str, Any], whole: Mapping[str, Any], depth: int = 4) -> str:
    """Say in words what *schema*, a part of *whole*, takes; "" where it takes anything."""
    schema = _resolved(schema, whole)
    if "enum" in schema:
        return cut(_either([_literal(value) for value in schema["enum"]]))
    if "const" in schema:
        return cut(_literal(schema["const"]))
    for key in ("anyOf", "oneOf"):
        if key in schema:
            parts = [expected(each, whole, depth - 1) for each in schema[key]] if depth else [""]
            return cut(_either(list(dict.fromkeys(parts)))) if all(parts) else ""
    if schema.get("format") and schema.get("type") == "string":
        return _FORMATS.get(schema["format"]) or cut(f"a string that is a {schema['format']}")
    types = schema.get("type", ())
    names = [types] if isinstance(types, str) else list(types)
    return _either([_NAMES.get(name, name) for name in names])


def missing(path: Sequence[object], whole: Mapping[str, Any]) -> str:
    """Say that there is no value at *path*, and which there should be."""
    wanted = expected(part(whole, path), whole)
    return f"{place(path)}: missing; expected {wanted}" if wanted else f"{place(path)}: missing"


def unknown(path: Sequence[object], names: Iterable[str]) -> str:
    """Say that the last of *path* is none of *names*."""
    sort = "parameter" if len(path) == 1 else "field"
    known = cut(", ".join(name for name in names if name != path[-1]), 500)
    rest = f"the {sort}s are {known}" if known else f"there are no {sort}s"
    return f"{place(path)}: not a {sort}; {rest}"


def mismatch(path: Sequence[object], value: object, wanted: str) -> str:
    """Say that *value* at *path* is not what was *wanted*."""
    return f"{place(path)}: expected {wanted}, was given {given(value)}"


def part(whole: Mapping[str, Any], path: Sequence[object]) -> Mapping[str, Any]:
    """Find the part of the schema *whole* that speaks of *path*; empty where none does."""
    found: list[Mapping[str, Any]] = [whole]
    for item in path:
        found = [inner for each in found[:50] for inner in _inside(each, item, whole, 4)]
    if len(found) > 1:
        return {"anyOf": found}
    return found[0] if found else {}


def explain(
    errors: Sequence[Mapping[str, Any]], data: object, whole: Mapping[str, Any]
) -> list[str]:
    """Turn pydantic's *errors* about *data* into problems; *whole* is the schema that it breaks."""
    problems = [_explained(error, data, whole) for error in errors[:_WORKED_OUT]]
    return bounded(problems, len(errors[_WORKED_OUT:]))


def explain_other(error: Exception) -> list[str]:
    """Word what is no error of pydantic's: ours, or what a validator of a user's raised."""
    if isinstance(error, NotValid):
        return error.problems
    if isinstance(error, RecursionError):
        return ["the arguments are nested too deep; send fewer levels"]
    return [cut(f"checking the arguments raised {type(error).__name__}: {error}")]


def _explained(error: Mapping[str, Any], data: object, whole: Mapping[str, Any]) -> str:
    kind, message = error["type"], cut(str(error["msg"]))
    if kind == "json_invalid":
        return message.replace("Invalid JSON:", "not valid JSON:")
    path, branch, key = _located(error["loc"], data, kind == "missing")
    if not path:
        if kind == "string_unicode":
            return "not valid JSON: the text holds a lone surrogate, which is no character"
        return root(error["input"]) if _SHAPE.search(kind) else _lowered(message)
    if kind == "recursion_loop":
        return f"{place(path)}: nested too deep, or holds itself; send fewer levels"
    suffix = f" (as {cut(branch, _GIVEN)})" if branch else ""
    if kind == "missing":
        return missing(path, whole) + suffix
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return unknown(path, _fields(part(whole, path[:-1]), whole)) + suffix
    wanted = expected(part(whole, path), whole)
    # In a branch of a union the schema here speaks of all branches, the message of this one.
    if _SHAPE.search(kind) and wanted and not key and not branch:
        return mismatch(path, error["input"], wanted) + suffix
    if key:
        suffix = " (as a key)"
    return f"{place(path)}: {_lowered(message)}, was given {given(error['input'])}{suffix}"


def _lowered(message: str) -> str:
    message = re.sub(r"^(?:Value error|Assertion failed), |^Input (?=should )", "", message)
    return re.sub(
        r"^(?:String|List|Set|Tuple|Dictionary|Keys|Value|Data|Bytes) should",
        lambda found: found[0][0].lower() + found[0][1:],
        message,
    )


def _located(
    loc: Sequence[str | int], data: object, absent: bool
) -> tuple[list[str | int], str, bool]:
    """Tell the real path of an error from the names of branches that pydantic puts into it.

    *absent* says that the last of *loc* is a field that *data* does not have. Gives the path, the
    branch that the error is deeper in (or ""), and whether it is about a key.
    """
    path: list[str | int] = []
    branch = waiting = ""
    here = data
    for index, item in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(here, Mapping) and item in here:
            here = cast("Mapping[str | int, object]", here)[item]
        elif isinstance(here, (list, tuple)) and isinstance(item, int):
            here = next(iter(cast("Sequence[object]", here)[item:]), None)
        elif last and item == "[key]":
            return path, branch, True
        elif isinstance(item, int) or (last and absent):
            here = None  # a member of a set, which has no index, or the field that is missing
        else:
            found = _FUNCTION.match(item)
            waiting = found[1] if found else item
            continue
        path.append(item)
        branch = waiting or branch
    return path, branch, False


def _inside(
    schema: Mapping[str, Any], item: object, whole: Mapping[str, Any], depth: int
) -> list[Mapping[str, Any]]:
    schema = _resolved(schema, whole)
    found: list[Any] = []
    if isinstance(item, int):
        leading: Sequence[Any] = schema.get("prefixItems", ())
        found = [leading[item] if item < len(leading) else schema.get("items")]
    elif item in schema.get("properties", {}):
        found = [schema["properties"][item]]
    else:
        found = [schema.get("additionalProperties")]
    parts: list[Mapping[str, Any]] = [each for each in found if isinstance(each, Mapping)]
    for key in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(key, ()) if depth else ():
            parts += _inside(each, item, whole, depth - 1)
    return parts


def _fields(schema: Mapping[str, Any], whole: Mapping[str, Any], depth: int = 4) -> dict[str, Any]:
    schema = _resolved(schema, whole)
    names = dict(schema.get("properties", {}))
    for key in ("anyOf", "oneOf", "allOf"):
        for each in schema.get(key, ()) if depth else ():
            names |= _fields(each, whole, depth - 1)
    return names


def _resolved(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> Mapping[str, Any]:
    for _ in range(20):  # hand-written references may go in a circle
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return schema
        target: Any = whole
        for name in reference[1:].split("/")[1:]:
            target = target.get(name.replace("~1", "/").replace("~0", "~"), {})
        schema = target
    return {}


def _literal(value: object) -> str:
    # true, false and null are the values whose Python spelling a model should not send
    return given(value) if value is None or isinstance(value, bool) else repr(value)


def _either(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} or {parts[-1]}"
