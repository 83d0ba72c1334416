"""What is sent: the conversation, the tools and the settings, with what the server made in place."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming

from tests.adapters.openai.asking import ask
from tests.adapters.openai.test_requests import PNG, PNG_URL, fits, nothing, result, weather
from tests.adapters.responses.wire import (
    CREATED,
    added,
    call,
    canned,
    done,
    ended,
    message,
    sent,
    thought,
)
from tests.support import Loop
from turnscope import (
    Agent,
    AssistantMessage,
    Content,
    History,
    Kernel,
    Message,
    ModelError,
    Reasoning,
    ToolCall,
    UserMessage,
)
from turnscope.abc import ModelRequest
from turnscope_adapters.openai import OpenAIResponses

PDF_URL = "data:application/pdf;base64," + base64.b64encode(b"%PDF").decode()
PARTS = (
    Content(text="a map:"),
    Content(media_type="image/png", data=PNG),
    Content(media_type="application/pdf", data=b"%PDF"),
)
SENT_PARTS = [
    {"type": "input_text", "text": "a map:"},
    {"type": "input_image", "image_url": PNG_URL, "detail": "auto"},
    {"type": "input_file", "filename": "file.pdf", "file_data": PDF_URL},
]
CALLS = (ToolCall("c1", "weather", '{"city": "Köln"}'), ToolCall("c2", "weather", "{}"))
FULL = ModelRequest(
    history=History(
        [
            UserMessage("Weather?"),
            AssistantMessage(text="Let me see.", calls=CALLS),
            result("c1", "rain"),
            result("c2", (*PARTS, Content(media_type="audio/wav", data=b"RIFF"))),
            AssistantMessage(text="It rains."),
            UserMessage(
                (
                    *PARTS,
                    Content(media_type="image/jpeg", url="https://h/x.jpg"),
                    Content(media_type="application/pdf", url="https://h/x.pdf"),
                    Content(media_type="text/csv", data="a,ü".encode()),
                )
            ),
        ]
    ),
    instructions="Be brief.",
    tools=(weather, nothing),
    parallel_tool_calls=False,
    settings={"temperature": 0},
)
INCLUDE = ["reasoning.encrypted_content"]


def test_a_conversation_is_sent_in_the_words_of_the_protocol(any_loop: Loop) -> None:
    body = sent(any_loop, FULL)
    assert body.pop("input") == [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Let me see."},
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "weather",
            "arguments": '{"city": "Köln"}',
        },
        {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {
            "type": "function_call_output",
            "call_id": "c2",
            "output": [
                *SENT_PARTS,
                {
                    "type": "input_text",
                    "text": "[audio/wav of 4 bytes, which cannot be shown here]",
                },
            ],
        },
        {"role": "assistant", "content": "It rains."},
        {
            "role": "user",
            "content": [
                *SENT_PARTS,
                {"type": "input_image", "image_url": "https://h/x.jpg", "detail": "auto"},
                {"type": "input_file", "file_url": "https://h/x.pdf"},
                {"type": "input_text", "text": "a,ü"},
            ],
        },
    ]
    assert body == {
        "model": "m",
        "instructions": "Be brief.",
        "stream": True,
        "store": False,
        "include": INCLUDE,
        "temperature": 0,
        "parallel_tool_calls": False,
        "tools": [
            {
                "type": "function",
                "name": "weather",
                "description": "Tell the weather.",
                "parameters": weather.schema,
                "strict": False,
            },
            {
                "type": "function",
                "name": "nothing",
                "parameters": nothing.schema,
                "strict": False,
            },
        ],
    }


def test_a_result_that_is_all_text_is_sent_as_text(any_loop: Loop) -> None:
    parts = (Content(text="a"), Content(media_type="text/csv", data=b"b"), Content(url="https://h"))
    history = History([UserMessage("x"), AssistantMessage(calls=CALLS[:1]), result("c1", parts)])
    output = sent(any_loop, ModelRequest(history=history))["input"][-1]["output"]
    assert output == "a\nb\n[text/plain: https://h]"


@pytest.mark.parametrize(
    "part",
    [
        Content(media_type="application/zip", data=b"x"),
        Content(media_type="audio/wav", data=b"x"),
        Content(media_type="video/mp4", url="https://h/x.mp4"),
    ],
)
def test_a_part_of_a_prompt_that_cannot_be_sent_is_refused(part: Content, any_loop: Loop) -> None:
    with pytest.raises(ModelError, match=f"cannot carry a part of type '{part.media_type}'"):
        sent(any_loop, ModelRequest(history=History([UserMessage((part,))])))


def test_settings_have_the_last_word(any_loop: Loop) -> None:
    settings = {"temperature": 1, "reasoning": {"effort": "low"}, "include": None}
    request = ModelRequest(history=FULL.history, settings={"temperature": 0, "reasoning": None})
    body = sent(any_loop, request, settings=settings)
    assert body.keys() == {"model", "input", "stream", "store", "temperature"}
    assert body["temperature"] == 0
    with pytest.raises(ModelError, match="'stream'"):
        sent(any_loop, request, settings={"stream": False})


@pytest.mark.parametrize(
    "name", ["gpt-4o", "openai/gpt-4.1-mini", "ft:gpt-4o:me", "gpt-5-chat-latest"]
)
def test_models_that_do_not_reason_are_not_asked_for_it(name: str, any_loop: Loop) -> None:
    assert "include" not in sent(any_loop, name=name)


@pytest.mark.parametrize("name", ["gpt-5", "o3", "openai/gpt-5.1-codex", "gpt-oss-120b", "qwen3"])
def test_all_others_are(name: str, any_loop: Loop) -> None:
    assert sent(any_loop, name=name)["include"] == INCLUDE


SEARCH = {
    "type": "web_search_call",
    "id": "ws_4",
    "status": "completed",
    "action": {"type": "search", "query": "x"},
}
ANSWER = [
    CREATED,
    *thought(0, "rs_0", "first"),
    *message(1, "Let me", " see.", phase="commentary"),
    *call(2, "a", "weather", '{"city": "x"}'),
    *thought(3, "rs_3", "and"),
    added(4, {**SEARCH, "status": "in_progress"}),
    done(4, SEARCH),
    *call(5, "b", "weather", '{"city": "y"}'),
    *message(6, "Wait.", phase="final_answer"),
    ended(),
]


def stored(loop: Loop, stream: list[str]) -> History:
    """The conversation of a run that was answered with *stream*, written down and read again."""
    answers = iter([stream, [*message(0, "done"), ended()]])
    agent: Agent[Any, Any] = Agent(
        model=canned(lambda: ["".join(next(answers)).encode()]), tools=[weather]
    )

    async def main() -> History:
        async with Kernel() as kernel:
            return (await kernel.run(agent, "go")).history

    return History.from_json(loop.run(main).to_json())


def test_what_the_model_made_goes_back_in_its_place_through_a_stored_history(
    any_loop: Loop,
) -> None:
    history = stored(any_loop, ANSWER)
    body = sent(any_loop, ModelRequest(history=history))
    first, second = (
        {
            "type": "reasoning",
            "id": f"rs_{place}",
            "summary": [{"type": "summary_text", "text": text}],
            "encrypted_content": f"secret of rs_{place}",
        }
        for place, text in ((0, "first"), (3, "and"))
    )
    calls = [
        {
            "type": "function_call",
            "call_id": call_id,
            "name": "weather",
            "arguments": f'{{"city": "{city}"}}',
        }
        for call_id, city in (("a", "x"), ("b", "y"))
    ]
    assert body["input"] == [
        {"role": "user", "content": "go"},
        first,
        {"role": "assistant", "content": "Let me see.", "phase": "commentary"},
        calls[0],
        second,
        SEARCH,
        calls[1],
        {"role": "assistant", "content": "Wait.", "phase": "final_answer"},
        {"type": "function_call_output", "call_id": "a", "output": "x"},
        {"type": "function_call_output", "call_id": "b", "output": "y"},
        {"role": "assistant", "content": "done"},
    ]


def test_what_one_host_made_is_not_sent_to_another(any_loop: Loop) -> None:
    body = sent(any_loop, ModelRequest(history=stored(any_loop, ANSWER)), host="other")
    assert [item.get("type", item.get("role")) for item in body["input"]] == [
        "user",
        "assistant",
        "function_call",
        "function_call",
        "function_call_output",
        "function_call_output",
        "assistant",
    ]
    assert "phase" not in body["input"][1]
    assert body["input"][1]["content"] == "Let me see.Wait."


ITEM = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x"}
OWN = {"api": "openai-responses", "host": "host", "after": [0, 0], "item": ITEM}


@pytest.mark.parametrize(
    "opaque",
    [
        "signature",
        ["x"],
        {"type": "thinking", "signature": "x"},
        {**OWN, "api": "anthropic-messages"},
        {**OWN, "host": "other"},
        {**OWN, "item": "x"},
        {**OWN, "after": [0]},
        {**OWN, "after": [-1, 0]},
        {**OWN, "after": ["0", 0]},
        {"api": "openai-responses", "host": "host"},
        {**OWN, "item": {"type": "reasoning", "id": "rs", "summary": []}},
    ],
)
def test_reasoning_that_another_made_or_that_was_not_stored_is_left_out(
    opaque: Any, any_loop: Loop
) -> None:
    def items(opaque: Any) -> list[Any]:
        messages: list[Message] = [
            UserMessage("x"),
            AssistantMessage(text="y", reasoning=(Reasoning("hm", opaque),)),
            UserMessage("z"),
        ]
        found: list[Any] = sent(any_loop, ModelRequest(history=History(messages)))["input"]
        return found

    assert len(items(opaque)) == 3
    assert items(OWN)[1] == ITEM


def test_a_server_that_stores_is_told_of_reasoning_by_its_id(any_loop: Loop) -> None:
    item = {"type": "reasoning", "id": "rs", "summary": []}
    reasoning = (Reasoning("", {**OWN, "item": item}),)
    history = History([UserMessage("x"), AssistantMessage(text="y", reasoning=reasoning)])
    for settings in ({"store": True}, {"store": None}):
        body = sent(any_loop, ModelRequest(history=history), settings=settings)
        assert body["input"][1] == item


def test_reasoning_of_which_nothing_came_is_left_out(any_loop: Loop) -> None:
    reasoning = (Reasoning("", {**OWN, "after": [1, 0]}),)
    history = History([UserMessage("x"), AssistantMessage(text="y", reasoning=reasoning)])
    assert len(sent(any_loop, ModelRequest(history=history))["input"]) == 2


def test_the_request_is_what_the_official_client_would_send(any_loop: Loop) -> None:
    for request in (FULL, ModelRequest(history=stored(any_loop, ANSWER))):
        body = sent(any_loop, request)
        assert fits(body, ResponseCreateParamsStreaming)
        for place in (body, body["input"][2], body["input"][-1]):
            place["unknown"] = 1
            assert not fits(body, ResponseCreateParamsStreaming)
            del place["unknown"]
        assert fits(body, ResponseCreateParamsStreaming)


def test_openai_itself_is_not_asked_without_a_key(any_loop: Loop) -> None:
    with pytest.raises(ModelError, match="OPENAI_API_KEY"):
        any_loop.run(ask, OpenAIResponses("gpt-5"))


def test_the_model_says_what_it_is() -> None:
    model = OpenAIResponses("gpt-5", base_url="http://h/v1", api_key="sk-0123456789")
    assert repr(model) == "<OpenAIResponses 'gpt-5', at h>"
    with pytest.raises(ValueError, match="OpenAIResponses needs the name"):
        OpenAIResponses("")
