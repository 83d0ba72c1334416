"""What a provider does with a conversation that it is sent: accepts it, or answers 400.

As strict as the two largest together. It reads a stored history, plain JSON, and shares nothing
with the kernel: neither its values nor its own check. Above: the laws. Below: nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
FIELDS = {
    "user": {"role", "content"},
    "assistant": {"role", "text", "calls", "reasoning"},
    "result": {"role", "id", "name", "status", "content"},
}


def accepted(stored: str) -> list[dict[str, Any]]:
    """The messages of *stored*; raises AssertionError with the number of one that is refused."""
    messages: list[dict[str, Any]] = json.loads(stored.encode().decode())["messages"]
    owed: list[tuple[str, str]] = []
    ids: set[str] = set()
    before = ""
    for number, message in enumerate(messages):
        role = message["role"]
        assert set(message) <= FIELDS[role], (number, message)
        if owed:
            assert role == "result", f"message {number} is no result; {owed} have none"
            assert (message["id"], message["name"]) == owed.pop(0), f"message {number}: {message}"
            assert isinstance(message["content"], str), number
        elif role == "assistant":
            assert before in ("user", "result"), f"message {number} answers nothing"
            calls = message.get("calls", [])
            assert message["text"].strip() or calls, f"message {number} is empty"
            for call in calls:
                assert call["id"] and call["id"] not in ids, f"message {number}: {call['id']!r}"
                assert NAME.match(call["name"]), f"message {number}: {call['name']!r}"
                assert is_object(call["arguments"]), f"message {number}: {call['arguments']!r}"
                ids.add(call["id"])
                owed.append((call["id"], call["name"]))
        else:
            assert role == "user", f"message {number} is a result of no call"
            assert message["content"].strip(), f"message {number} is an empty prompt"
        before = role
    assert not owed, f"{owed} have no result"
    return messages


def is_object(text: str) -> bool:
    """Whether *text* is the JSON of an object, by the letter of the standard."""

    def refuse(word: str) -> Any:
        raise ValueError(word)

    try:
        return isinstance(json.loads(text, parse_constant=refuse), dict)
    except ValueError:
        return False
