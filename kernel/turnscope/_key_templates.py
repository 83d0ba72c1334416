"""Templates of keys, such as ``file/{path}``: which text they give for the values of a call. Pure.

What is one thing must be one key, so values are normalised before they enter a template, and none
can leave its place there:

* a path, that is an ``os.PathLike``, or a ``str`` if its name, or what stands right before it,
  speaks of a file, path, dir, directory or folder (``file/{name}``, ``db/{path}``): made absolute,
  without ``.``, ``..`` and repeated slashes, then given relative to the current directory if it
  lies below that, else from the root. The current directory itself, and what holds it, are the
  whole prefix. Links are not followed, no file is touched;
* anything else is one part: ``/`` and ``%`` in it are escaped, as are the names ``.`` and ``..``;
* a list, tuple or set gives a key for each of its values.

``{name:path}`` and ``{name:text}`` say which of the two a text is. Above: the keys.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from string import Formatter
from typing import Any, Final, cast

import attrs

_OF_PATHS: Final = re.compile(
    r"(?<![a-z])(file|path|dir|folder|filename|filepath)s?(?![a-z])|director"
)


class Refused(Exception):
    """The arguments give no key; the text says what to correct."""


@attrs.frozen
class _Field:
    name: str
    is_path: bool
    """Whether a text in its place is a path."""


@attrs.frozen
class Template:
    """A text in which parameters stand for their values."""

    text: str
    parts: tuple[tuple[str | _Field, ...], ...]
    """What stands between the slashes."""
    names: tuple[str, ...]

    def __str__(self) -> str:
        return repr(self.text)

    def keys(self, arguments: Mapping[str, Any]) -> Iterable[str]:
        """The keys for the values of *arguments*.

        Raises Refused for an empty value, TypeError for one that has no text.
        """
        if not self.names:
            return (self.text,)
        values = (_each(name, arguments.get(name)) for name in self.names)
        return [
            self._key(dict(zip(self.names, chosen, strict=True)))
            for chosen in itertools.product(*values)
        ]

    def _key(self, values: Mapping[str, Any]) -> str:
        key: list[str] = []
        for part in self.parts:
            only = part[0] if len(part) == 1 else None
            if isinstance(only, _Field) and _is_path(only, values[only.name]):
                below = _below_here(values[only.name])
                if not below:
                    break  # the whole prefix
                key += below
            else:
                key.append("".join(_piece(piece, values) for piece in part))
        return "/".join(key)


def template(where: str, text: str) -> Template:
    """Read *text*; raises ValueError, which begins with *where*, for what is no template."""
    parts: list[list[str | _Field]] = [[]]
    names: dict[str, None] = {}
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as exc:
        raise ValueError(f"{where}{text!r} is no template: {exc} (for a brace write two)") from exc
    for literal, name, spec, conversion in parsed:
        first, *rest = literal.split("/")
        parts[-1].append(first)
        parts.extend([each] for each in rest)
        if name is None:
            continue
        if not name.isidentifier() or conversion or spec not in ("", "path", "text"):
            raise ValueError(
                f"{where}{text!r}: a field is the name of a parameter, as {{path}}, {{name:path}} "
                "or {name:text}; for more, give a function of the arguments"
            )
        is_path = spec == "path" or (not spec and _speaks_of_paths(f"{literal} {name}"))
        parts[-1].append(_Field(name, is_path))
        names[name] = None
    if not names:
        key = normalised("".join(literal for literal, *_ in parsed))
        if not text.strip():
            raise ValueError(f"{where}{text!r}: a key is not empty; '/' stands for all keys")
        return Template(key, (), ())
    cleaned = [tuple(piece for piece in part if piece != "") for part in parts]
    kept = tuple(part for part in cleaned if part not in ((), (".",)))
    if ("..",) in kept:
        raise ValueError(f"{where}{text!r}: a template does not go up; leave the .. out")
    return Template(text, kept, tuple(names))


def _speaks_of_paths(text: str) -> bool:
    apart = re.sub("(?<=[a-z])(?=[A-Z])", "_", text)  # as in filePath
    return _OF_PATHS.search(apart.lower()) is not None


def _each(name: str, value: object) -> list[object]:
    """The one value, or each of several."""
    values: list[object] = [value]
    if isinstance(value, (list, tuple, set, frozenset)):
        values = list(cast("Iterable[object]", value))
    for each in values:
        if each is None or (isinstance(each, str) and not each.strip()):
            raise Refused(
                f"{name}: must not be empty, because it says what the call reads or writes"
            )
    return values


def _is_path(field: _Field, value: object) -> bool:
    return isinstance(value, os.PathLike) or (field.is_path and isinstance(value, str))


def _piece(piece: str | _Field, values: Mapping[str, Any]) -> str:
    if isinstance(piece, str):
        return piece
    value: object = values[piece.name]
    if _is_path(piece, value):
        value = "/".join(_below_here(cast("Any", value)))
    elif isinstance(value, Enum) and not isinstance(value, str):
        value = value.value
    if isinstance(value, Iterable) and not isinstance(value, str):
        kind = type(cast("object", value)).__name__
        raise TypeError(
            f"{piece.name!r} is of type {kind}, which is no text for a key: give a function of "
            "the arguments"
        )
    text = str(value).replace("%", "%25").replace("/", "%2F")
    return text.replace(".", "%2E") if text in (".", "..") else text


def _below_here(path: str | os.PathLike[Any]) -> list[str]:
    """The parts of *path* below the current directory, or else from the root; none for what holds
    the current directory."""
    parts = _parts(os.path.abspath(os.fsdecode(path)))
    here = _parts(os.getcwd())
    if parts == here[: len(parts)]:
        return []
    return parts[len(here) :] if parts[: len(here)] == here else parts


def _parts(absolute: str) -> list[str]:
    # By hand, because a PurePath takes 10 us, of every call.
    return [part for part in os.path.normcase(absolute).replace(os.sep, "/").split("/") if part]


def normalised(key: str) -> str:
    """*key* without ``.``, ``..`` and repeated slashes; what is absolute in it, as of a path."""
    if key.startswith("/"):
        head, tail = "", key
    else:
        head, slashes, tail = key.partition("//")
        tail = slashes and "/" + tail
    parts: list[str] = []
    for part in head.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join([*parts, *(_below_here(tail) if tail else ())])
