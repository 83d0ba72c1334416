"""Equality, hash and text of a record, once for all of them. Above: the values. Below: attrs.

attrs writes and compiles these for each class: 1.8 of the 3.6 million instructions that a class of
events takes (callgrind, Python 3.11), and there are some thirty. Records are compared by tests, not
by the kernel, so here a loop over the fields will do. The rest is of attrs.
"""

from __future__ import annotations

import reprlib
from typing import Any, cast

import attrs


class Record:
    """The base of an ``attrs.frozen(eq=False, repr=False)`` class that is to be a value."""

    __slots__ = ()

    def _values(self) -> tuple[Any, ...]:
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(self)))
        return tuple(getattr(self, field.name) for field in fields)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record) or type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    @reprlib.recursive_repr()
    def __repr__(self) -> str:
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(self)))
        shown = (f"{field.name}={getattr(self, field.name)!r}" for field in fields if field.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"
