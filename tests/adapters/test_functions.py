"""OpenAI's function definitions as tools, with a callable of Python's, and back."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam

from tests.support import Loop
from turnscope import Agent, Kernel, Status, Tool, ToolCall, ToolResult, tool
from turnscope.testing import ScriptedModel
from turnscope_adapters.functions import from_function, to_function

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "its name in English"},
        "unit": {"type": "string", "enum": ["C", "F"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}
INNER: dict[str, Any] = {"name": "weather", "description": "Tell it.", "parameters": SCHEMA}
CHAT: dict[str, Any] = {"type": "function", "function": INNER}
RESPONSES: dict[str, Any] = {"type": "function", "strict": False, **INNER}


def told(city: str, unit: str = "C") -> str:
    """Tell the weather of today."""
    return f"20 {unit} in {city}"


async def told_later(city: str, unit: str = "C") -> str:
    return told(city, unit)


def ran(loop: Loop, made: Tool[..., Any], *arguments: str | dict[str, Any]) -> list[ToolResult]:
    async def main() -> list[ToolResult]:
        async with Kernel() as kernel, kernel.turn([made]) as turn:
            for each in arguments:
                turn.submit(ToolCall("c", made.name, each))
        return list(turn.results)

    return loop.run(main)


@pytest.mark.parametrize(
    "definition",
    [CHAT, RESPONSES, INNER, {**CHAT, "function": {**INNER, "strict": True}}],
    ids=["Chat's", "Responses'", "bare", "strict"],
)
def test_each_form_of_a_definition_makes_the_same_tool(definition: dict[str, Any]) -> None:
    made = from_function(definition, told, timeout=3, read_only=True)
    assert (made.name, made.description, made.schema) == ("weather", "Tell it.", SCHEMA)
    assert (made.timeout, made.read_only, made.early) == (3, True, True)
    assert made("Paris") == "20 C in Paris"
    assert from_function(MappingProxyType(definition), told, name="sky").name == "sky"


def test_what_a_definition_leaves_out_comes_from_the_function_or_is_nothing() -> None:
    made = from_function({"name": "now"}, lambda: "noon")
    assert made.schema == {"type": "object", "properties": {}}
    bare = {"name": "weather", "description": None, "parameters": SCHEMA, "strict": None}
    assert from_function(bare, told).description == "Tell the weather of today."


@pytest.mark.parametrize(("fn", "place"), [(told, "thread"), (told_later, "inline")])
def test_arguments_are_validated_and_given_by_name(fn: Any, place: str, any_loop: Loop) -> None:
    good, other, wrong, missing, unknown, broken = ran(
        any_loop,
        from_function(CHAT, fn),
        {"city": "Paris"},
        '{"unit": "F", "city": "Lima"}',
        {"city": "Paris", "unit": "K"},
        {"unit": "C"},
        {"city": "Paris", "day": 1},
        '{"city": ',
    )
    assert (good.value, good.backend) == ("20 C in Paris", place)
    assert other.value == "20 F in Lima"
    for each, said in (wrong, "unit"), (missing, "city"), (unknown, "day"), (broken, "JSON"):
        assert each.status is Status.INVALID and said in str(each.content)


def test_a_run_shows_the_definition_to_its_model(any_loop: Loop) -> None:
    model = ScriptedModel(
        [
            [
                ToolCall("a", "weather", {"city": "Paris"}),
                ToolCall("b", "weather", {"city": "Oslo"}),
            ],
            lambda request: ", ".join(str(each.content) for each in request.history.results),
        ]
    )
    agent: Agent[Any, Any] = Agent(model=model, tools=[from_function(CHAT, told)])

    async def main() -> None:
        async with Kernel() as kernel:
            assert (await kernel.run(agent, "Weather?")).output == "20 C in Paris, 20 C in Oslo"

    any_loop.run(main)
    assert [to_function(each) for each in model.requests[0].tools] == [CHAT]


def test_a_definition_that_openais_own_package_makes_is_taken(any_loop: Loop) -> None:
    class Ask(pydantic.BaseModel):
        """Ask for the weather."""

        city: str
        days: int

    definition = openai.pydantic_function_tool(Ask, name="weather")
    assert definition["function"].get("strict") is True
    made = from_function(definition, lambda city, days: f"{days} days in {city}")
    assert made.description == "Ask for the weather."
    (result,) = ran(any_loop, made, {"city": "Paris", "days": 2})
    assert result.value == "2 days in Paris"


def test_a_tool_is_a_definition_as_openais_own_types_have_it() -> None:
    @tool
    def add(a: int, b: int = 0) -> int:
        """Add them."""
        return a + b

    chat, flat = to_function(add), to_function(add, flat=True)
    pydantic.TypeAdapter(ChatCompletionFunctionToolParam).validate_python(chat)
    pydantic.TypeAdapter(FunctionToolParam).validate_python({**flat, "strict": False})
    assert chat == {"type": "function", "function": {k: v for k, v in flat.items() if k != "type"}}
    assert chat["function"]["parameters"]["required"] == ["a"]
    assert "description" not in to_function(Tool(lambda: 1, name="one", description=""), flat=True)
    again = from_function(chat, add.fn)
    assert to_function(again) == chat


def takes_more(city: str, unit: str, day: int) -> None: ...
def takes_less(city: str) -> None: ...
def wants_unit(city: str, unit: str) -> None: ...
def by_place(city: str, /, unit: str = "C") -> None: ...
def takes_all(**arguments: Any) -> None: ...
def takes_some(*cities: str, **arguments: Any) -> None: ...


@pytest.mark.parametrize(
    ("definition", "fn", "error", "says"),
    [
        (told, CHAT, TypeError, "is a mapping, like .*not function; its callable comes second"),
        ([CHAT], told, TypeError, "is a mapping, like .*not list"),
        ({"type": "function", "function": "weather"}, told, TypeError, "'function' is a mapping"),
        ({"type": "web_search"}, told, ValueError, "'web_search' is no function"),
        ({}, told, ValueError, "needs a name.*got None"),
        ({"name": ""}, told, ValueError, "needs a name"),
        ({"name": 5}, told, ValueError, "needs a name, a text.*got 5"),
        ({"name": "my weather"}, lambda: 1, ValueError, "cannot be the name of a tool"),
        ({**INNER, "description": 5}, told, TypeError, "'description' .* is a text, not int"),
        ({**INNER, "parameters": []}, told, TypeError, "'parameters' .* a mapping, not list"),
        ({**INNER, "strict": "yes"}, told, TypeError, "'strict' .* is true or false, not str"),
        (
            {"name": "weather", "input_schema": SCHEMA},
            told,
            ValueError,
            "no 'parameters', but 'input_schema'",
        ),
        ({**INNER, "parameters": {"type": "array"}}, told, ValueError, "it must be 'object'"),
        ({**INNER, "parameters": {"required": 1}}, told, ValueError, "not a valid JSON schema"),
        (INNER, 5, TypeError, "made from a callable, not from int"),
        (INNER, from_function(INNER, told), TypeError, "is a Tool already"),
        (INNER, takes_more, TypeError, "needs 'unit', which a model may leave out"),
        (INNER, wants_unit, TypeError, "needs 'unit', which a model may leave out"),
        (INNER, takes_less, TypeError, "has the parameter 'unit', which its function does not"),
        (INNER, by_place, TypeError, "has the parameter 'city', which its function does not"),
        ({"name": "weather"}, takes_less, TypeError, "needs 'city', which its definition does not"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_written(
    definition: Any, fn: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        from_function(definition, fn)


@pytest.mark.parametrize("fn", [takes_all, takes_some, dict])
def test_a_function_that_takes_anything_is_believed(fn: Any) -> None:
    assert isinstance(from_function(INNER, fn).schema, Mapping)
