"""Equality, hash and text of a record, once for all of them. Above: the values. Below: attrs.

attrs writes and compiles these for each class: 1.8 of the 3.6 million instructions that a class of
events takes (callgrind, Python 3.11), and there are some thirty. Records are compared by tests, not
by the kernel, so here a loop over the fields will do. The rest is of attrs.
"""

from __future__ import annotations

import reprlib
from typing import Any, TypeVar

import attrs

R = TypeVar("R")


class Shown:
    """The base of an ``attrs.frozen(eq=False, repr=False)`` class that shows its fields."""

    __slots__ = ()

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        shown = ", ".join(_shown(self, field) for field in _fields(self) if field.repr)
        return f"{type(self).__qualname__.rsplit('>.', 1)[-1]}({shown})"


class Record(Shown):
    """The base of an ``attrs.frozen(eq=False, repr=False)`` class that is to be a value."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record) or type(other) is not type(self):
            return NotImplemented
        # One by one, as attrs does: a list takes for equal what is not equal to itself, as a nan.
        names = (field.name for field in _fields(self))
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def __hash__(self) -> int:
        hashed = (getattr(self, field.name) for field in _fields(self) if field.hash is not False)
        return hash((type(self).__qualname__, *hashed))  # the type's own is its address


def frozen(made: Any, kind: type[R]) -> R:
    """Have *made*, an instance of the unfrozen base that has the slots of *kind*, be one of *kind*.

    attrs sets each field of a frozen class by a call of ``object.__setattr__``, which takes 800
    instructions more than to set a slot (callgrind, Python 3.11). So there is such a base for what
    the kernel makes for each call.
    """
    made.__class__ = kind
    result: R = made
    return result


def _fields(record: Shown) -> tuple[attrs.Attribute[Any], ...]:
    fields: tuple[attrs.Attribute[Any], ...] = getattr(type(record), "__attrs_attrs__", ())
    return fields


def _shown(record: Shown, field: attrs.Attribute[Any]) -> str:
    show = field.repr if callable(field.repr) else repr
    # One that is half made may be shown too: by a debugger, in a traceback.
    return f"{field.name}={show(getattr(record, field.name, attrs.NOTHING))}"
