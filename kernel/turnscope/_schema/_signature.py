"""What a function takes, read from its signature: names, kinds, and annotations made objects.

Above: `_schema`, which makes a JSON schema of it. Below: inspect and typing. It knows what a model
can call (each argument by its name) and refuses the rest, saying what to do instead; it knows
nothing of validation.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from ._annotations import is_union, split
from ._docstrings import function_of
from ._problems import cut

_REFUSED: Final = {
    inspect.Parameter.VAR_POSITIONAL: (
        "*{0}, but a model names each argument; declare one parameter of type list[...]"
    ),
    inspect.Parameter.VAR_KEYWORD: (
        "**{0}, but a model has to be told which arguments there are; declare each of them, or one "
        "parameter of type dict[str, ...]"
    ),
    inspect.Parameter.POSITIONAL_ONLY: (
        "{0} by position only, but a model names each argument; move it behind the '/', or bind it "
        "with functools.partial"
    ),
}


def parameters_of(
    fn: Callable[..., object], tool: str, method: bool
) -> Sequence[inspect.Parameter]:
    """List what a call of *fn* takes by name; with *method* without the first.

    Raises TypeError for what a model cannot give by name.
    """
    if isinstance(fn, (staticmethod, classmethod)):
        fn = function_of(cast("Callable[..., object]", fn))
    try:
        found = list(inspect.signature(fn).parameters.values())
    except (ValueError, TypeError, NameError) as error:
        raise TypeError(
            f"{tool!r} has no signature that can be read ({error}); wrap it in a function whose "
            "parameters are annotated"
        ) from error
    if method:
        if not found or found[0].kind not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            raise TypeError(f"{tool!r} is a method without self or cls; give it one")
        del found[0]
    bound: set[str] = set()
    while isinstance(fn, functools.partial):
        bound.update(fn.keywords)
        fn = fn.func
    found = [parameter for parameter in found if parameter.name not in bound]
    for parameter in found:
        if parameter.kind in _REFUSED:
            reason = _REFUSED[parameter.kind].format(parameter.name)
            raise TypeError(f"{tool!r} takes {reason}")
    return found


def namespace_of(fn: Callable[..., object]) -> dict[str, Any]:
    """Find the names that the annotations of *fn* were written with."""
    if not isinstance(fn, type):
        fn = inspect.unwrap(function_of(fn))
    names = dict(vars(sys.modules.get(fn.__module__, types)))
    names.update(getattr(fn, "__globals__", {}))
    names.update({each.__name__: each for each in getattr(fn, "__type_params__", ())})
    return names


def resolved(parameter: inspect.Parameter, namespace: dict[str, Any], where: str) -> Any:
    """Give the annotation of *parameter* as an object; Any if there is none. Raises TypeError."""
    if parameter.annotation is parameter.empty:
        return Any

    # One at a time: the fault has a name, and what the function returns need not resolve.
    def holder() -> None: ...

    holder.__annotations__ = {"hint": parameter.annotation}
    try:
        return typing.get_type_hints(holder, namespace, include_extras=True)["hint"]
    except NameError as error:
        raise TypeError(
            f"the annotation {parameter.annotation!r} of {where} cannot be resolved ({error}); "
            "define or import the name at module level, not under `if TYPE_CHECKING`"
        ) from error
    except Exception as error:
        raise no_schema(where, parameter.annotation, error) from error


def is_context(hint: Any, context_type: type) -> bool:
    """Whether *hint* is *context_type*, plain or with type arguments, or a union with it."""
    base, _ = split(hint)
    if is_union(base):
        return any(is_context(each, context_type) for each in typing.get_args(base))
    return base is context_type or typing.get_origin(base) is context_type


def no_schema(where: str, annotation: object, error: Exception) -> TypeError:
    """Make the error for a parameter, *where*, whose type is not for JSON because of *error*."""
    shown = cut(annotation if isinstance(annotation, str) else inspect.formatannotation(annotation))
    # pydantic goes on with advice about its models, and with the address of a page
    first, _, _ = str(error).partition("\n\nFor further")[0].partition(". Set `arbitrary_types")
    reason = cut(" ".join(first.split()))
    return TypeError(
        f"{where} has no JSON schema: {shown}: {reason}; annotate it with a type that a model can "
        "send (JSON-like types, dataclasses, attrs classes, TypedDicts, pydantic models), or bind "
        "it with functools.partial"
    )
