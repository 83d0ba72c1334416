"""The web examples, run: on each event loop, with a model that answers from a script."""

from __future__ import annotations

import json
from typing import Any

from starlette.testclient import TestClient

from tests.examples import fastapi_service, streaming_endpoint
from tests.support import Loop
from turnscope import ToolCall, Usage
from turnscope.testing import ScriptedModel


def client_of(app: Any, loop: Loop) -> TestClient:
    return TestClient(app, backend=loop["backend"], backend_options=loop["backend_options"])


def events(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The name and the data of each event in the *text* of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")
        )
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def weather_model() -> ScriptedModel:
    return ScriptedModel(
        [
            [ToolCall("c1", "weather", {"city": "Beijing"})],
            lambda request: f"It is {request.history.results[-1].content}.",
        ],
        usage=Usage(input_tokens=10, output_tokens=2),
    )


def test_the_fastapi_service_answers(any_loop: Loop) -> None:
    with client_of(fastapi_service.service(weather_model()), any_loop) as client:
        answer = client.post("/ask", json={"text": "Weather in Beijing?"})
        assert answer.json() == {"text": "It is sunny in Beijing.", "tokens": 24}
        assert client.post("/ask", json={}).status_code == 422


def test_the_fastapi_service_streams(any_loop: Loop) -> None:
    with client_of(fastapi_service.service(weather_model()), any_loop) as client:
        answer = client.get("/stream", params={"question": "Weather in Beijing?"})
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        told = events(answer.text)
        assert "".join(data["text"] for name, data in told if name == "text") == (
            "It is sunny in Beijing."
        )
        assert told[-1][0] == "run_finished"
        assert told[-1][1]["output"] == "It is sunny in Beijing."


def test_the_streaming_endpoint_goes_on_with_a_conversation(any_loop: Loop) -> None:
    model = ScriptedModel(
        [
            [ToolCall("c1", "population", {"city": "Beijing"})],
            "Many.",
            lambda request: f"After {len(request.history)} messages.",
        ]
    )
    with client_of(streaming_endpoint.service(model), any_loop) as client:
        first = client.post("/ask", json={"conversation": "a", "text": "How many in Beijing?"})
        told = dict(events(first.text))
        assert told["call_ready"]["arguments"] == {"city": "Beijing"}
        assert told["call_settled"]["content"] == "21840000"
        assert told["run_finished"]["output"] == "Many."
        second = client.post("/ask", json={"conversation": "a", "text": "Really?"})
        # A question, a call, its result, an answer, a question.
        assert dict(events(second.text))["run_finished"]["output"] == "After 5 messages."
