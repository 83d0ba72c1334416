"""Records are values as attrs makes them: what is theirs is compared with what attrs would write."""

from __future__ import annotations

import math
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnscope import (
    AdaptiveLimit,
    Content,
    KernelStatistics,
    Retry,
    Status,
    ToolCall,
    ToolResult,
    UserMessage,
    events,
)
from turnscope._record import Record
from turnscope.abc import OutputSchema

RECORDS = [each for each in vars(events).values() if isinstance(each, type) and attrs.has(each)]


@attrs.frozen(eq=False, repr=False)
class Ours(Record):
    """A record."""

    one: Any
    other: Any


@attrs.frozen(eq=False, repr=False)
class Longer(Ours):
    """A record of more fields."""

    third: Any = None


@attrs.frozen
class Theirs:
    """The same, by attrs."""

    one: Any
    other: Any


def length(value: Any) -> str:
    return f"<{len(str(value))}>"


@attrs.frozen(eq=False, repr=False)
class OursInPart(Record):
    """A record of which not all is shown, nor hashed."""

    one: Any = attrs.field(hash=False)
    other: Any = attrs.field(repr=length)
    third: Any = attrs.field(default=3, repr=False)


@attrs.frozen
class TheirsInPart:
    """The same, by attrs."""

    one: Any = attrs.field(hash=False)
    other: Any = attrs.field(repr=length)
    third: Any = attrs.field(default=3, repr=False)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats(),
    lambda inner: st.tuples(inner, inner) | st.lists(inner, max_size=2),
    max_leaves=4,
)


@given(st.lists(values, min_size=2, max_size=2), st.lists(values, min_size=2, max_size=2))
def test_a_record_is_what_attrs_would_have_made(first: list[Any], second: list[Any]) -> None:
    assert (Ours(*first) == Ours(*second)) is (Theirs(*first) == Theirs(*second))
    assert (Ours(*first) != Ours(*second)) is (Theirs(*first) != Theirs(*second))
    assert (Ours(*first) == Ours(*first)) is (Theirs(*first) == Theirs(*first))
    assert repr(Ours(*first)) == repr(Theirs(*first)).replace("Theirs", "Ours")


def test_what_is_not_equal_to_itself_makes_its_record_so() -> None:
    assert Ours(1, math.nan) != Ours(1, math.nan)
    record = Ours(math.nan, 1)
    assert record != record  # because that is what is asked


def test_equal_records_have_one_hash_and_others_of_any_class_are_not_equal() -> None:
    assert {Ours(1, "a"), Ours(1, "a"), Ours(2, "a")} == {Ours(2, "a"), Ours(1, "a")}
    assert Ours(1, 2) != Longer(1, 2)
    assert Longer(1, 2) != Ours(1, 2)
    assert Ours(1, 2) != Theirs(1, 2)
    assert Ours(1, 2) != (1, 2)


def test_what_cannot_be_hashed_in_one_is_said() -> None:
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        hash(Ours(1, []))


@given(values, values)
def test_what_a_field_asks_for_is_done(one: Any, other: Any) -> None:
    assert repr(OursInPart(one, other)) == repr(TheirsInPart(one, other)).replace("Theirs", "Ours")
    assert hash(OursInPart([one], 1)) == hash(OursInPart([other], 1))
    assert hash(TheirsInPart([one], 1)) == hash(TheirsInPart([other], 1))
    assert hash(OursInPart(1, "a")) != hash(OursInPart(1, "b"))
    assert (OursInPart(one, 1) == OursInPart(other, 1)) is (
        TheirsInPart(one, 1) == TheirsInPart(other, 1)
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            ToolCall("c1", "add", '{"a": 1}'),
            "ToolCall(id='c1', name='add', arguments='{\"a\": 1}')",
        ),
        (
            Content(media_type="image/png", data=b"12345"),
            "Content(media_type='image/png', text=None, data=<5 bytes>, url=None)",
        ),
        (AdaptiveLimit(2), "AdaptiveLimit(start=2, at_most=inf)"),
        (
            Retry(jitter=0),
            "Retry(attempts=3, on=None, initial=0.5, maximum=8.0, jitter=0, total=None)",
        ),
        (OutputSchema(name="n", schema={}), "OutputSchema(name='n', schema={})"),
        (ToolCall.__new__(ToolCall), "ToolCall(id=NOTHING, name=NOTHING, arguments=NOTHING)"),
    ],
)
def test_the_texts_of_values(value: object, text: str) -> None:
    assert repr(value) == text


def test_results_are_shown_like_records_and_equal_themselves_alone() -> None:
    result = ToolResult(call=ToolCall("c1", "add"), status=Status.OK, content="3", value=3)
    assert repr(result) == (
        f"ToolResult(call={result.call!r}, status={Status.OK!r}, content='3', value=3, error=None, "
        "started_at=None, ended_at=0.0, backend=None, leaked=False, failures=())"
    )
    assert result != attrs.evolve(result)


def test_one_that_holds_itself_can_be_shown() -> None:
    held: list[Any] = []
    record = Ours(1, held)
    held.append(record)
    assert repr(record) == "Ours(one=1, other=[...])"


@pytest.mark.parametrize("record", RECORDS)
def test_every_event_is_a_record_and_frozen(record: type[Any]) -> None:
    assert issubclass(record, Record)
    assert len(RECORDS) > 20
    given = {field.name: field.name for field in attrs.fields(record)}
    made = record(**given)
    assert made == record(**given) != record(**{**given, next(iter(given)): "else"})
    assert made == pickle.loads(pickle.dumps(made)) == attrs.evolve(made)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(made, next(iter(given)), "else")


def test_the_texts_of_some() -> None:
    assert repr(UserMessage("hi")) == "UserMessage(content='hi')"
    assert repr(KernelStatistics(runs=0, turns=0, limiters={})) == (
        "KernelStatistics(runs=0, turns=0, limiters={}, keys={})"
    )
