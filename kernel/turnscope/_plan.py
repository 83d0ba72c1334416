"""A plan: a graph of calls, as a model wrote it. Read, checked, put in order, filled in. Pure.

An argument of a step may be a reference to what another step came to. A reference is replaced by
data, whose type it keeps, and never by text; what it is replaced by is not looked at again. Above:
`_plan_tool`, which has the calls made. Below: errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

import attrs

from ._errors import nearest

REFERENCE: Final = "$ref"
LITERAL: Final = "$literal"

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,17}")  # of a list, as RFC 6901 has it
_BAD_ESCAPE: Final = re.compile(r"~(?![01])")
_SHOWN: Final = 20


class NotAPlan(Exception):
    """What a model wrote cannot be carried out: *problems* says what to correct."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems: list[str] = list(problems)


class Missing(Exception):
    """A reference points to nothing; the sentence says what is there."""


@attrs.frozen(eq=False)
class Step:
    """One call of a plan."""

    id: str
    tool: str
    arguments: Mapping[str, Any]
    """As they were written, with their references."""
    after: tuple[str, ...] = ()
    """The steps that it waits for, those that it refers to included; each once."""


@attrs.frozen(eq=False)
class Plan:
    """Steps that can be carried out: each waits for others of them, and no two for each other."""

    steps: tuple[Step, ...]


# Reading.


def planned(written: Sequence[Mapping[str, Any]], *, most: int) -> Plan:
    """Make a plan of the steps that were *written*, each with its types as in the tool's schema.

    Raises NotAPlan for more than *most* steps or none, for ids that repeat, that cannot be referred
    to or are unknown, for references that are none, and for steps that wait for one another.
    """
    if not written:
        raise NotAPlan(["steps: is empty; give at least one step"])
    if len(written) > most:
        raise NotAPlan([f"steps: {len(written):,} are too many; make a plan of at most {most:,}"])
    problems: list[str] = []
    known: dict[str, int] = {}
    for number, each in enumerate(written):
        name, place = each["id"], f"steps[{number}].id"
        if not name or "/" in name:
            problems.append(
                f"{place}: {_shown(name)} cannot be referred to; give an id that is not empty and "
                "has no '/'"
            )
        elif known.setdefault(name, number) != number:
            problems.append(
                f"{place}: {_shown(name)} is the id of steps[{known[name]}] too; give each step "
                "an id of its own"
            )
    steps = tuple(_step(number, each, known, problems) for number, each in enumerate(written))
    if not problems and (circle := _circle(steps)):
        problems.append(
            f"steps: {' waits for '.join(map(_shown, circle))}, in a circle, so none of them could "
            "ever start; take out one of these dependencies"
        )
    if problems:
        raise NotAPlan(problems)
    return Plan(steps)


def _step(
    number: int, written: Mapping[str, Any], known: Mapping[str, int], problems: list[str]
) -> Step:
    place, own = f"steps[{number}]", written["id"]
    arguments = written.get("arguments", {})
    after: dict[str, None] = {}
    named = [(f"{place}.after[{n}]", each) for n, each in enumerate(written.get("after", ()))]
    for where, reference in _references(arguments, f"{place}.arguments", problems):
        named.append((where, reference.partition("/")[0]))
        if _BAD_ESCAPE.search(reference):
            problems.append(
                f"{where}: in {_shown(reference)} a '~' is neither ~0, for '~', nor ~1, for '/'"
            )
    for where, name in named:
        if name == own:
            problems.append(f"{where}: step {_shown(own)} cannot wait for itself; take this out")
        elif name not in known:
            near = nearest(name[:80], known)
            hint = f"did you mean {near!r}?" if near else f"the steps are: {_listed(known)}"
            problems.append(f"{where}: there is no step {_shown(name)}; {hint}")
        after[name] = None
    return Step(own, written["tool"], arguments, tuple(after))


def _references(value: object, place: str, problems: list[str]) -> Iterator[tuple[str, str]]:
    """Where in *value* a reference stands, and what it says."""
    if isinstance(value, (list, tuple)):
        for number, each in enumerate(cast("Sequence[object]", value)):
            yield from _references(each, f"{place}[{number}]", problems)
    elif isinstance(value, Mapping):
        fields = cast("Mapping[str, object]", value)
        special = REFERENCE if REFERENCE in fields else LITERAL
        if special not in fields:
            for key, each in fields.items():
                yield from _references(each, f"{place}.{key}", problems)
            return
        reference = fields[special]
        if len(fields) > 1:
            problems.append(
                f"{place}: an object with {special} has nothing else in it; to give this object as "
                f'it is, write {{"{LITERAL}": ...}} around it'
            )
        elif special == REFERENCE and not isinstance(reference, str):
            problems.append(
                f'{place}: a reference is {{"{REFERENCE}": "step/path"}}, with a text; to give '
                f'this object as it is, write {{"{LITERAL}": ...}} around it'
            )
        elif special == REFERENCE:
            yield place, cast("str", reference)


def _circle(steps: Sequence[Step]) -> list[str]:
    """Steps of which each waits for the next, and the last is the first; none, if there is none."""
    left = {step.id: step for step in steps}
    order = Order(steps)
    free = list(order.first)
    while free:
        step = free.pop()
        del left[step.id]
        free += order.next(step.id, ok=True)
    if not left:
        return []
    path = [next(iter(left))]
    while True:  # each that is left waits for one that is left
        following = next(name for name in left[path[-1]].after if name in left)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


# In which order.


class Order:
    """Which steps come next, as others settle."""

    __slots__ = ("_after", "_left", "first")

    def __init__(self, steps: Sequence[Step]) -> None:
        self.first: list[Step] = [step for step in steps if not step.after]
        """Those that wait for none."""
        self._left = {step.id: len(step.after) for step in steps if step.after}
        """Of those that have not come yet: for how many each waits."""
        self._after: dict[str, list[Step]] = {}
        for step in steps:
            for name in step.after:
                self._after.setdefault(name, []).append(step)

    def next(self, name: str, *, ok: bool) -> list[Step]:
        """The steps that come now that *name* has settled.

        If that is *ok*, they have all that they waited for; if not, they never will.
        """
        come: list[Step] = []
        for step in self._after.get(name, ()):
            if step.id not in self._left:
                continue  # it has come: of what it waited for, another was not ok
            self._left[step.id] -= 1
            if not ok or not self._left[step.id]:
                del self._left[step.id]
                come.append(step)
        return come


# Filling in.


def filled(arguments: object, data: Mapping[str, object]) -> Any:
    """*arguments* with the *data* of steps, by id, in the place of references.

    Raises Missing for a reference that points to nothing.
    """
    if isinstance(arguments, (list, tuple)):
        return [filled(each, data) for each in cast("Sequence[object]", arguments)]
    if not isinstance(arguments, Mapping):
        return arguments
    fields = cast("Mapping[str, object]", arguments)
    if REFERENCE in fields:
        return _copied(_pointed(cast("str", fields[REFERENCE]), data))
    if LITERAL in fields:
        return fields[LITERAL]
    return {key: filled(each, data) for key, each in fields.items()}


def _pointed(reference: str, data: Mapping[str, object]) -> object:
    """What *reference* points to: a JSON pointer, as RFC 6901 has it, after the id of a step."""
    name, *tokens = reference.split("/")
    found, passed = data[name], name
    for token in tokens:
        key = token.replace("~1", "/").replace("~0", "~")
        try:
            found, passed = _inside(found, key), f"{passed}/{token}"
        except LookupError:
            raise Missing(
                f"{_shown(reference)} points to nothing: {_shown(passed)} is {_described(found)}, "
                f"without {_shown(key)}"
            ) from None
    return found


def _inside(found: object, key: str) -> object:
    if isinstance(found, dict):
        return cast("dict[str, object]", found)[key]
    if isinstance(found, list) and _INDEX.fullmatch(key):
        return cast("list[object]", found)[int(key)]
    raise LookupError


def _copied(data: object) -> object:
    """JSON *data* anew: what one step does to its arguments is no concern of another's."""
    if isinstance(data, list):
        return [_copied(each) for each in cast("list[object]", data)]
    if isinstance(data, dict):
        return {key: _copied(each) for key, each in cast("dict[str, object]", data).items()}
    return data


# In words.


def _described(found: object) -> str:
    if isinstance(found, dict):
        keys = cast("dict[str, object]", found)
        return f"an object with the keys {_listed(keys)}" if keys else "an object without keys"
    if isinstance(found, list):
        length = len(cast("list[object]", found))
        return f"a list of length {length}"
    return (
        f"a text, {_shown(found)}" if isinstance(found, str) else f"the value {json.dumps(found)}"
    )


def _listed(names: Mapping[str, object]) -> str:
    shown = ", ".join(_shown(name) for name in list(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
