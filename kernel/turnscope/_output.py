"""What an agent's answer has to be: its schema, the tool that it may be given by, how it is read.

Made once, with the agent. Above: the agent, and `_answering`, the loop of its runs. Below: the
tools, and `_schema`, which is imported with the first type that is not plain text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import attrs

from ._tools import Tool
from .abc import OutputSchema

if TYPE_CHECKING:
    from ._schema import Parameters

_NAME: Final = "final_answer"
_NOT_IN_NAMES: Final = re.compile(r"[^a-zA-Z0-9_-]")
_DESCRIPTION: Final = (
    "Give your final answer. This ends the work: call it once, when you need nothing more, and not "
    "together with calls whose results the answer depends on."
)


@attrs.frozen(eq=False)
class Answer:
    """What ``Agent(output=Type)`` comes to."""

    schema: OutputSchema
    tool: Tool[..., Any]
    """By whose call it is given where the model's API has no mode for it. It is shown to the model,
    and never runs."""
    _parameters: Parameters
    _wrapped: bool

    def read(self, given: Any) -> Any:
        """The value that *given*, JSON text or a mapping, stands for.

        Raises InvalidArguments, which says what is wrong with it.
        """
        value: Any = self._parameters.validate(self.tool.name, given)
        if self._wrapped:
            from ._schema import WRAPPED

            return value[WRAPPED]
        return value


def answer_of(kind: Any, taken: Collection[str]) -> Answer | None:
    """What an answer of the type *kind* has to be; None if it is plain text.

    Its tool has none of the names that are *taken*. Raises TypeError for a type that JSON has no
    form for.
    """
    if kind is str:
        return None
    from ._schema import from_type

    parameters, wrapped = from_type(kind)
    name, number = _NAME, 1
    while name in taken:
        number += 1
        name = f"{_NAME}_{number}"

    async def final_answer() -> None: ...

    tool = Tool(final_answer, name=name, description=_DESCRIPTION)
    tool._parameters = parameters  # shown as the schema, and checked, as those of a function
    type_name = _NOT_IN_NAMES.sub("_", getattr(kind, "__name__", ""))[:64]
    schema = OutputSchema(name=type_name or "answer", schema=parameters.schema)
    return Answer(schema, tool, parameters, wrapped)
