"""What a call reads and writes, as keys: texts, templates, functions of its arguments. Pure.

A key is a text of parts along ``/``: ``file/notes/today.md``. It conflicts with itself, with its
ancestors (``file/notes``) and with what is below it; ``/`` stands for all. How values enter a
template is told in `_key_templates`. A function makes whole keys, which are normalised too: no
``.``, ``..`` or repeated slashes, and an absolute path in one, as in ``file//home/me/notes``, is
given relative to the current directory if it lies below that. Above: the tools. Below: errors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias, cast

import attrs

from ._errors import InvalidArguments
from ._key_templates import Refused, Template, normalised, template

Key: TypeAlias = str | Callable[..., str | Iterable[str]]
Keys: TypeAlias = Key | Iterable[Key]


@attrs.frozen
class Declared:
    """What a tool declares of its calls, read once, when the tool is defined."""

    tool: str
    reads: tuple[Template | _Function, ...]
    writes: tuple[Template | _Function, ...]
    defaults: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """Of the parameters, for calls that leave them out."""

    def fitted(self, fn: Callable[..., object], known: Collection[str] | None) -> Declared:
        """With the defaults of *fn*; raises ValueError for a parameter that is not *known*.

        None stands for a schema that does not name its properties: what it lacks shows in calls.
        """
        for each in (*self.reads, *self.writes):
            for name in each.names:
                if known is not None and name not in known:
                    there = ", ".join(map(repr, known)) or "none"
                    raise ValueError(
                        f"tool {self.tool!r}: its keys are made of {name!r} ({each}), which is no "
                        f"parameter that a model gives (there are: {there})"
                    )
        defaults = _defaults(fn)
        if known is not None:  # so without the call's context, which may have one
            defaults = {name: defaults[name] for name in known if name in defaults}
        return attrs.evolve(self, defaults=defaults)

    def of(self, arguments: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """The keys that a call with *arguments* reads and writes.

        Raises InvalidArguments for those that give none, also if a function raises, whatever it is.
        """
        given = {**self.defaults, **arguments}
        try:
            reads = [key for each in self.reads for key in each.keys(given)]
            return reads, [key for each in self.writes for key in each.keys(given)]
        except Refused as exc:
            raise InvalidArguments(self.tool, [str(exc)]) from None
        except KeyboardInterrupt:
            raise
        except BaseException as exc:
            text = f"{type(exc).__name__}: {exc}"
            problem = f"what the call reads and writes cannot be made out of them: {text[:1000]}"
            raise InvalidArguments(self.tool, [problem]) from exc


def declared(tool: str, reads: Keys, writes: Keys) -> Declared | None:
    """Read what *tool* declares; None if that is nothing.

    Raises ValueError for a template that cannot be read, TypeError for what is no key.
    """
    made = Declared(tool, _read(tool, "reads", reads), _read(tool, "writes", writes))
    return made if made.reads or made.writes else None


def _read(tool: str, option: str, keys: Keys) -> tuple[Template | _Function, ...]:
    where = f"tool {tool!r}: {option}="
    if isinstance(keys, str) or callable(keys):
        keys = [keys]
    elif isinstance(keys, Mapping) or not isinstance(keys, Iterable):
        raise TypeError(f"{where}{keys!r}: a text, a function of the arguments, or several of them")
    made: list[Template | _Function] = []
    for key in keys:
        if isinstance(key, str):
            made.append(template(where, key))
        elif callable(key):
            made.append(_function(where, key))
        else:
            raise TypeError(f"{where}...: {key!r} is neither a text nor a function")
    return tuple(made)


# Functions.


@attrs.frozen
class _Function:
    fn: Callable[..., object]
    names: tuple[str, ...]
    """The arguments that it cannot do without."""
    takes: frozenset[str] | None
    """The arguments that it is given, if not all."""

    def __str__(self) -> str:
        return f"by {getattr(self.fn, '__name__', repr(self.fn))}"

    def keys(self, arguments: Mapping[str, Any]) -> Iterable[str]:
        takes = self.takes
        given = self.fn(**{k: v for k, v in arguments.items() if takes is None or k in takes})
        several: Iterable[object] = [given]
        if not isinstance(given, (str, bytes, Mapping)) and isinstance(given, Iterable):
            several = cast("Iterable[object]", given)
        keys: list[str] = []
        for key in several:
            if not isinstance(key, str):
                raise TypeError(
                    f"the keys {self} are texts, not {type(key).__name__}: return one or several, "
                    "or [] for none"
                )
            if not key.strip():
                raise Refused("what the call reads or writes is empty: give a name")
            keys.append(normalised(key))
        return keys


def _function(where: str, fn: Callable[..., object]) -> _Function:
    if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(f"{where}...: keys are made at once; make {fn!r} a def")
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # of a builtin: it is given all there is
        return _Function(fn, (), None)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if any(p.kind is p.POSITIONAL_ONLY and p.default is p.empty for p in parameters):
        raise TypeError(f"{where}...: {fn!r} is called with the arguments by name: drop the '/'")
    needed = tuple(p.name for p in named if p.default is p.empty)
    all_of_them = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return _Function(fn, needed, None if all_of_them else frozenset(p.name for p in named))


def _defaults(fn: Callable[..., object]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        return {}
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}
