"""LangChain's tools as turnscope's, and turnscope's as LangChain's: to move one tool at a time.

`from_langchain` is for an agent of turnscope's that has tools of LangChain's, `to_langchain` for a
graph or agent of theirs that has one of ours. Above: whoever makes an Agent or a graph. Below:
`langchain_core`, and `_langchain_parts` for what a result is made of.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast, get_args, get_type_hints

import anyio

from turnscope import Content, Kernel, Tool, ToolCall, current_call

from ._langchain_parts import blocks_of, content_of

try:
    from langchain_core.messages import ToolMessage
    from langchain_core.runnables import RunnableConfig
    from langchain_core.tools import (
        BaseTool,
        InjectedToolCallId,
        StructuredTool,
        ToolException,
    )
    from langchain_core.tools import Tool as SingleInput
    from langchain_core.utils.function_calling import convert_to_openai_tool
except ModuleNotFoundError as _missing:  # pragma: no cover  # because the tests install every extra
    raise ModuleNotFoundError(
        "turnscope_adapters.langchain needs langchain-core: pip install 'turnscope[langchain]'",
        name=_missing.name,
    ) from _missing

__all__ = ["from_langchain", "to_langchain"]

_NO_ARGUMENTS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}
# What LangChain fills in by itself, by these names.
_GIVEN: Final = frozenset({"args", "kwargs", "callbacks", "run_manager", "config"})
_EMPTY: Final = inspect.Parameter.empty


def from_langchain(tool: BaseTool, **options: Any) -> Tool[..., Any]:
    """*tool*, a LangChain tool, as one that turns and agents of turnscope's run::

        Agent(tools=[from_langchain(search, read_only=True, timeout=20)])

    *options* are those of `turnscope.tool`: of timeouts, limits, order and early start, which
    LangChain does not have. Its name, description and schema are kept, unless *options* say others.

    A tool that is made of an ``async def`` runs in the event loop, on asyncio alone, because
    LangChain does; one that is made of a ``def`` runs in a thread, on both. Its callbacks are
    called. What it raises is a failed result, and so is what its ``handle_tool_error`` makes of
    that, in those words. Text, images, sound and files in what it returns come to the model as
    they are; an artifact that it gives beside them is told as progress of the call.

    Raises TypeError for what is no LangChain tool, and for one that is to be given the state, the
    store or the runtime of a graph, which is not there; what `turnscope.Tool` raises.
    """
    if not isinstance(cast("object", tool), BaseTool):
        raise TypeError(f"from_langchain takes a LangChain tool, not {type(tool).__name__}")
    if missing := sorted(_of_a_graph(tool)):
        raise TypeError(
            f"LangChain's tool {tool.name!r} wants {', '.join(map(repr, missing))} of the graph "
            "that it runs in, and here is none: make a tool of a function that gets what it needs "
            "from CallContext.deps"
        )
    function = cast("Mapping[str, Any]", convert_to_openai_tool(tool)["function"])
    given: dict[str, Any] = {
        "name": tool.name,
        "description": function.get("description", ""),
        "schema": function.get("parameters", _NO_ARGUMENTS),
        **options,
    }
    return Tool(_awaited(tool) if _is_async(tool) else _called(tool), **given)


def to_langchain(
    tool: Tool[..., Any], kernel: Kernel, *, deps: Any = None, timeout: float | None = None
) -> StructuredTool:
    """*tool* as a LangChain tool, for their agents and graphs: each call is a turn of *kernel*.

    *kernel* is open for as long as the tool is used, in the event loop in which it is; *deps* is
    what the tool gets as ``CallContext.deps``, *timeout* how many seconds a call may take.

    The timeouts, limits, order and cancellation of the tool hold, over all calls of the kernel.
    Arguments are validated here. A call that is not ``ok`` is answered in the words that a model of
    ours would read, in a ToolMessage whose status is "error"; the ToolResult is its artifact, if it
    is ``ok``. The tool can be invoked asynchronously alone.
    """

    async def call(**arguments: Any) -> tuple[str | list[Any], Any]:
        async with kernel.turn([tool], deps=deps, timeout=timeout) as turn:
            turn.submit(ToolCall(tool.name, tool.name, arguments))
        (result,) = turn.results
        if not result.ok:
            text = result.content
            raise ToolException(text if isinstance(text, str) else str(blocks_of(text)))
        content = result.content
        return content if isinstance(content, str) else blocks_of(content), result

    return StructuredTool(
        name=tool.name,
        description=tool.description,
        args_schema=dict(tool.schema),
        coroutine=call,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


def _awaited(tool: BaseTool) -> Any:
    async def call(**arguments: Any) -> str | list[Content]:
        if not anyio.get_cancelled_exc_class().__module__.startswith("asyncio"):
            raise RuntimeError(
                f"{tool.name!r} is an async tool of LangChain's, which runs on asyncio alone; use "
                "its def, or run on asyncio"
            )
        return _answer(tool, await tool.ainvoke(_asked(tool, arguments)))

    return call


def _called(tool: BaseTool) -> Any:
    def call(**arguments: Any) -> str | list[Content]:
        return _answer(tool, tool.invoke(_asked(tool, arguments)))

    return call


def _asked(tool: BaseTool, arguments: dict[str, Any]) -> Any:
    """A call as LangChain has it: with an id, which makes it answer with a whole message."""
    return {
        "type": "tool_call",
        "id": current_call().call.id or tool.name,
        "name": tool.name,
        "args": arguments,
    }


def _answer(tool: BaseTool, came: object) -> str | list[Content]:
    if not isinstance(came, ToolMessage):
        raise TypeError(
            f"LangChain's tool {tool.name!r} returned a {type(came).__name__}, which steers a "
            "graph, and here is none: have it return what the model is to read"
        )
    if came.status == "error":
        raise ToolException(came.text)
    if came.artifact is not None:
        current_call().progress(came.artifact)
    return content_of(came)


def _is_async(tool: BaseTool) -> bool:
    if isinstance(tool, (StructuredTool, SingleInput)):
        return tool.coroutine is not None
    return type(tool)._arun is not BaseTool._arun


def _of_a_graph(tool: BaseTool) -> Iterator[str]:
    """The parameters that nobody can fill in but a graph that runs the tool."""
    if isinstance(tool, SingleInput):
        return
    function = getattr(tool, "coroutine", None) or getattr(tool, "func", None) or tool._run
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:  # names that exist for type checkers alone
        hints = {}
    schema = convert_to_openai_tool(tool)["function"].get("parameters", _NO_ARGUMENTS)
    for name, parameter in inspect.signature(function).parameters.items():
        if name in schema["properties"] or name in _GIVEN or parameter.default is not _EMPTY:
            continue
        hint = hints.get(name)
        kinds = (*get_args(hint), hint)
        if RunnableConfig not in kinds and not any(map(_is_id, kinds)):
            yield name


def _is_id(mark: object) -> bool:
    return mark is InjectedToolCallId or isinstance(mark, InjectedToolCallId)
