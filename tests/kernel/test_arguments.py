"""Whatever a model sends as arguments: keyword arguments, or words that tell what to correct."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import attrs
import jsonschema
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from turnscope._errors import InvalidArguments
from turnscope._schema import Parameters, from_schema, from_signature


class Unit(enum.Enum):
    C = "C"
    F = "F"


@attrs.define
class Tree:
    value: int = attrs.field(validator=attrs.validators.ge(0))
    branches: list[Tree] = attrs.field(factory=list)


@dataclasses.dataclass
class Address:
    street: list[str]


@attrs.define
class Locked:
    key: Any

    def __attrs_post_init__(self) -> None:
        raise LookupError("no such key")


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str


def weather(city: str, unit: Unit = Unit.C, days: int = 1) -> None: ...
def everything(
    a: int,
    b: list[Tree] | None = None,
    c: dict[str, Address] | None = None,
    d: Cat | Dog | None = None,
    e: datetime.datetime | None = None,
    f: Any = None,
    g: set[tuple[int, str]] = frozenset(),  # type: ignore[assignment]  # because it is not changed
) -> None: ...


WEATHER = from_signature(weather)
EVERYTHING = from_signature(everything)
BY_HAND = from_schema(
    {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 3},
            "b": {"enum": ["C", None]},
            "c": {"type": "array", "items": {"type": "object", "required": ["x"]}},
            "d": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "tree": {"$ref": "#/$defs/tree"},
        },
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {
            "tree": {"type": "object", "additionalProperties": {"$ref": "#/$defs/tree"}},
        },
    }
)
EVERY = pytest.mark.parametrize(
    "parameters", [WEATHER, EVERYTHING, BY_HAND], ids=["weather", "everything", "by hand"]
)


def problems(parameters: Parameters, arguments: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidArguments) as caught:
        parameters.validate("tool", arguments)
    return caught.value.problems


def of(annotation: Any, value: Any) -> tuple[str, ...]:
    def fn(x: Any) -> None: ...

    fn.__annotations__ = {"x": annotation}
    parameters = from_signature(fn)
    said = problems(parameters, {"x": value})
    assert problems(parameters, json.dumps({"x": value})) == said
    return said


# -- the words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"city": 7}, ["city: expected a string, was given 7 (int)"]),
        ({"city": None}, ["city: expected a string, was given null"]),
        ({"city": True}, ["city: expected a string, was given true"]),
        ({"unit": "C"}, ["city: missing; expected a string"]),
        ({"city": "", "unit": "K"}, ["unit: expected 'C' or 'F', was given 'K' (str)"]),
        ({"city": "", "days": 1.5}, ["days: expected an integer, was given 1.5 (float)"]),
        (
            {"city": "", "colour": 1},
            ["colour: not a parameter; the parameters are city, unit, days"],
        ),
        (
            {"a b": 1, "days": []},
            [
                "city: missing; expected a string",
                "days: expected an integer, was given [] (list)",
                "['a b']: not a parameter; the parameters are city, unit, days",
            ],
        ),
    ],
    ids=str,
)
def test_each_problem_names_the_field_what_was_expected_and_what_was_given(
    arguments: dict[str, Any], said: list[str]
) -> None:
    assert sorted(problems(WEATHER, arguments)) == sorted(said)
    assert sorted(problems(WEATHER, json.dumps(arguments))) == sorted(said)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (list[int], [1, "x"], ["x[1]: expected an integer, was given 'x' (str)"]),
        (dict[str, int], {"k": "x"}, ["x.k: expected an integer, was given 'x' (str)"]),
        (Address, {"street": ["a", 2]}, ["x.street[1]: expected a string, was given 2 (int)"]),
        (
            Address,
            {"street": [], "zip": 1},
            ["x.zip: not a field; the fields are street"],
        ),
        (Address, {}, ["x.street: missing; expected a list"]),
        (Address, [], ["x: expected an object, was given [] (list)"]),
        (int | str, [], ["x: expected an integer or a string, was given [] (list)"]),
        (int | None, "a", ["x: expected an integer or null, was given 'a' (str)"]),
        (tuple[int, str], [1], ["x[1]: missing; expected a string"]),
        (
            Tree,
            {"value": 1, "branches": [{"value": "b"}]},
            ["x.branches[0].value: expected an integer, was given 'b' (str)"],
        ),
        (
            Tree,
            {"value": -1},
            ["x: 'value' must be >= 0: -1, was given {'value': -1} (dict)"],
        ),
        (
            Cat | Dog,
            {"kind": "cat"},
            [
                "x.lives: missing; expected an integer (as Cat)",
                "x.kind: should be 'dog', was given 'cat' (str) (as Dog)",
                "x.name: missing; expected a string (as Dog)",
            ],
        ),
        (
            dict[str, Locked],
            {"a": {"key": 1}},
            ["x.a: no such key, was given {'key': 1} (dict)"],
        ),
        (
            Tree | Address,
            {"street": [1]},
            [
                "x.value: missing; expected an integer (as Tree)",
                "x.street: not a field; the fields are value, branches (as Tree)",
                "x.street[0]: should be a valid string, was given 1 (int) (as Address)",
            ],
        ),
        (
            Annotated[int, Field(gt=3)],
            3,
            ["x: should be greater than 3, was given 3 (int)"],
        ),
        (
            Annotated[str, Field(min_length=2)],
            "a",
            ["x: string should have at least 2 characters, was given 'a' (str)"],
        ),
        (
            datetime.date,
            "now",
            ["x: expected a date such as '2026-11-05', was given 'now' (str)"],
        ),
        (bool, "maybe", ["x: expected true or false, was given 'maybe' (str)"]),
        (Literal[1, True, None], 2, ["x: expected 1, true or null, was given 2 (int)"]),
        (dict[int, int], {"k": 1}, [("x.k: should be a valid integer, unable to parse string as an "
                                    "integer, was given 'k' (str) (as a key)")]),
    ],
    ids=str,
)  # fmt: skip
def test_a_problem_inside_a_value_has_its_path(
    annotation: Any, value: Any, said: list[str]
) -> None:
    assert list(of(annotation, value)) == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"city": "a', "not valid JSON: EOF while parsing a string at line 1 column 11"),
        ('{"city": "a",}', "not valid JSON: trailing comma at line 1 column 14"),
        ("{'city': 'a'}", "not valid JSON: key must be a string at line 1 column 2"),
        ("[1]", "expected a JSON object with the arguments, was given a list"),
        ("null", "expected a JSON object with the arguments, was given null"),
        ('"x"', "expected a JSON object with the arguments, was given a string"),
        ("7", "expected a JSON object with the arguments, was given a number"),
        ("[" * 100_000, "not valid JSON: recursion limit exceeded at line 1 column 202"),
    ],
    ids=lambda value: value[:20],
)
@pytest.mark.parametrize("parameters", [WEATHER, BY_HAND], ids=["signature", "by hand"])
def test_what_is_no_json_object_is_said_to_be_none(
    parameters: Parameters, arguments: str, said: str
) -> None:
    assert problems(parameters, arguments) == (said,)
    assert problems(parameters, arguments.encode()) == (said,)


@pytest.mark.parametrize("arguments", ["", "  \n", b"", b"\t"])
def test_no_text_at_all_is_a_call_without_arguments(arguments: str | bytes) -> None:
    def now(zone: str = "UTC") -> None: ...

    assert from_signature(now).validate("now", arguments) == {}
    assert from_schema({}).validate("now", arguments) == {}
    assert problems(WEATHER, arguments) == ("city: missing; expected a string",)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "a: missing; expected an integer"),
        ({"a": "x"}, "a: expected an integer, was given 'x' (str)"),
        ({"a": 2}, "a: does not satisfy minimum: 3; was given 2 (int)"),
        ({"a": 3, "b": 1}, "b: expected 'C' or null, was given 1 (int)"),
        ({"a": 3, "c": [{"x": 1}, {}]}, "c[1].x: missing"),
        ({"a": 3, "d": 1}, "d: expected a string or null, was given 1 (int)"),
        ({"a": 3, "z": 1}, "z: not a parameter; the parameters are a, b, c, d, tree"),
    ],
    ids=str,
)
def test_a_handwritten_schema_gives_the_same_words(arguments: dict[str, Any], said: str) -> None:
    assert problems(BY_HAND, arguments) == (said,)
    assert problems(BY_HAND, json.dumps(arguments)) == (said,)


def sunday(value: int) -> int:
    raise ValueError("not on a Sunday")


def crash(value: int) -> int:
    raise ZeroDivisionError("by nothing")


def test_a_validator_that_raises_is_told_to_the_model() -> None:
    assert of(Annotated[int, pydantic.AfterValidator(sunday)], 1) == (
        "x: not on a Sunday, was given 1 (int)",
    )
    assert of(Annotated[int, pydantic.AfterValidator(crash)], 1) == (
        "checking the arguments raised ZeroDivisionError: by nothing",
    )

    def fn(x: Annotated[int, pydantic.AfterValidator(crash)]) -> None: ...

    with pytest.raises(InvalidArguments) as caught:
        from_signature(fn).validate("fn", {"x": 1})
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# -- size and shape --------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    tree: dict[str, Any] = {"value": 1}
    for _ in range(levels):
        tree = {"value": 1, "branches": [tree]}
    return tree


def circular() -> dict[str, Any]:
    tree: dict[str, Any] = {"value": 1}
    tree["branches"] = [tree]
    return tree


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    __hash__ = object.__hash__


class Unreadable(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no item")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        return 1


ODD: dict[str, Callable[[], Any]] = {
    "a long text": lambda: {"a": "x" * 10_000_000},
    "a long name": lambda: {"x" * 1_000_000: 1},
    "a long text in JSON": lambda: json.dumps({"a": "x" * 10_000_000}),
    "JSON that ends in a long text": lambda: '{"a": "' + "x" * 10_000_000,
    "a long list in JSON": lambda: json.dumps({"a": 1, "b": ["x"] * 50_000}),
    "a long list and many unknown names": lambda: {
        "a": 1,
        "b": ["x"] * 50_000,
        "c": {str(n): n for n in range(1000)},
    },
    "many unknown names": lambda: {f"key {n}": n for n in range(10_000)},
    "deeply nested": lambda: {"a": 1, "b": [nested(100_000)], "tree": nested(100_000)},
    "circular": lambda: {"a": 1, "b": [circular()], "tree": circular()},
    "JSON that nests and ends": lambda: '{"a": ' + "[" * 100_000,
    "JSON that nests deeply": lambda: '{"a": 1, "b": ' + "[" * 300 + "]" * 300 + "}",
    "objects that refuse": lambda: {"a": Rude(), Rude(): 1},
    "huge integers": lambda: {"a": 10**10_000, "b": 10**10_000, "zz": 10**10_000},
    "a huge integer in JSON": lambda: '{"a": ' + "1" * 10_000 + "}",
    "a mapping that cannot be read": Unreadable,
    "a name that is no text": lambda: {1: 1},
    "bytes that are no UTF-8": lambda: b"\xff\xfe",
    "escaped surrogates": lambda: '{"a": "\\ud800", "\\udfff": 1}',
    "a surrogate in JSON": lambda: '{"\ud800": 1}',
    "surrogates": lambda: {"\ud800": "\udfff"},
    "no numbers, in JSON": lambda: '{"a": NaN, "b": -Infinity}',
    "no numbers": lambda: {"a": math.nan, "b": math.inf},
    "a name twice": lambda: '{"a": [], "a": {}}',
    "control characters": lambda: {"a": {"\x00\n": "\x1b[31m"}},
}


@pytest.mark.parametrize("odd", ODD)
@EVERY
def test_arguments_of_any_size_and_shape_are_refused_in_a_few_words(
    parameters: Parameters, odd: str
) -> None:
    with pytest.raises(InvalidArguments) as caught:
        parameters.validate("tool", ODD[odd]())
    assert 1 <= len(caught.value.problems) <= 21
    assert len(str(caught.value)) <= 4000
    assert all(problem.isprintable() for problem in caught.value.problems)
    str(caught.value).encode()


def test_more_than_twenty_problems_are_counted() -> None:
    said = of(list[int], ["x"] * 500)
    assert said[19] == "x[19]: expected an integer, was given 'x' (str)"
    assert said[20:] == ("... and 480 more",)


def test_long_problems_are_fewer_than_twenty() -> None:
    def fn(x: dict[str, dict[str, dict[str, int]]]) -> None: ...

    long = {"k" * 60: {"l" * 60: {f"m{n}" * 12: "x" * 100 for n in range(15)}}}
    said = problems(from_signature(fn), {"x": long})
    assert len(said) < 15
    assert said[-1] == f"... and {16 - len(said)} more"
    assert 3000 < sum(map(len, said)) <= 3700


def test_a_long_value_is_cut_to_eighty_characters() -> None:
    [said] = of(int, "y" * 10_000)
    assert "yyy...yyy" in said
    assert len(said) < 150


def test_huge_arguments_that_fit_are_taken() -> None:
    def fn(text: str, data: Any) -> None: ...

    arguments = {"text": "ü" * 5_000_000, "data": nested(40)}
    parameters = from_signature(fn)
    assert parameters.validate("fn", arguments) == arguments
    assert parameters.validate("fn", json.dumps(arguments)) == arguments


def test_the_last_of_repeated_names_counts() -> None:
    assert WEATHER.validate("w", '{"city": "a", "city": "b"}') == {"city": "b"}


def test_a_call_is_checked_in_microseconds() -> None:
    def one(city: str) -> None: ...

    validate = from_signature(one).validate
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(500):
            validate("one", '{"city": "Beijing"}')
        best = min(best, (time.perf_counter() - start) / 500)
    # Measured 0.6 us; a validator that is built per call takes a hundred times the bound.
    assert best < 20e-6


# -- properties ------------------------------------------------------------------------------------

KEYS = st.sampled_from("abcdefg") | st.sampled_from(["city", "unit", "days", "tree", "value"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from("CF"),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=20,
)


def is_checked(parameters: Parameters, arguments: Any) -> None:
    try:
        got = parameters.validate("tool", arguments)
    except InvalidArguments as error:
        words = str(error)
    else:
        assert type(got) is dict
        assert got.keys() <= parameters.schema["properties"].keys()
        return
    assert "\n- " in words
    assert len(words) <= 4000


@EVERY
@given(st.text() | st.binary() | JSON.map(json.dumps))
def test_any_text_gives_arguments_or_is_refused(
    parameters: Parameters, arguments: str | bytes
) -> None:
    is_checked(parameters, arguments)


@EVERY
@given(st.dictionaries(KEYS, JSON))
def test_any_object_gives_arguments_or_is_refused(
    parameters: Parameters, arguments: dict[str, Any]
) -> None:
    is_checked(parameters, arguments)
    is_checked(parameters, json.dumps(arguments))


@EVERY
@given(JSON)
def test_any_value_in_place_of_the_object_is_refused(parameters: Parameters, value: Any) -> None:
    if isinstance(value, dict):
        is_checked(parameters, value)
    else:
        problems(parameters, value)


# An annotation, with the JSON values that it takes as they are.
Kind = tuple[Any, st.SearchStrategy[Any]]


def listed(kind: Kind) -> Kind:
    return types.GenericAlias(list, (kind[0],)), st.lists(kind[1])


def mapped(kind: Kind) -> Kind:
    values = st.dictionaries(st.sampled_from("xyz"), kind[1])
    return types.GenericAlias(dict, (str, kind[0])), values


def annotated(kind: Kind) -> Kind:
    return Annotated[kind[0], Field(description="d")], kind[1]


WHOLE = st.integers(-(2**63), 2**63)
KINDS: st.SearchStrategy[Kind] = st.recursive(
    st.sampled_from(
        [
            (int, WHOLE),
            (bool, st.booleans()),
            (str, st.text(st.characters(exclude_categories=["Cs"]))),
            (float, st.floats(allow_nan=False, allow_infinity=False)),
            (Literal["a", 1], st.sampled_from(["a", 1])),
            (int | None, st.none() | WHOLE),
        ]
    ),
    lambda inner: st.one_of(inner.map(listed), inner.map(mapped), inner.map(annotated)),
    max_leaves=4,
)


@given(
    st.dictionaries(
        st.sampled_from(["a", "_b", "schema", "title"]), st.tuples(KINDS, st.booleans())
    ),
    st.data(),
)
def test_what_fits_a_signature_arrives_unchanged_and_fits_its_schema(
    shape: dict[str, tuple[Kind, bool]], data: st.DataObject
) -> None:
    parameters = from_signature(function(shape))
    arguments = {
        name: data.draw(values, label=name)
        for name, ((_, values), optional) in shape.items()
        if not optional or data.draw(st.booleans(), label=f"{name} is given")
    }
    assert parameters.validate("fn", arguments) == arguments
    assert parameters.validate("fn", json.dumps(arguments)) == arguments
    jsonschema.validate(arguments, dict(parameters.schema))


@given(
    st.dictionaries(st.sampled_from("ab"), st.tuples(KINDS, st.booleans()), min_size=1),
    st.dictionaries(st.sampled_from("abc"), JSON),
)
def test_what_the_schema_allows_is_taken(
    shape: dict[str, tuple[Kind, bool]], arguments: dict[str, Any]
) -> None:
    parameters = from_signature(function(shape))
    allowed = jsonschema.Draft202012Validator(parameters.schema).is_valid(arguments)
    try:
        got = parameters.validate("fn", arguments)
    except InvalidArguments:
        assert not allowed or any(map(what_no_schema_can_forbid, arguments.values()))
    else:
        assert got.keys() == arguments.keys()


def what_no_schema_can_forbid(value: Any) -> bool:
    """A number is finite; and an int that is written as a float is one of 64 bits, to pydantic."""
    if isinstance(value, (list, dict)):
        return any(
            map(what_no_schema_can_forbid, value if isinstance(value, list) else value.values())
        )
    return isinstance(value, float) and not abs(value) < 2**63


@pytest.mark.parametrize("number", [2.0**63, -(2.0**63), 1e300, math.inf])
def test_a_float_that_is_no_int_of_64_bits_is_refused_as_one(number: float) -> None:
    parameters = from_signature(function({"a": ((int, WHOLE), False)}))
    with pytest.raises(InvalidArguments):
        parameters.validate("fn", {"a": number})
    assert parameters.validate("fn", {"a": 2.0**53}) == {"a": 2**53}


def function(shape: dict[str, tuple[Kind, bool]]) -> Callable[..., None]:
    ordered = sorted(shape, key=lambda name: shape[name][1])
    source = ", ".join(f"{name}=None" if shape[name][1] else name for name in ordered)
    space: dict[str, Any] = {}
    exec(f"def fn({source}): ...", space)
    fn: Callable[..., None] = space["fn"]
    fn.__annotations__ = {name: kind for name, ((kind, _), _) in shape.items()}
    return fn
