"""From functions to JSON schemas, and from return values to text."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import json
import pathlib
import types
import typing
import weakref
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import attrs
import jsonschema
import pydantic
import pytest
import typing_extensions
from pydantic import Field

from turnscope._errors import InvalidArguments, NotSerialisable
from turnscope._schema import description_of, from_schema, from_signature, to_text

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]  # because nothing has it

T = TypeVar("T")


class Context(Generic[T]):
    """Stands in for the context of a call."""


class Unit(enum.Enum):
    C = "C"
    F = "F"


class Colour(enum.StrEnum):
    RED = "red"


@attrs.define
class Node:
    """A node of a tree."""

    value: int
    children: list[Node] = attrs.field(factory=list)
    _secret: str = "hush"


@attrs.frozen
class Box(Generic[T]):
    item: T


@attrs.define
class Odometer:
    km: float = attrs.field(validator=attrs.validators.ge(0))
    seen: datetime.date | None = attrs.field(default=None)


def parsed(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


@attrs.define
class Appointment:
    day: datetime.date = attrs.field(converter=parsed)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0
    names: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Forest:
    roots: list[Node]
    name: str = "wood"


class Address(typing.TypedDict):
    street: list[str]
    zip: typing.NotRequired[str]


class Person(typing_extensions.TypedDict, total=False):
    name: typing_extensions.Required[str]
    address: Address | None


class Model(pydantic.BaseModel):
    count: int = Field(ge=1)


class Lock:
    """A type that JSON has no form for."""


def schema_of(fn: Callable[..., object], **options: Any) -> Mapping[str, Any]:
    schema = from_signature(fn, **options).schema
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema, allow_nan=False)
    return schema


def property_of(annotation: Any, default: Any = ...) -> Any:
    def fn(x: Any) -> None: ...

    fn.__annotations__ = {"x": annotation}
    if default is not ...:
        fn.__defaults__ = (default,)
    return schema_of(fn)["properties"]["x"]


def values(fn: Callable[..., object], **arguments: Any) -> dict[str, Any]:
    parameters = from_signature(fn)
    as_mapping = parameters.validate("tool", arguments)
    assert parameters.validate("tool", json.dumps(arguments)) == as_mapping
    assert parameters.validate("tool", json.dumps(arguments).encode()) == as_mapping
    return as_mapping


# -- schemas of signatures -------------------------------------------------------------------------


def test_the_schema_has_types_texts_and_defaults_and_no_titles() -> None:
    def weather(city: str, unit: Literal["C", "F"] = "C", *, days: int = 3) -> str:
        """Tell the weather.

        Args:
            city: name of the city
            unit: of the temperature
        """
        return city

    assert schema_of(weather) == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "name of the city"},
            "unit": {
                "type": "string",
                "enum": ["C", "F"],
                "default": "C",
                "description": "of the temperature",
            },
            "days": {"type": "integer", "default": 3},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_a_function_without_parameters_takes_an_empty_object() -> None:
    def now() -> str:
        return ""

    assert schema_of(now) == {"type": "object", "properties": {}, "additionalProperties": False}
    assert values(now) == {}


def test_a_parameter_called_title_stays_in_the_schema() -> None:
    def book(title: str, schema: int, json: int, copy: int, _x: int, validate: int) -> None: ...

    assert list(schema_of(book)["properties"]) == list(schema_of(book)["required"])
    assert "title" in schema_of(book)["properties"]
    arguments = {"title": "t", "schema": 1, "json": 2, "copy": 3, "_x": 4, "validate": 5}
    assert values(book, **arguments) == arguments


def test_a_field_description_wins_over_the_docstring() -> None:
    def fn(a: Annotated[int, Field(description="mine", ge=1)], b: int) -> None:
        """Do.

        Args:
            a: theirs
            b: theirs too
        """

    shown = schema_of(fn)["properties"]
    assert shown["a"] == {"type": "integer", "description": "mine", "minimum": 1}
    assert shown["b"]["description"] == "theirs too"


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        (Unit.C, "C"),
        (pathlib.Path("/x"), "/x"),
        (datetime.timedelta(1), "P1D"),
        (Node(1), {"value": 1, "children": [], "secret": "hush"}),
        ([], []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_default_is_shown_as_json(default: object, shown: object) -> None:
    assert property_of(type(default), default)["default"] == shown


@pytest.mark.parametrize("default", [float("inf"), object(), Lock], ids=["inf", "object", "class"])
def test_a_default_without_a_json_form_is_left_out_of_the_schema(default: object) -> None:
    assert "default" not in property_of(Any, default)


def test_a_default_of_none_lets_the_model_send_null() -> None:
    def fn(a: int, b: Annotated[int, Field(ge=1)]) -> None: ...

    fn.__defaults__ = (None, None)  # as `a: int = None` writes it

    assert values(fn, a=None, b=None) == {"a": None, "b": None}
    with pytest.raises(InvalidArguments, match="b: should be greater"):
        values(fn, b=0)


def test_what_is_left_out_keeps_the_default_of_the_function_itself() -> None:
    default: list[int] = []

    def fn(a: list[int] = default, b: float = float("nan")) -> list[int]:
        return a

    assert values(fn) == {}
    assert fn(**values(fn)) is default


def test_annotations_are_not_needed() -> None:
    def fn(a, b=3): ...  # type: ignore[no-untyped-def]  # because the test is about it

    assert schema_of(fn)["properties"] == {"a": {}, "b": {"default": 3}}
    assert values(fn, a={"any": ["thing"]}) == {"a": {"any": ["thing"]}}


def test_the_return_annotation_need_not_resolve() -> None:
    def fn(a: int) -> Missing:
        return a

    assert values(fn, a=1) == {"a": 1}


def test_an_async_generator_is_read_like_any_function() -> None:
    async def fn(n: int) -> AsyncGenerator[int, None]:
        yield n

    assert values(fn, n=3) == {"n": 3}


# -- the context -----------------------------------------------------------------------------------


def test_the_context_is_named_and_not_in_the_schema() -> None:
    def plain(context: Context, a: int) -> None: ...  # type: ignore[type-arg]  # because users write it
    def of(a: int, *, ctx: Context[str]) -> None: ...
    def maybe(a: int, ctx: Context[str] | None = None) -> None: ...

    tools: list[tuple[Callable[..., None], str]]
    tools = [(plain, "context"), (of, "ctx"), (maybe, "ctx")]
    for fn, name in tools:
        parameters = from_signature(fn, context_type=Context)
        assert parameters.context == name
        assert list(parameters.schema["properties"]) == ["a"]
        with pytest.raises(InvalidArguments, match=f"{name}: not a parameter"):
            parameters.validate("fn", {"a": 1, name: {}})


def test_there_is_one_context_at_most() -> None:
    def fn(a: Context[int], b: Context[int]) -> None: ...

    with pytest.raises(TypeError, match=r"'b'.*second context; 'a'"):
        from_signature(fn, context_type=Context)
    assert from_signature(lambda: 0).context is None


# -- what can be called ----------------------------------------------------------------------------


class Service:
    """A service."""

    def find(self, key: str) -> Service:
        """Find it.

        Args:
            key: what to look for
        """
        return self

    @classmethod
    def make(cls, key: str) -> Service:
        return cls()

    @staticmethod
    def stat(key: str) -> None: ...

    def __call__(self, key: str) -> None:
        """Call it."""


KEY = {"key": {"type": "string"}}


def test_methods_and_objects_are_called_without_self() -> None:
    documented = {"key": {"type": "string", "description": "what to look for"}}
    assert schema_of(Service().find)["properties"] == documented
    assert schema_of(Service.find, method=True)["properties"] == documented
    assert schema_of(vars(Service)["make"], method=True)["properties"] == KEY
    for fn in (Service.make, Service.stat, Service()):
        assert schema_of(fn)["properties"] == KEY
    assert values(Service(), key="k") == {"key": "k"}
    assert description_of(Service()) == "Call it."


def test_a_method_without_self_is_refused() -> None:
    def fn() -> None: ...

    with pytest.raises(TypeError, match="without self or cls"):
        from_signature(fn, method=True)


def test_what_a_partial_has_bound_is_hidden_from_the_model() -> None:
    def fn(a: Lock, b: int, c: Lock, d: str = "d") -> None:
        """Do.

        Args:
            b: the number
        """

    bound = functools.partial(functools.partial(fn, Lock()), c=Lock())
    assert schema_of(bound)["properties"] == {
        "b": {"type": "integer", "description": "the number"},
        "d": {"type": "string", "default": "d"},
    }
    assert description_of(bound) == "Do."
    with pytest.raises(InvalidArguments, match="c: not a parameter"):
        values(bound, b=1, c=2)


def test_a_wrapped_function_is_read_through_its_wrapper() -> None:
    def inner(node: Node, many: int = 2) -> None:
        """Inner."""

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> None: ...

    assert list(schema_of(outer)["properties"]) == ["node", "many"]


def test_a_class_can_be_called() -> None:
    assert list(schema_of(Point)["properties"]) == ["x", "y", "names"]


# -- refusals at definition ------------------------------------------------------------------------


def stars(*paths: str) -> None: ...
def stars2(**rest: str) -> None: ...
def positional(a: int, /) -> None: ...
def unresolved(a: int, b: Missing) -> None: ...
def locked(a: int, b: dict[str, Lock]) -> None: ...
def called(a: int, b: Callable[[int], int]) -> None: ...
def looking_behind(a: int, b: Annotated[str, Field(pattern="(?<=x)y")]) -> None: ...
def filled(a: int, b: int = Field(default=3)) -> None: ...


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (stars, r"'stars' takes \*paths.*declare one parameter of type list"),
        (stars2, r"'stars2' takes \*\*rest.*dict\[str"),
        (positional, r"'positional' takes a by position only.*behind the '/'"),
        (unresolved, r"'Missing' of parameter 'b' of 'unresolved'.*at module level"),
        (locked, r"parameter 'b' of 'locked' has no JSON schema.*Lock.*dataclasses"),
        (called, r"parameter 'b' of 'called' has no JSON schema.*Callable"),
        (looking_behind, r"parameter 'b' of 'looking_behind' has no JSON schema.*look-around"),
        (filled, r"parameter 'b' of 'filled' has a pydantic Field as its default.*Annotated"),
        (max, r"'max' has no signature.*wrap it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_a_model_cannot_call_is_refused_with_the_reason_and_the_remedy(
    fn: Callable[..., object], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        from_signature(fn)


# -- types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotation", "sent", "received"),
    [
        (int, 3, 3),
        (float, 3, 3.0),
        (bool, True, True),
        (str, "s", "s"),
        (Any, None, None),
        (int | None, None, None),
        (typing.Optional[int], 3, 3),  # noqa: UP045  # because users write it
        (int | str, "3", "3"),
        (Literal["a", 1], 1, 1),
        (Unit, "F", Unit.F),
        (Colour, "red", Colour.RED),
        (list[int], [1], [1]),
        (typing.List[int], [1], [1]),  # noqa: UP006  # because users write it
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[str], ["a"], {"a"}),
        (frozenset[str], ["a"], frozenset({"a"})),
        (Sequence[int], [1], [1]),
        (datetime.date, "2026-11-05", datetime.date(2026, 11, 5)),
        (datetime.datetime, "2026-11-05T12:00:00", datetime.datetime(2026, 11, 5, 12)),
        (datetime.timedelta, "PT1M", datetime.timedelta(minutes=1)),
        (decimal.Decimal, "1.5", decimal.Decimal("1.5")),
        (pathlib.Path, "/x", pathlib.Path("/x")),
        (Point, {"x": 1}, Point(1)),
        (Model, {"count": 2}, Model(count=2)),
        (Node, {"value": 1, "secret": "s"}, Node(1, secret="s")),
        (Node, {"value": 1, "children": [{"value": 2}]}, Node(1, [Node(2)])),
        (Node | None, None, None),
        (list[Node | None], [{"value": 1}, None], [Node(1), None]),
        (dict[str, tuple[Node, ...]], {"a": [{"value": 1}]}, {"a": (Node(1),)}),
        (Annotated[list[Node], Field(max_length=2)], [{"value": 1}], [Node(1)]),
        (Box[int], {"item": 3}, Box(3)),
        (Box[list[Node]], {"item": [{"value": 3}]}, Box([Node(3)])),
        (Odometer, {"km": 3, "seen": "2026-11-05"}, Odometer(3.0, datetime.date(2026, 11, 5))),
        (Appointment, {"day": "2026-11-05"}, Appointment("2026-11-05")),
        (Forest, {"roots": [{"value": 1}]}, Forest([Node(1)])),
        (Address, {"street": ["a"]}, {"street": ["a"]}),
        (Person, {"name": "n", "address": {"street": [], "zip": "z"}},
         {"name": "n", "address": {"street": [], "zip": "z"}}),
    ],
    ids=str,
)  # fmt: skip
def test_values_arrive_as_their_annotation_says(annotation: Any, sent: Any, received: Any) -> None:
    def fn(x: Any) -> None: ...

    fn.__annotations__ = {"x": annotation}
    assert values(fn, x=sent) == {"x": received}
    assert type(values(fn, x=sent)["x"]) is type(received)
    jsonschema.validate({"x": sent}, dict(schema_of(fn)))


def test_an_attrs_class_has_the_schema_of_its_init() -> None:
    def fn(node: Node) -> None: ...

    assert schema_of(fn)["$defs"]["Node"] == {
        "type": "object",
        "description": "A node of a tree.",
        "properties": {
            "value": {"type": "integer"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            "secret": {"type": "string", "default": "hush"},
        },
        "required": ["value"],
        "additionalProperties": False,
    }


def test_an_instance_in_a_mapping_is_taken_as_it_is() -> None:
    def fn(node: Node, point: Point) -> None: ...

    node, point = Node(1), Point(1)
    got = from_signature(fn).validate("fn", {"node": node, "point": point})
    assert got["node"] is node
    assert got["point"] is point


def test_not_required_is_read_with_postponed_annotations() -> None:
    assert property_of(Address) == {"$ref": "#/$defs/Address"}

    def fn(a: Address, b: Person) -> None: ...

    definitions = schema_of(fn)["$defs"]
    assert definitions["Address"]["required"] == ["street"]
    assert definitions["Person"]["required"] == ["name"]


# -- hand-written schemas --------------------------------------------------------------------------


def test_a_handwritten_schema_is_shown_as_written_and_gives_json_values() -> None:
    required = ["n"]
    schema = {
        "type": "object",
        "title": "Mine",
        "properties": {"when": {"type": "string", "format": "date"}, "n": {"$ref": "#/$defs/n"}},
        "$defs": {"n": {"type": "integer", "minimum": 3}},
        "required": required,
    }
    parameters = from_schema(schema)
    assert parameters.schema == schema
    assert parameters.context is None
    assert parameters.validate("t", '{"n": 3, "when": "2026-11-05", "more": [1]}') == {
        "n": 3,
        "when": "2026-11-05",
        "more": [1],
    }
    required.clear()  # the tool keeps its own copy
    with pytest.raises(InvalidArguments, match="n: missing; expected an integer"):
        parameters.validate("t", "")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array"}, "must be 'object'"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, r"at \$.properties.a"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}, "under '\\$defs'"),
        ({"properties": {"a": {"$ref": "https://example.com/b.json"}}}, "not fetched"),
    ],
)
def test_a_handwritten_schema_that_is_none_is_refused(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_schema(schema)


# -- descriptions ----------------------------------------------------------------------------------

GOOGLE = """Tell the weather.

    It is about    spaces too:

        code()

    Args:
        city: name of the city,
            in English
        unit (str, optional): of the temperature

    Returns:
        The weather.

    Example:
        >>> weather("Oslo")
    """
NUMPY = """Tell the weather.

    More of it.

    Parameters
    ----------
    city : str
        name of the city,
        in English

    unit : {'C', 'F'}, optional
        of the temperature

    Returns
    -------
    str
        The weather.
    """
REST = """Tell the weather.

    More of it.

    :param city: name of the city,
        in English
    :type city: str
    :param str unit: of the temperature
    :returns: The weather.
    """


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        (
            GOOGLE,
            (
                "Tell the weather.\n\nIt is about    spaces too:\n\n    code()\n\n"
                'Returns:\n    The weather.\n\nExample:\n    >>> weather("Oslo")'
            ),
        ),
        (
            NUMPY,
            "Tell the weather.\n\nMore of it.\n\nReturns\n-------\nstr\n    The weather.",
        ),
        (REST, "Tell the weather.\n\nMore of it.\n\n:returns: The weather."),
    ],
    ids=["google", "numpy", "rest"],
)
def test_the_parameters_of_a_docstring_move_into_the_schema(text: str, rest: str) -> None:
    def fn(city: str, unit: str = "C") -> None: ...

    fn.__doc__ = text
    assert description_of(fn) == rest
    shown = schema_of(fn)["properties"]
    assert shown["city"]["description"] == "name of the city,\nin English"
    assert shown["unit"]["description"] == "of the temperature"


@pytest.mark.parametrize(
    "text", [None, "", "Args", "Args:", "No sections: at all\n\n  just text", ":param"]
)
def test_a_docstring_without_parameters_is_the_description(text: str | None) -> None:
    def fn(city: str) -> None: ...

    fn.__doc__ = text
    assert description_of(fn) == (text or "").replace("\n  ", "\n").strip()


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is: ü", "as it is: ü"),
        (Colour.RED, "red"),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ({"a": [1, None, "ü"]}, '{"a":[1,null,"ü"]}'),
        (Point(1), '{"x":1,"y":0,"names":[]}'),
        (Node(1, secret="s"), '{"value":1,"children":[],"secret":"s"}'),
        (Forest([Node(1)]), '{"roots":[{"value":1,"children":[],"secret":"hush"}],"name":"wood"}'),
        (Box({"p": Box(Point(1))}), '{"item":{"p":{"item":{"x":1,"y":0,"names":[]}}}}'),
        (Model(count=3), '{"count":3}'),
        (datetime.date(2026, 11, 5), '"2026-11-05"'),
        (pathlib.Path("/x"), '"/x"'),
        ([Unit.C], '["C"]'),
        ({3}, "[3]"),
        (types.MappingProxyType({"a": range(2)}), '{"a":[0,1]}'),
        (collections.deque([1]), "[1]"),
        (float("nan"), '"NaN"'),
        (b"text", '"text"'),
        ({1: {(2, 3): 4}}, '{"1":{"2,3":4}}'),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_a_result_becomes_text(value: object, text: str) -> None:
    assert to_text("t", value) == text


def circular() -> object:
    value: list[object] = []
    value.append({"a": value})
    return value


def circular_node() -> object:
    node = Node(1)
    node.children.append(node)
    return node


def deep() -> object:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@attrs.define
class Broken:
    @property
    def x(self) -> int:
        raise KeyError("x")

    y: int = attrs.field(init=False)


@pytest.mark.parametrize(
    ("value", "type_name", "reason"),
    [
        (Lock(), f"{__name__}.Lock", "no JSON form"),
        ({"a": [Point(Lock())]}, f"{__name__}.Lock", "no JSON form"),  # type: ignore[arg-type]  # because a result is not checked
        (Node(Lock()), f"{__name__}.Lock", "no JSON form"),  # type: ignore[arg-type]  # because a result is not checked
        ({Lock(): 1}, f"{__name__}.Lock", "no JSON form"),
        (Lock, "type", "no JSON form"),
        (ValueError("x"), "ValueError", "no JSON form"),
        ({"rows": (each for each in [Lock()])}, f"{__name__}.Lock", "no JSON form"),
        (circular(), "list", "refers to itself"),
        (circular_node(), f"{__name__}.Node", "refers to itself"),
        (deep(), "list", "nested too deep"),
        (b"\xff", "bytes", "utf-8"),
        ("\ud800", "str", "surrogates"),
        ({"a": "\ud800"}, "dict", "surrogates"),
        (Broken(), f"{__name__}.Broken", "y"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_text_is_an_error_that_names_the_type(
    value: object, type_name: str, reason: str
) -> None:
    with pytest.raises(NotSerialisable, match=reason) as caught:
        to_text("t", value)
    assert caught.value.type_name == type_name


class Torn(Mapping[str, int]):
    """Breaks while it is read, by a mistake of its own."""

    def __getitem__(self, key: str) -> int:
        raise TypeError("a mistake of its own")

    def __iter__(self) -> typing.Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def test_what_breaks_while_it_is_read_is_not_said_to_have_no_json_form() -> None:
    with pytest.raises(NotSerialisable, match="a mistake of its own"):
        to_text("t", {"in": Torn()})


# -- lifetime --------------------------------------------------------------------------------------


def test_parameters_are_one_of_a_kind_and_hold_no_cycles() -> None:
    def fn(a: int) -> None: ...

    parameters = from_signature(fn)
    assert parameters != from_signature(fn)
    assert hash(parameters) != hash(from_signature(fn))
    gone = weakref.ref(parameters)
    gc.disable()
    try:
        del parameters
        assert gone() is None
    finally:
        gc.enable()


def test_a_refused_call_leaves_no_garbage_cycles() -> None:
    def fn(a: int, b: Odometer) -> None: ...

    parameters = from_signature(fn)

    def refuse() -> None:
        with contextlib.suppress(InvalidArguments):
            parameters.validate("fn", '{"a": "x", "b": {"km": -1}}')
            pytest.fail("the arguments were taken")

    refuse()
    gc.collect()
    gc.disable()
    try:
        refuse()
        assert gc.collect() == 0
    finally:
        gc.enable()
