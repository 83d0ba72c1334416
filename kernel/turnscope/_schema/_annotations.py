"""Annotations that pydantic does not know, rewritten as annotations that it does.

An attrs class becomes the TypedDict of its fields, with the class called on what was validated; so
do the standard TypedDict on Python 3.11, which pydantic refuses there, and dataclasses that hold
one of these. Containers around them are rebuilt, everything else is left as it is.
Above: `_schema`. Below: pydantic, of which only the words that stand inside an annotation are used
here. This file builds no validator and no schema.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin

import attrs
import pydantic
import pydantic_core
import typing_extensions

# Called with fields that are known only at run time, which type checkers do not follow.
_typed_dict: Final[Any] = typing_extensions.TypedDict
_QUALIFIERS: Final = (
    typing_extensions.Required,
    typing_extensions.NotRequired,
    typing_extensions.ReadOnly,
)
# One class from Python 3.14 on, two before.
_ALIASES: Final[tuple[Any, ...]] = (
    typing_extensions.TypeAliasType,
    getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType),
)


def typed_dict(name: str, fields: Mapping[str, tuple[Any, bool]]) -> Any:
    """Make a TypedDict of *fields*: to each key its annotation and whether it is required."""
    made = _typed_dict(name, {})
    _fill(made, fields)
    return made


def described(hint: Any, description: str | None) -> Any:
    """Give *hint* a description; one of its own wins."""
    return _worded(hint, pydantic.Field(description=description)) if description else hint


def _worded(hint: Any, ours: Any) -> Any:
    base, words = split(hint)
    return Annotated[(base, ours, *words)]


def nullable(hint: Any) -> Any:
    """Let *hint* take None too, if it does not yet."""
    base, words = split(hint)
    if base in (Any, None, type(None)) or (is_union(base) and type(None) in get_args(base)):
        return hint
    return Annotated[(base | None, *words)] if words else base | None


def jsonable(value: object) -> Any:
    """Make *value* plain JSON data; raises ValueError or what an object in it raises."""
    return pydantic_core.to_jsonable_python(value, fallback=_fields_of, inf_nan_mode="strings")


def _fields_of(value: object) -> dict[str, Any]:
    if not attrs.has(type(value)):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return attributes(cast("attrs.AttrsInstance", value))


def attributes(value: attrs.AttrsInstance) -> dict[str, Any]:
    """Take an instance of an attrs class apart into what its class would be called with."""
    return {field.alias: getattr(value, field.name) for field in attrs.fields(type(value))}


class Rewriter:
    """Rewrites annotations; one object for all parameters of a tool, so that they share classes."""

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}

    def rewrite(self, hint: Any) -> Any:
        """Give an annotation that pydantic knows. Raises NameError for names without meaning."""
        if not _is_foreign(hint, set()):
            return hint
        if isinstance(hint, _ALIASES):
            return self.rewrite(hint.__value__)
        origin = get_origin(hint)
        args = get_args(hint)
        if origin is Annotated:
            return Annotated[(self.rewrite(args[0]), *args[1:])]
        if is_union(hint):
            return _union([self.rewrite(arg) for arg in args])
        cls = hint if origin is None else origin
        if _is_record(cls):
            return self._made[hint] if hint in self._made else self._record(hint, cls)
        generic = cast("Any", origin)
        return generic[tuple(self.rewrite(arg) for arg in args)]

    def _record(self, hint: Any, cls: type, /) -> Any:
        # Filled after it is remembered, because a class may hold itself.
        made = _typed_dict(cls.__name__, {})
        made.__module__, made.__qualname__, made.__doc__ = (
            cls.__module__,
            cls.__qualname__,
            _doc(cls),
        )
        if _is_typed_dict(cls):
            self._made[hint] = made
        else:
            self._made[hint] = Annotated[made, pydantic.WrapValidator(_builder(cls))]
        if hasattr(cls, "__pydantic_config__"):
            made.__pydantic_config__ = cast("Any", cls).__pydantic_config__
        hints = _class_hints(hint)
        if _is_typed_dict(cls):
            required: frozenset[str] = cast("Any", cls).__required_keys__
            fields = {key: self._key(hints[key], key in required) for key in hints}
        elif attrs.has(cls):
            fields = {
                field.alias: self._field(_input_hint(field, hints), field.default, attrs.NOTHING)
                for field in attrs.fields(cls)
                if field.init
            }
        else:
            fields = {
                field.name: (
                    self._field(hints[field.name], field.default, dataclasses.MISSING)
                    if field.default_factory is dataclasses.MISSING
                    else (self.rewrite(hints[field.name]), False)
                )
                for field in dataclasses.fields(cls)
                if field.init
            }
        _fill(made, fields)
        return self._made[hint]

    def _field(self, hint: Any, default: object, none: object) -> tuple[Any, bool]:
        rewritten = self.rewrite(hint)
        if default is none:
            return rewritten, True
        return with_default(rewritten, default), False

    def _key(self, hint: Any, required: bool) -> tuple[Any, bool]:
        # With postponed annotations the class itself has not seen these words.
        base, words = split(hint)
        while get_origin(base) in _QUALIFIERS:
            if get_origin(base) is not typing_extensions.ReadOnly:
                required = get_origin(base) is typing_extensions.Required
            base, inner = split(get_args(base)[0])
            words = (*inner, *words)
        base = self.rewrite(base)
        return (Annotated[(base, *words)] if words else base), required


def with_default(hint: Any, default: object) -> Any:
    """Show *default* in the JSON schema of *hint*, if JSON can say it; None is then allowed too."""
    if default is None:
        hint = nullable(hint)
    try:
        value = jsonable(default)
        json.dumps(value, allow_nan=False)
    except Exception:
        # Factories, sentinels and the like mean nothing to a model.
        return hint
    return _worded(hint, pydantic.Field(json_schema_extra={"default": value}))


def _fill(made: Any, fields: Mapping[str, tuple[Any, bool]]) -> None:
    made.__annotations__ = {key: hint for key, (hint, _) in fields.items()}
    made.__required_keys__ = frozenset(key for key, (_, required) in fields.items() if required)
    made.__optional_keys__ = frozenset(fields) - made.__required_keys__


def _builder(cls: type) -> Callable[[Any, pydantic.ValidatorFunctionWrapHandler], Any]:
    def build(value: Any, validate: pydantic.ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, cls):
            return value
        fields = validate(value)
        try:
            return cls(**fields)
        except Exception as error:
            # Of other exceptions pydantic does not keep the place.
            raise ValueError(str(error) or type(error).__name__) from error

    # pydantic names the branches of a union after their validators.
    build.__name__ = build.__qualname__ = cls.__name__
    return build


def _input_hint(field: attrs.Attribute[Any], hints: Mapping[str, Any]) -> Any:
    declared = hints.get(field.name, field.type if field.type is not None else Any)
    converter: Any = cast("Any", field).converter
    if isinstance(converter, attrs.Converter):
        converter = cast("Any", converter).converter
    if converter is None or isinstance(converter, type):
        return declared  # `converter=int` says what comes out, not what goes in
    try:
        first = next(iter(inspect.signature(converter, eval_str=True).parameters.values()))
    except (TypeError, ValueError, NameError, StopIteration):
        return declared
    return declared if first.annotation is first.empty else first.annotation


def _class_hints(hint: Any) -> dict[str, Any]:
    cls = get_origin(hint) or hint
    hints = typing.get_type_hints(cls, localns={cls.__name__: cls}, include_extras=True)
    given = dict(zip(getattr(cls, "__parameters__", ()), get_args(hint), strict=False))
    return {name: _filled_in(each, given) for name, each in hints.items()} if given else hints


def _filled_in(hint: Any, given: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return given.get(hint, hint)
    open_ones = getattr(hint, "__parameters__", ())
    if not open_ones or isinstance(hint, type):
        return hint
    return hint[tuple(given.get(each, each) for each in open_ones)]


def _doc(cls: type) -> str | None:
    # `dataclass` writes the signature as a docstring if there is none.
    text = cls.__doc__ or ""
    return None if text.startswith(f"{cls.__name__}(") else text or None


def _is_foreign(hint: Any, seen: set[Any]) -> bool:
    """Whether *hint* is, or holds, what pydantic does not know."""
    if isinstance(hint, list):  # the parameters of a Callable
        return False
    origin = get_origin(hint)
    if origin is Literal:
        return False
    if isinstance(hint, _ALIASES):
        return hint not in seen and _is_foreign(hint.__value__, seen | {hint})
    args = get_args(hint)[:1] if origin is Annotated else get_args(hint)
    if any(_is_foreign(arg, seen) for arg in args):
        return True
    cls = hint if origin is None else origin
    if not _is_record(cls) or cls in seen:
        return False
    if attrs.has(cls) or (sys.version_info < (3, 12) and type(cls) is type(_StandardTypedDict)):
        return True
    seen.add(cls)
    try:
        hints = _class_hints(hint).values()
    except NameError:
        return False  # pydantic may know more of where the class was made, and will say so if not
    return any(_is_foreign(split(each)[0], seen) for each in hints)


class _StandardTypedDict(typing.TypedDict):
    """Shows the metaclass of the standard TypedDict, which has no public name."""


def _is_record(cls: Any) -> bool:
    if not isinstance(cls, type) or hasattr(cls, "__get_pydantic_core_schema__"):
        return False
    if hasattr(cls, "__pydantic_validator__"):  # a model, or a dataclass of pydantic's own
        return False
    return attrs.has(cls) or dataclasses.is_dataclass(cls) or _is_typed_dict(cls)


def _is_typed_dict(cls: Any) -> bool:
    return typing_extensions.is_typeddict(cls)


def _union(members: list[Any]) -> Any:
    union = members[0]
    for member in members[1:]:
        union = union | member
    return union


def is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    if get_origin(hint) is Annotated:
        base, *words = get_args(hint)
        return base, tuple(words)
    return hint, ()
