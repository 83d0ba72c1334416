"""Answers that have a type, over HTTP: what each API is sent for them, and runs that read them."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal

import attrs
import pydantic
import pytest
from anthropic.types import MessageCreateParams
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tests.adapters.anthropic import messages
from tests.adapters.openai import server as chat
from tests.adapters.openai.server import ChatServer, Site
from tests.adapters.responses import wire
from tests.support import Loop
from turnscope import Agent, History, Kernel, ModelError, OutputInvalid, Usage, UserMessage
from turnscope.abc import ModelRequest, OutputSchema
from turnscope.events import OutputRetried, RunFinished
from turnscope_adapters import (
    _anthropic_wire,
    _json_lines,
    _openai_wire,
    _responses_wire,
    _sse_form,
)
from turnscope_adapters._strict import ANTHROPIC, OPENAI, strict
from turnscope_adapters.anthropic import AnthropicMessages
from turnscope_adapters.openai import OpenAIChat, OpenAIResponses


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


@attrs.frozen
class City:
    """A city."""

    name: Annotated[str, pydantic.Field(description="in English", max_length=20)]
    people: Annotated[int, pydantic.Field(ge=0)] = 0


@attrs.frozen
class Api:
    """One protocol: its model, and how a server says a text or a call in it."""

    model: Callable[..., Any]
    text: Callable[[str], list[str]]
    call: Callable[[str, str], list[str]]


def _chat_call(name: str, arguments: str) -> list[str]:
    piece = chat.chunk(chat.piece(0, "c1", name, arguments))
    return [piece, chat.chunk(finish="tool_calls"), chat.DONE]


APIS = {
    "chat": Api(
        OpenAIChat,
        lambda text: [
            chat.chunk({"role": "assistant", "content": text}),
            chat.chunk(finish="stop"),
            chat.DONE,
        ],
        _chat_call,
    ),
    "responses": Api(
        OpenAIResponses,
        lambda text: [wire.CREATED, *wire.message(0, text), wire.ended(usage=wire.USAGE)],
        lambda name, text: [wire.CREATED, *wire.call(0, "c1", name, text), wire.ended()],
    ),
    "messages": Api(
        AnthropicMessages,
        lambda text: [messages.start(), messages.text(0, text), messages.end()],
        lambda name, text: [
            messages.start(),
            messages.calling(0, "c1", name, text) + messages.stop(0),
            messages.end("tool_use"),
        ],
    ),
}


@pytest.fixture(params=APIS)
def api(request: pytest.FixtureRequest) -> Api:
    return APIS[request.param]


def answering(server: ChatServer, *answers: list[str]) -> Site:
    """A site that gives each of *answers* in turn."""
    left = iter(answers)

    async def stream(events: list[str]) -> AsyncIterator[str]:
        for event in events:
            yield event

    async def handler(request: Request, site: Site) -> Response:
        return StreamingResponse(stream(next(left)), media_type="text/event-stream")

    return server.site(handler)


def run(loop: Loop, agent: Agent[Any, Any]) -> Any:
    async def main() -> Any:
        async with Kernel() as kernel:
            return await kernel.run(agent, "Which city?")

    return loop.run(main)


def format_in(body: dict[str, Any]) -> Any:
    """What *body*, of any of the APIs, says of the form of the answer."""
    return (
        body.get("response_format")
        or body.get("text", {}).get("format")
        or body.get("output_config", {}).get("format")
    )


def test_a_server_that_holds_the_answer_is_sent_the_schema(
    api: Api, server: ChatServer, any_loop: Loop
) -> None:
    bad, good = api.text('{"name": 1}'), api.text('{"name": "Rome", "people": 3}')
    site = answering(server, bad, good)
    model = api.model("m", base_url=site.base_url, native_output=True)
    result = run(any_loop, Agent(model=model, output=City))
    assert result.output == City("Rome", 3)
    first, second = (received.body for received in site.received)
    assert "tools" not in first and format_in(first) == format_in(second) is not None
    assert "expected a string, was given 1" in json.dumps(second)


def test_another_server_is_asked_for_a_call(api: Api, server: ChatServer, any_loop: Loop) -> None:
    site = answering(
        server,
        api.text("Rome"),
        api.call("final_answer", '{"name": 1}'),
        api.call("final_answer", '{"name": "Rome"}'),
    )
    result = run(any_loop, Agent(model=api.model("m", base_url=site.base_url), output=City))
    assert result.output == City("Rome")
    for received in site.received:
        assert "final_answer" in json.dumps(received.body["tools"])
        assert format_in(received.body) is None
    assert "call 'final_answer'" in json.dumps(site.received[1].body)
    assert "correct them and call again" in json.dumps(site.received[2].body)


def test_a_conversation_that_ended_with_the_call_is_sent_on(
    api: Api, server: ChatServer, any_loop: Loop
) -> None:
    site = answering(server, api.call("final_answer", '{"value": 1}'), api.text("Well."))
    model = api.model("m", base_url=site.base_url)

    async def main() -> None:
        async with Kernel() as kernel:
            result = await kernel.run(Agent(model=model, output=int), "One?")
            again = await kernel.run(Agent(model=model), "And?", history=result.history)
            assert (result.output, again.output) == (1, "Well.")

    any_loop.run(main)
    assert "This was taken" in json.dumps(site.received[1].body)


def schema_of(kind: Any) -> OutputSchema:
    answer = Agent(output=kind)._answer
    assert answer is not None
    return answer.schema


def request_for(kind: Any, **settings: Any) -> ModelRequest:
    """The request of an agent with output *kind* to a model that takes it."""
    history = History([UserMessage("Which?")])
    return ModelRequest(history=history, output=schema_of(kind), settings=settings)


def test_the_requests_are_what_the_official_packages_say() -> None:
    request = request_for(City)
    wanted = strict(schema_of(City), OPENAI)
    assert wanted == {
        "type": "object",
        "description": "A city.",
        "properties": {
            "name": {"type": "string", "description": "in English (maxLength: 20)"},
            "people": {"type": "integer", "minimum": 0, "description": "default: 0"},
        },
        "required": ["name", "people"],
        "additionalProperties": False,
    }
    body = json.loads(_openai_wire.request_body("m", request, {}))
    named = {"name": "City", "schema": wanted, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": named}
    pydantic.TypeAdapter(CompletionCreateParamsStreaming).validate_python(body)

    body = json.loads(_responses_wire.request_body("m", "host", request, {}))
    assert body["text"] == {"format": {"type": "json_schema", **named}}
    pydantic.TypeAdapter(ResponseCreateParamsStreaming).validate_python(body)

    body = json.loads(_anthropic_wire.request_body("m", request, {}))
    format_ = body["output_config"]["format"]
    assert format_["type"] == "json_schema"
    assert format_["schema"]["required"] == ["name"]
    assert format_["schema"]["properties"]["people"] == {
        "type": "integer",
        "description": "default: 0, minimum: 0",
    }
    pydantic.TypeAdapter(MessageCreateParams).validate_python(body)


def test_settings_of_the_same_field_stand_beside_the_schema() -> None:
    request = request_for(int, text={"verbosity": "low"}, output_config={"effort": "low"})
    body = json.loads(_responses_wire.request_body("m", "host", request, {}))
    assert body["text"]["verbosity"] == "low" and body["text"]["format"]["name"] == "int"
    body = json.loads(_anthropic_wire.request_body("m", request, {}))
    assert body["output_config"]["effort"] == "low" and "format" in body["output_config"]
    request = request_for(int, text=None, output_config=None, response_format=None)
    for body in (
        json.loads(_responses_wire.request_body("m", "host", request, {})),
        json.loads(_anthropic_wire.request_body("m", request, {})),
        json.loads(_openai_wire.request_body("m", request, {})),
    ):
        assert format_in(body) is None


class Node(pydantic.BaseModel):
    below: list[Node] = []


class Loose(pydantic.BaseModel):
    left: int | None
    right: Annotated[dict[str, int], pydantic.Field(description="any")]


@pytest.mark.parametrize(
    ("kind", "openai", "anthropic"),
    [
        (City, True, True),
        (int | list[City], True, True),
        (Literal["a", "b"], True, True),
        (Literal["a", 1], False, True),  # of no one type
        (Node, True, False),
        (Loose, False, False),
        (dict[str, int], False, False),
        (dict, False, False),
        (tuple[int, str], False, False),
        (Any, False, False),
    ],
    ids=str,
)
def test_what_has_no_form_in_an_api_is_asked_for_as_a_call(
    kind: Any, openai: bool, anthropic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    schema = schema_of(kind)
    # At their makers' servers, by default.
    for model, has_form in (
        (OpenAIChat("m"), openai),
        (OpenAIResponses("m"), openai),
        (AnthropicMessages("m"), anthropic),
    ):
        assert model.takes_output(schema) is has_form
    if not openai:
        with pytest.raises(ModelError, match="no form"):
            _openai_wire.request_body("m", request_for(kind), {})


def test_whose_server_it_is_decides_unless_it_is_said(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = schema_of(int)
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert api.model("m").takes_output(schema)
    assert not api.model("m", native_output=False).takes_output(schema)
    elsewhere = "http://localhost:8080/v1"
    assert not api.model("m", base_url=elsewhere).takes_output(schema)
    assert api.model("m", base_url=elsewhere, native_output=True).takes_output(schema)
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
        monkeypatch.setenv(name, elsewhere)
    assert not api.model("m").takes_output(schema)


def every_object(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from every_object(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from every_object(value)


def test_strict_objects_name_all_fields_and_references_stand_alone() -> None:
    class Inner(pydantic.BaseModel):
        at: pydantic.AwareDatetime
        on: str | None = None

    class Outer(pydantic.BaseModel):
        inner: Inner = pydantic.Field(description="the one")
        others: list[Inner] = []

    for dialect in (OPENAI, ANTHROPIC):
        schema = strict(schema_of(Outer), dialect)
        assert schema is not None
        assert schema["properties"]["inner"] == {
            "anyOf": [{"$ref": "#/$defs/Inner"}],
            "description": "the one",
        }
        for each in every_object(schema):
            assert each["additionalProperties"] is False
            if dialect.all_required:
                assert each["required"] == list(each["properties"])
        assert schema["$defs"]["Inner"]["properties"]["at"]["format"] == "date-time"


def test_a_browser_and_a_program_are_told_of_outputs_as_data() -> None:
    said: dict[str, Any] = {"run_id": "r", "parents": (), "turn": 0, "time": 1.0}
    error = OutputInvalid(["name: missing"], "{}", attempt=1, at_most=3)
    retried = OutputRetried(attempt=1, error=error, **said)
    data = {"run": "r", "turn": 0, "attempt": 1, "error": "OutputInvalid"}
    assert _sse_form.form(retried, ()) == ("output_retried", data)
    assert _sse_form.form(retried, ("errors",)) == (
        "output_retried",
        data | {"message": str(error)},
    )
    for output, plain in (
        (City("Rome"), {"name": "Rome", "people": 0}),
        ([City("Rome")], [{"name": "Rome", "people": 0}]),
        ({1}, [1]),
        (None, None),
        (b"\xff", "b'\\xff'"),
    ):
        finished = RunFinished(output=output, usage=Usage(), error=None, **said)
        formed = _sse_form.form(finished, ())
        assert formed is not None and formed[1]["output"] == plain
        file = io.StringIO()
        lines = _json_lines.JsonLines(file, lambda: None)
        lines.observe(finished)
        lines.observe(retried)
        first, second = map(json.loads, file.getvalue().splitlines())
        assert first["output"] == plain and second["error"]["type"] == "OutputInvalid"
