"""Tools: a function with what a model needs to know of it, and how its calls are to be run.

A `Tool` is a value. It knows nothing of kernels; the backend is only a name here. Signatures
become schemas in `_schema`, which is imported with the first tool, because pydantic takes as long
to import as all the rest. Above: the turn. Below: `_context`, `_schema`.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
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
)

from ._context import CallContext
from ._functions import body_of, function_of, in_class_body, name_of, place_of
from ._options import check_on_error, check_times, check_twice
from ._retry import Retry

if TYPE_CHECKING:
    from ._keys import Declared, Keys
    from ._schema import Parameters

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

OnError: TypeAlias = Literal["result", "raise"] | Callable[[Exception], str]

_NAME: Final = re.compile(r"[a-zA-Z0-9_.:-]{1,128}")  # of a function, as providers accept it


class Tool(Generic[P, R_co]):
    """A function that a model may call; itself callable as that function.

    Usually made by `tool`. Made directly, it takes a hand-written JSON schema::

        Tool(search, name="search", description="Find pages.", schema={"type": "object", ...})

    Raises TypeError for a function that no model can call (``*args``, ``**kwargs``,
    positional-only parameters, types without a JSON schema), naming the parameter and what to do;
    ValueError for a bad name, timeout or schema, for keys made of a parameter that it lacks, and
    for a retry of what may not be done twice.
    """

    __slots__ = (
        "__weakref__",
        "_bound_parameters",
        "_declared",
        "_keys",
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
        "exclusive",
        "fn",
        "hedge",
        "idempotent",
        "idle_timeout",
        "limit",
        "longest",
        "name",
        "on_error",
        "read_only",
        "reads",
        "retry",
        "timed",
        "timeout",
        "writes",
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
        reads: Keys = (),
        writes: Keys = (),
        exclusive: bool = False,
        retry: Retry | None = None,
        hedge: float | None = None,
    ) -> None:
        if isinstance(fn, Tool):
            raise TypeError(f"{fn.name!r} is a Tool already; give its options to the first @tool")
        if not callable(fn):
            raise TypeError(f"a tool is made from a callable, not from {type(fn).__name__}")
        from ._schema import description_of, to_text

        self.fn: Callable[P, R_co] = fn
        self.name: str = name_of(fn) if name is None else name
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"{self.name!r} cannot be the name of a tool: models take up to 128 letters, "
                "digits and _ . : - ; pass name=..."
            )
        check_times(self.name, timeout=timeout, idle_timeout=idle_timeout)
        check_on_error(self.name, on_error)
        check_twice(self.name, early, retry, hedge, safe=read_only or idempotent)
        if inspect.isgeneratorfunction(function_of(fn)):
            raise TypeError(
                f"tool {self.name!r} is a generator: make it `async def` to report each value as "
                "progress, or return a list"
            )
        self.description: str = description_of(fn) if description is None else description
        self.backend: str = place_of(fn) if backend == "auto" else backend
        self.timeout: float | None = timeout
        self.idle_timeout: float | None = idle_timeout
        self.limit: str | None = limit
        self.read_only: bool = read_only
        self.idempotent: bool = idempotent
        self.destructive: bool = destructive
        self.early: bool = read_only if early is None else early
        self.on_error: OnError = on_error
        self.reads: Keys = reads
        self.writes: Keys = writes
        self.exclusive: bool = exclusive
        self._declared: Declared | None = None
        if reads != () or writes != ():
            from ._keys import declared  # here, because most tools have none, and it takes 7 ms

            self._declared = declared(self.name, reads, writes)
        self._keys: Declared | None = None
        self.retry: Retry | None = retry
        self.hedge: float | None = hedge
        total = None if retry is None else retry.total
        self.longest: float = min(timeout or math.inf, total or math.inf)
        """Seconds that a call may take, by its timeout or by its retries' total."""
        self.timed: bool = idle_timeout is not None or self.longest != math.inf
        self._yields = inspect.isasyncgenfunction(function_of(fn))
        self.body: Callable[..., Any] = body_of(fn, yields=self._yields)
        self._schema = schema
        self._to_text = to_text
        self._parameters: Parameters | None = None
        self._bound_parameters: Parameters | None = None
        self._unbound: Tool[..., Any] | None = None
        # A function in a class body is not a method yet, and may never be (staticmethod): its
        # `self` can only be told apart when it is looked up on an instance.
        if not in_class_body(fn):
            _ = self.parameters, self.keys
        elif self._declared is not None:
            self._declared.fitted(fn, inspect.signature(fn).parameters)

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

    @property
    def keys(self) -> Declared | None:
        """What its calls read and write; None if it declares nothing."""
        if self._declared is not None and self._keys is None:
            self._keys = self._declared.fitted(self.fn, self.schema.get("properties"))
        return self._keys

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
        bound.body = body_of(bound.fn, yields=self._yields)
        bound._parameters, bound._keys, bound._unbound = None, None, self
        return bound

    def __repr__(self) -> str:
        return f"<Tool {self.name!r} {self.backend}>"
