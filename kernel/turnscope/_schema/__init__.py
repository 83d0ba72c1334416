"""From a function to what the model may send it: JSON schema, validation, and text for results.

Everything is worked out when a tool is defined; a call then costs one call of a validator. Above:
the tools, which load this folder with the first of them, because pydantic takes longer to import
than all the rest. It is the only place in the kernel that knows pydantic. Inside: `_signature`
(what a function takes), `_annotations` (types that pydantic does not know), `_docstrings`,
`_handwritten` (schemas without a signature), `_problems` (sentences for the model), `_text`
(results). Nothing here knows of turns or backends.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import attrs
import pydantic
import pydantic.fields
import pydantic.json_schema
import pydantic_core

from turnscope._errors import InvalidArguments

from . import _problems
from ._annotations import Rewriter, described, typed_dict, with_default
from ._docstrings import description_of as description_of
from ._docstrings import texts_of
from ._signature import is_context, namespace_of, no_schema, parameters_of, resolved
from ._text import to_text as to_text

_Arguments = str | bytes | Mapping[str, Any]
WRAPPED: Final = "value"
"""The field of an answer that is no object by itself."""


@attrs.frozen(eq=False)
class Parameters:
    """What a tool takes: its JSON schema for the model, and the check of what the model sends."""

    schema: Mapping[str, Any]
    """A JSON schema of type object, with the docstring's texts and the defaults."""
    context: str | None
    """The parameter that takes the call's context: injected, so not in the schema; or None."""
    _from_text: Callable[[str | bytes], dict[str, Any]]
    _from_mapping: Callable[[Mapping[str, Any]], dict[str, Any]]
    _explain: Callable[[Exception, _Arguments], list[str]]

    def validate(self, name: str, arguments: _Arguments) -> dict[str, Any]:
        """Give keyword arguments for the function; what was left out is left to its defaults.

        *arguments* is JSON text or a mapping; no text at all, as some servers send it, is a call
        without arguments. Raises `InvalidArguments` for the tool *name*, whatever else is wrong.
        """
        try:
            if isinstance(arguments, (str, bytes)):
                return self._from_text(arguments)
            return self._from_mapping(arguments)
        except Exception as error:
            # Looked at only here, so that it costs nothing where there is something to read.
            if not (isinstance(arguments, (str, bytes)) and not arguments.strip()):
                raise InvalidArguments(name, self._problems(error, arguments)) from error
        return self.validate(name, {})

    def then(self, read: Callable[[dict[str, Any]], dict[str, Any]]) -> Parameters:
        """The same, but what fits the schema is then *read*, which may raise `NotValid`."""

        def from_text(text: str | bytes) -> dict[str, Any]:
            return read(self._from_text(text))

        def from_mapping(mapping: Mapping[str, Any]) -> dict[str, Any]:
            return read(self._from_mapping(mapping))

        return attrs.evolve(self, from_text=from_text, from_mapping=from_mapping)

    def _problems(self, error: Exception, arguments: _Arguments) -> list[str]:
        try:
            return self._explain(error, arguments)
        except Exception:
            # Values that cannot be walked or shown: what is known is that they were refused.
            return ["the arguments cannot be read; send a plain JSON object that fits the schema"]


def from_signature(
    fn: Callable[..., object], *, context_type: type | None = None, method: bool = False
) -> Parameters:
    """Read what *fn* takes from its signature and its docstring.

    The parameter annotated with *context_type* is injected later. With *method* the first one,
    self or cls, is left out, as are those that a functools.partial has bound. Raises TypeError,
    naming the parameter and what to do, for ``*args``, ``**kwargs``, positional-only parameters,
    annotations that cannot be resolved, and types that JSON has no form for.
    """
    tool = getattr(fn, "__name__", type(fn).__name__)
    namespace = namespace_of(fn)
    texts = texts_of(fn)
    rewriter = Rewriter()
    context: str | None = None
    fields: dict[str, tuple[Any, bool]] = {}
    annotations: dict[str, Any] = {}
    for parameter in parameters_of(fn, tool, method):
        where = f"parameter {parameter.name!r} of {tool!r}"
        hint = resolved(parameter, namespace, where)
        if context_type is not None and is_context(hint, context_type):
            if context is not None:
                raise TypeError(f"{where} is a second context; {context!r} is one already, drop it")
            context = parameter.name
            continue
        if isinstance(parameter.default, pydantic.fields.FieldInfo):
            raise TypeError(
                f"{where} has a pydantic Field as its default, which a call that omits it would "
                "get as its value; write Annotated[TYPE, Field(...)] and a plain default"
            )
        try:
            hint = rewriter.rewrite(hint)
        except Exception as error:
            raise no_schema(where, parameter.annotation, error) from error
        required = parameter.default is parameter.empty
        if not required:
            hint = with_default(hint, parameter.default)
        annotations[parameter.name] = parameter.annotation
        fields[parameter.name] = described(hint, texts.get(parameter.name)), required

    try:
        schema, validator = _compiled(tool, fields)
    except Exception:
        # pydantic names the type but not the parameter: find it.
        for name, field in fields.items():
            try:
                _compiled(tool, {name: field})
            except Exception as error:
                where = f"parameter {name!r} of {tool!r}"
                raise no_schema(where, annotations[name], error) from error
        raise
    explain = functools.partial(_explain_pydantic, schema)
    return Parameters(schema, context, validator.validate_json, validator.validate_python, explain)


def from_type(kind: Any) -> tuple[Parameters, bool]:
    """Read what a value of the type *kind* is in JSON, and whether it is wrapped there.

    An object is as it is, anything else is the one field, ``value``, of an object: neither APIs nor
    tools take another at the top. Raises TypeError for a type that JSON has no form for.
    """
    if kind is None or isinstance(kind, (str, Mapping)) or inspect.isroutine(kind):
        raise TypeError(
            f"output={_problems.given(cast('object', kind))}: it is the type of an answer, such as "
            "a dataclass, int | str or list[City]; for plain text, leave it out"
        )
    try:
        rewritten = Rewriter().rewrite(kind)
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(rewritten)
        schema = _untitled(adapter.json_schema(schema_generator=_JsonSchema))
        validator = adapter.validator
        wrapped = schema.get("type") != "object"
        if wrapped:
            schema, validator = _compiled("answer", {WRAPPED: (rewritten, True)})
    except Exception as error:
        first, _, _ = str(error).partition("\n\nFor further")[0].partition(". Set `arbitrary_types")
        raise TypeError(
            f"output={_problems.cut(repr(kind), 80)} has no JSON schema: "
            f"{_problems.cut(' '.join(first.split()))}; give a type that a model can write "
            "(JSON-like types, dataclasses, attrs classes, TypedDicts, pydantic models, unions)"
        ) from error
    explain = functools.partial(_explain_pydantic, schema)
    read = validator.validate_json, validator.validate_python
    return Parameters(schema, None, *read, explain), wrapped


def from_schema(schema: Mapping[str, Any]) -> Parameters:
    """Take a JSON schema written by hand; arguments are given as the JSON has them.

    References to other documents are not fetched. Raises ValueError if *schema* is not a valid
    JSON schema of type object, or refers to what it does not hold.
    """
    from ._handwritten import handwritten  # jsonschema, which most programs do without

    made = handwritten(schema)
    return Parameters(made.schema, None, made.from_text, made.from_mapping, _explain_handwritten)


class _JsonSchema(pydantic.json_schema.GenerateJsonSchema):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A default without a JSON form is no news: it is left out of the schema.
        self.ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}


def _compiled(tool: str, fields: Mapping[str, tuple[Any, bool]]) -> tuple[dict[str, Any], Any]:
    # A TypedDict, not a model: its keys may have any name, and defaults stay the function's own.
    shape = typed_dict(tool, fields)
    shape.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(shape)
    schema = adapter.json_schema(schema_generator=_JsonSchema)
    return _untitled(schema), adapter.validator


def _untitled(schema: object) -> Any:
    """Leave out the titles, which repeat the names; properties may be called "title"."""
    if isinstance(schema, list):
        return [_untitled(each) for each in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    plain: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", schema).items():
        if key in ("properties", "$defs", "patternProperties"):
            plain[key] = {name: _untitled(each) for name, each in value.items()}
        elif key in ("default", "const", "enum", "examples", "discriminator"):
            plain[key] = value
        elif key != "title":
            plain[key] = _untitled(value)
    return plain


def _explain_pydantic(
    schema: Mapping[str, Any], error: Exception, arguments: _Arguments
) -> list[str]:
    if not isinstance(error, pydantic.ValidationError):
        return _problems.explain_other(error)
    errors = error.errors(include_url=False)
    data: object = arguments
    if isinstance(arguments, (str, bytes)) and errors[0]["loc"]:
        data = pydantic_core.from_json(arguments)
    return _problems.explain(cast("list[dict[str, Any]]", errors), data, schema)


def _explain_handwritten(error: Exception, _arguments: _Arguments) -> list[str]:
    return _problems.explain_other(error)
