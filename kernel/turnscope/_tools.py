"""Tools: a function with what a model needs to know of it, and how its calls are to be run.

A `Tool` is a value. It knows nothing of kernels; the backend is only a name here. Signatures
become schemas in `_schema`, which is imported with the first tool, because pydantic takes as long
to import as all the rest. Above: the turn. Below: `_context`, `_schema`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from functools import lru_cache, partial
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from ._context import CallContext, current_call

if TYPE_CHECKING:
    from ._schema import Parameters

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

OnError: TypeAlias = Literal["result", "raise"] | Callable[[Exception], str]

_NAME: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,128}")  # of a function, as providers accept it


class Tool(Generic[P, R_co]):
    """A function that a model may call; itself callable as that function.

    Usually made by `tool`. Made directly, it takes a hand-written JSON schema::

        Tool(search, name="search", description="Find pages.", schema={"type": "object", ...})

    Raises TypeError for a function that no model can call (``*args``, ``**kwargs``,
    positional-only parameters, types without a JSON schema), naming the parameter and what to do;
    ValueError for a bad name, timeout or schema.
    """

    __slots__ = (
        "__weakref__",
        "_bound_parameters",
        "_parameters",
        "_schema",
        "_to_text",
        "_unbound",
        "_yields",
        "backend",
        "body",
        "description",
        "destructive",
        "early",
        "fn",
        "idempotent",
        "idle_timeout",
        "limit",
        "name",
        "on_error",
        "read_only",
        "timeout",
    )

    def __init__(
        self,
        fn: Callable[P, R_co],
        *,
        name: str | None = None,
        description: str | None = None,
        schema: Mapping[str, Any] | None = None,
        backend: str = "auto",
        timeout: float | None = None,
        idle_timeout: float | None = None,
        limit: str | None = None,
        read_only: bool = False,
        idempotent: bool = False,
        destructive: bool = False,
        early: bool | None = None,
        on_error: OnError = "result",
    ) -> None:
        if isinstance(fn, Tool):
            raise TypeError(f"{fn.name!r} is a Tool already; give its options to the first @tool")
        if not callable(fn):
            raise TypeError(f"a tool is made from a callable, not from {type(fn).__name__}")
        from ._schema import description_of, to_text

        self.fn: Callable[P, R_co] = fn
        self.name: str = _name_of(fn) if name is None else name
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} cannot be the name of a tool: models take up to 128 letters, "
                "digits and _ . : - ; pass name=..."
            )
        for option, seconds in (("timeout", timeout), ("idle_timeout", idle_timeout)):
            if seconds is not None and not seconds > 0:
                raise ValueError(
                    f"tool {self.name!r}: {option} is a span in seconds above 0, not {seconds!r}"
                )
        if on_error not in ("result", "raise") and not callable(on_error):
            raise ValueError(
                f"tool {self.name!r}: on_error is 'result', 'raise' or a function of the exception"
            )
        if inspect.iscoroutinefunction(on_error):
            raise TypeError(f"tool {self.name!r}: on_error gives a text at once; make it a def")
        if inspect.isgeneratorfunction(_function(fn)):
            raise TypeError(
                f"tool {self.name!r} is a generator: make it `async def` to report each value as "
                "progress, or return a list"
            )
        if early and not (read_only or idempotent):
            raise ValueError(
                f"tool {self.name!r}: early=True starts calls that may come to count for nothing; "
                "say that this does no harm, by read_only=True or idempotent=True, or drop it"
            )
        self.description: str = description_of(fn) if description is None else description
        self.backend: str = _place_of(fn) if backend == "auto" else backend
        self.timeout: float | None = timeout
        self.idle_timeout: float | None = idle_timeout
        self.limit: str | None = limit
        self.read_only: bool = read_only
        self.idempotent: bool = idempotent
        self.destructive: bool = destructive
        self.early: bool = read_only if early is None else early
        self.on_error: OnError = on_error
        self._yields = inspect.isasyncgenfunction(_function(fn))
        self.body: Callable[..., Any] = _body_of(fn, yields=self._yields)
        self._schema = schema
        self._to_text = to_text
        self._parameters: Parameters | None = None
        self._bound_parameters: Parameters | None = None
        self._unbound: Tool[..., Any] | None = None
        # A function in a class body is not a method yet, and may never be (staticmethod): its
        # `self` can only be told apart when it is looked up on an instance.
        if not _in_class_body(fn):
            _ = self.parameters

    @property
    def parameters(self) -> Parameters:
        """What the function takes: schema and validation."""
        if self._parameters is None:
            # Made once for all instances: a schema takes a hundred times as long as a lookup.
            made = None if self._unbound is None else self._unbound._bound_parameters
            self._parameters = made or self._made_parameters()
            if self._unbound is not None:
                self._unbound._bound_parameters = self._parameters
        return self._parameters

    def _made_parameters(self) -> Parameters:
        from . import _schema

        try:
            if self._schema is not None:
                return _schema.from_schema(self._schema)
            return _schema.from_signature(self.fn, context_type=CallContext)
        except (TypeError, ValueError) as exc:
            exc.add_note(f"while making a tool of {self.name!r}")
            raise

    def text_of(self, value: object) -> str:
        """What the tool returned, as text for the model; raises NotSerialisable."""
        return self._to_text(self.name, value)

    @property
    def schema(self) -> Mapping[str, Any]:
        """The JSON schema of the arguments, an object, as it is shown to models."""
        return self.parameters.schema

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function itself, here and now: no kernel, no timeout, no validation."""
        return self.fn(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Tool[..., R_co]:
        """A method's tool, bound to *instance*."""
        if instance is None:
            return self
        bound = cast("Tool[..., R_co]", object.__new__(Tool))
        for slot in Tool.__slots__[1:]:
            setattr(bound, slot, getattr(self, slot))
        fn: Any = self.fn
        bound.fn = fn.__get__(instance, owner)
        bound.body = _body_of(bound.fn, yields=self._yields)
        bound._parameters, bound._unbound = None, self
        return bound

    def __repr__(self) -> str:
        return f"<Tool {self.name!r} {self.backend}>"


def _body_of(fn: Callable[..., Any], *, yields: bool) -> Callable[..., Any]:
    return partial(_drain, fn) if yields else fn


async def _drain(fn: Callable[..., AsyncGenerator[Any, None]], /, **kwargs: Any) -> Any:
    """The body of an async generator: each value is progress, the last is the result."""
    context = current_call()
    value = None
    async with aclosing(fn(**kwargs)) as values:
        async for value in values:
            context.progress(value)
    return value


def _function(fn: Callable[..., object]) -> Callable[..., object]:
    """What `inspect` should look at: under partials, and the ``__call__`` of an object."""
    while isinstance(fn, partial):
        fn = fn.func
    if not inspect.isroutine(fn) and not inspect.isclass(fn):
        call: Callable[..., object] = type(fn).__call__
        return call
    return fn


def _name_of(fn: Callable[..., object]) -> str:
    while isinstance(fn, partial):
        fn = fn.func
    return str(getattr(fn, "__name__", type(fn).__name__))


def _place_of(fn: Callable[..., object]) -> str:
    function = _function(fn)
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    return "inline" if is_async else "thread"


def _in_class_body(fn: Callable[..., object]) -> bool:
    outer = getattr(fn, "__qualname__", "").rpartition(".")[0]
    return inspect.isfunction(fn) and bool(outer) and not outer.endswith("<locals>")


@overload
def tool(fn: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    backend: str = "auto",
    timeout: float | None = None,
    idle_timeout: float | None = None,
    limit: str | None = None,
    read_only: bool = False,
    idempotent: bool = False,
    destructive: bool = False,
    early: bool | None = None,
    on_error: OnError = "result",
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool of a function, bare (``@tool``) or with options (``@tool(timeout=5)``).

    name: what the model calls it; by default the function's name.
    description: what the model reads; by default the docstring, without its parameters, whose
        texts go into the schema (Google, NumPy and reST styles).
    backend: where calls run: "inline" (in the event loop), "thread", "process", or the name of a
        backend of your own; "auto" is inline for ``async def`` and thread for ``def``.
    timeout: seconds from the start of the body until it is interrupted.
    idle_timeout: seconds without ``heartbeat()`` or ``progress()`` until it is interrupted.
    limit: a group of ``Limits(groups=...)`` in which its calls count.
    read_only, idempotent, destructive: what a call does to the world, as MCP hints it.
    early: whether calls start while the model still streams; by default those of read_only tools.
    on_error: "result" tells the model of an exception and lets the turn go on; "raise" ends the
        turn with it; a function of the exception gives the text that the model reads.

    Raises what `Tool` raises.
    """

    def made(fn: Callable[..., Any]) -> Tool[..., Any]:
        return Tool(fn, **options)

    return made if fn is None else made(fn)


@lru_cache(maxsize=512)
def _remembered(fn: Callable[..., Any]) -> Tool[..., Any]:
    return Tool(fn)


def as_tool(fn: Tool[..., Any] | Callable[..., Any]) -> Tool[..., Any]:
    """The Tool that *fn* is, or one made of it.

    Those made of plain functions are remembered, because a schema takes a while. Not those of
    closures, which would be kept alive, nor of objects, which may equal one another.
    """
    if isinstance(fn, Tool):
        return cast("Tool[..., Any]", fn)
    if inspect.isfunction(fn) and fn.__closure__ is None:
        return _remembered(fn)
    return Tool(fn)
