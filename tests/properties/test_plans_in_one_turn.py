"""Steps of a plan start when what they need is done, and settle once; data stays the data it was."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import Loop
from turnscope._plan import Missing, NotAPlan, filled, planned

from .generate import share
from .graphs import GRACE, Graph, foretold, graphs, performed, steps_of

KEYS = st.text(st.sampled_from("ab01-~/ "), max_size=3)
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text()
DATA = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)
SPECIAL = st.sampled_from(["$ref", "$literal", "a"])
ODD_DATA = st.recursive(
    LEAVES | st.just("a"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(SPECIAL, inner | st.just("a"), max_size=2)
    ),
)


# What the law says of plans that are carried out.


def as_soon_as_can_be(graph: Graph, loop: Loop) -> None:
    """With room for all, a step waits for those that it needs, and for nothing else."""
    performance = performed(graph, loop)
    told = foretold(graph)
    ended: list[float] = []
    for number, fate in enumerate(told):
        did, result = performance.fates.get(number), performance.results[str(number)]
        assert str(result.status) == fate.status, (number, result)
        assert (did is None) == (fate.began is None), f"step {number} ran, or did not"
        if did is not None:
            assert did.began == pytest.approx(fate.began, abs=1e-6), f"step {number} began late"
            assert did.ended == pytest.approx(fate.ended, abs=1e-6), number
        ended.append(fate.ended)
    assert performance.left == pytest.approx(max(ended), abs=1e-6), "not the critical path"


def given_as_data(graph: Graph, loop: Loop) -> None:
    """A step is given what others returned, as it was, whatever it looks like; so is the model."""
    performance = performed(graph, loop)
    told = foretold(graph)
    assert performance.result.ok, performance.result
    content = json.loads(str(performance.result.content))
    assert [entry["id"] for entry in content] == [str(number) for number in graph.written]
    for entry in content:
        number = int(entry["id"])
        fate, did = told[number], performance.fates.get(number)
        assert entry["status"] == fate.status
        if did is not None:
            assert did.given == fate.given, f"step {number} was given something else"
        if fate.status == "ok":
            assert entry["content"] == performance.results[str(number)].value == fate.value
        else:
            assert entry["content"]


def failures_reach_descendants_only(graph: Graph, loop: Loop) -> None:
    """Not started is who needs, over any number of steps, one that came to no value; no others."""
    results = performed(graph, loop).results
    lost: set[int] = set()
    for number, node in enumerate(graph.nodes):
        result = results[str(number)]
        barred = sorted(node.needs & lost)
        assert (result.status == "not_started") == bool(barred), (number, result)
        if barred:
            named = re.search(r"it needs step '(\d+)', which (.*)", str(result.content))
            assert named is not None
            assert int(named[1]) in barred, result.content
        if not result.ok:
            lost.add(number)


def each_settles_once(graph: Graph, loop: Loop) -> None:
    """Cancelled at any instant or not: no step runs or settles twice, and none outlives the plan."""
    performance = performed(graph, loop)
    assert all(count == 1 for count in performance.runs.values()), "a step ran twice"
    assert all(count == 1 for count in performance.settled.values()), "a step settled twice"
    assert all(count == 1 for count in performance.started.values()), "a step started twice"
    for number, fate in performance.fates.items():
        assert fate.ended <= performance.left, f"step {number} outlived its plan"
        assert performance.settled[str(number)] == 1, f"step {number} did not settle"
    result = performance.result
    if result.ok:
        assert set(performance.settled) == {str(number) for number in graph.written}
    else:
        assert performance.raised, result
        assert result.status == "cancelled"
        assert performance.left <= (graph.cancel or 0) + GRACE + 1e-6


def needs_come_first_and_limits_hold(graph: Graph, loop: Loop) -> None:
    """With little room: a step still follows those that it needs, and no more work than may."""
    performance = performed(graph, loop)
    assert performance.at_work <= graph.calls
    for number, fate in performance.fates.items():
        for need in graph.nodes[number].needs:
            assert performance.fates[need].ended <= (fate.began or 0), f"{number} before {need}"
    statuses = {name: str(result.status) for name, result in performance.results.items()}
    told = {str(number): fate.status for number, fate in enumerate(foretold(graph))}
    assert statuses == told


def circles_are_told(wired: tuple[Graph, list[tuple[int, int]]], loop: Loop) -> None:
    """Who waits for whom decides: a circle is refused before anything runs, and named."""
    graph, more = wired
    steps = steps_of(graph)
    needs = {
        str(number): {str(need) for need in graph.nodes[number].needs} for number in graph.written
    }
    for waits, other in more:
        waits, other = waits % len(steps), other % len(steps)
        if waits != other:
            steps[waits]["after"].append(steps[other]["id"])
            needs[steps[waits]["id"]].add(steps[other]["id"])
    performance = performed(graph, loop, steps=steps)
    while free := [name for name, needed in needs.items() if not needed]:
        for name in free:
            del needs[name]
        for needed in needs.values():
            needed.difference_update(free)
    if not needs:
        assert performance.result.ok
        return
    content = str(performance.result.content)
    assert performance.result.status == "invalid", content
    assert not performance.runs
    circle = re.findall(r"'(\d+)'", content)
    assert circle[0] == circle[-1]
    assert set(circle) <= set(needs)


WIRED = st.tuples(
    graphs(most=5, hows=("ok",)),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=3),
)


@share(0.5)
@given(graph=graphs())
def test_a_plan_takes_its_critical_path(virtual_loop: Loop, graph: Graph) -> None:
    as_soon_as_can_be(graph, virtual_loop)


@share(0.5)
@given(graph=graphs())
def test_steps_are_given_what_others_returned(virtual_loop: Loop, graph: Graph) -> None:
    given_as_data(graph, virtual_loop)


@share(0.3)
@given(graph=graphs())
def test_what_fails_stops_those_that_need_it_and_no_others(
    virtual_loop: Loop, graph: Graph
) -> None:
    failures_reach_descendants_only(graph, virtual_loop)


@share(0.5)
@given(graph=graphs(cancels=True))
def test_a_plan_that_is_cancelled_leaves_nothing(virtual_loop: Loop, graph: Graph) -> None:
    each_settles_once(graph, virtual_loop)


@share(0.3)
@given(graph=graphs(calls=st.integers(1, 3)))
def test_steps_keep_their_order_and_the_limits(virtual_loop: Loop, graph: Graph) -> None:
    needs_come_first_and_limits_hold(graph, virtual_loop)


@share(0.5)
@given(wired=WIRED)
def test_a_circle_of_steps_is_refused(
    virtual_loop: Loop, wired: tuple[Graph, list[tuple[int, int]]]
) -> None:
    circles_are_told(wired, virtual_loop)


# Filling in, by itself.


def same(one: object, other: object) -> bool:
    """Equal, and of equal types, all the way down: True is not 1."""
    return json.dumps(one) == json.dumps(other) and one == other


@given(data=DATA)
def test_data_without_references_is_left_as_it_is(data: Any) -> None:
    assert same(filled(data, {}), data)


@given(data=ODD_DATA)
def test_a_result_is_never_looked_at_for_references(data: Any) -> None:
    before = copy.deepcopy(data)
    arguments = {"one": {"$ref": "s"}, "two": [{"$ref": "s"}], "same": {"$literal": data}}
    made = filled(arguments, {"s": data, "a": "wrong"})
    assert same(made, {"one": before, "two": [before], "same": before})
    if isinstance(made["one"], (list, dict)):
        assert made["one"] is not data
        assert made["one"] is not made["two"][0]


def places(data: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each place in *data*, as a pointer, and what is there: from the values to the pointers."""
    yield path, data
    if isinstance(data, list):
        for number, each in enumerate(data):
            yield from places(each, f"{path}/{number}")
    elif isinstance(data, dict):
        for key, each in data.items():
            token = "".join({"~": "~0", "/": "~1"}.get(letter, letter) for letter in key)
            yield from places(each, f"{path}/{token}")


@given(
    data=DATA, more=st.lists(st.sampled_from(["", "0", "1", "01", "-", "a", "~0", "~1", "-1", "٣"]))
)
def test_a_pointer_finds_each_place_and_nothing_else(data: Any, more: list[str]) -> None:
    found = dict(places(data))
    for path, value in found.items():
        assert same(filled({"$ref": f"s{path}"}, {"s": data}), value)
    for path in [*found, "".join(f"/{token}" for token in more)]:
        for token in ["", *(f"/{token}" for token in more)]:
            if path + token in found:
                assert same(filled({"$ref": f"s{path}{token}"}, {"s": data}), found[path + token])
            else:
                with pytest.raises(Missing, match="points to nothing"):
                    filled({"$ref": f"s{path}{token}"}, {"s": data})


@given(arguments=st.dictionaries(SPECIAL, ODD_DATA, max_size=3))
def test_what_is_taken_for_a_plan_can_be_filled_in(arguments: dict[str, Any]) -> None:
    steps = [{"id": "a", "tool": "t"}, {"id": "b", "tool": "t", "arguments": arguments}]
    try:
        plan = planned(steps, most=2)
    except NotAPlan as exc:
        assert "$ref" in json.dumps(arguments) or "$literal" in json.dumps(arguments), exc
    else:
        with suppress(Missing):
            filled(plan.steps[1].arguments, {"a": {}})
