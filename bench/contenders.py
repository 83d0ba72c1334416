"""Who is measured: names and facts alone, so that the runner imports no contender.

A contender with requirements runs in an environment that is made for it when it is first measured.
``python bench/run.py --python NAME=/path/to/python`` names one that is there, for any contender: it
needs anyio and what the driver imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LOOPS: Final = ("asyncio", "uvloop", "trio")
ASYNCIO: Final = ("asyncio", "uvloop")
EVERY: Final = (
    *("noop", "sleep", "cancel", "cancel_scope", "cancel_timeout", "raise", "hang"),
    *("threads", "cpu", "conflict", "limits", "run", "long", "streamed", "consumer"),
    *("nested", "agents", "agents_10000", "import", "footprint"),
)

MINUTES: Final = "1,000 agents take it more than ten seconds: these would take minutes"


@dataclass(frozen=True, slots=True)
class Contender:
    """One driver: ``bench/drivers/NAME.py``."""

    name: str
    title: str
    imports: str
    """The statement whose time is the import time."""
    distributions: tuple[str, ...]
    """Whose versions are recorded, beside Python's and anyio's."""
    agents: str = ""
    """What loads its agents, where the import puts them off; timed too, as the whole."""
    first: str = ""
    """A first use after both, which may load what the import put off; timed apart."""
    loops: tuple[str, ...] = LOOPS
    scenarios: tuple[str, ...] = EVERY
    elsewhere: bool = False
    """Whether it is measured only if ``--python`` says where it is installed."""
    floor: bool = False
    """Whether it is what could be written by hand: no framework, and no promises."""
    peer: bool = False
    """Whether it is somebody else's: measured when asked for, and its failures are results."""
    requirements: tuple[str, ...] = ()
    """What is installed in an environment of its own; none: it runs where the runner does."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """The scenarios that it cannot be asked to play, and why."""

    @property
    def everything(self) -> str:
        """The statements that load all of it."""
        return "\n".join(filter(None, (self.imports, self.agents)))

    def takes(self, scenario: str) -> bool:
        """Whether it is measured in *scenario*."""
        return scenario in self.scenarios and scenario not in self.lacks


CONTENDERS: Final = (
    Contender(
        "gather",
        "bare gather",
        "import asyncio",
        (),
        loops=ASYNCIO,
        floor=True,
        # The first call that ends by an exception ends it, a cancellation too.
        lacks={
            "raise": "it does not wait for the calls beside one that has raised",
            "cancel_timeout": "it does not wait for what others clean up when one was cancelled",
        },
    ),
    Contender(
        "task_group", "bare asyncio TaskGroup", "import asyncio", (), loops=ASYNCIO, floor=True
    ),
    Contender("anyio_group", "bare AnyIO task group", "import anyio", (), floor=True),
    Contender(
        "turnscope_kernel",
        "turnscope",
        "import turnscope",
        ("turnscope", "attrs", "pydantic"),
        agents="turnscope.Agent",
        first="@turnscope.tool\nasync def noop(n: int) -> int: return n",
    ),
    Contender(
        "turnscope_observed",
        "turnscope, observed",
        "import turnscope",
        ("turnscope", "attrs", "pydantic"),
        scenarios=("noop", "run", "long", "nested", "agents"),
    ),
    Contender(
        "turnscope_before",
        "turnscope, before",
        "import turnscope",
        ("turnscope", "attrs", "pydantic"),
        agents="turnscope.Agent",
        elsewhere=True,
    ),
    Contender(
        "pydantic_ai",
        "pydantic-ai",
        "import pydantic_ai",
        ("pydantic-ai-slim", "pydantic"),
        first="async def noop(n: int) -> int: return n\npydantic_ai.Agent(tools=[noop])",
        loops=ASYNCIO,
        peer=True,
        requirements=("pydantic-ai-slim>=2.68",),
        lacks={
            "limits": "its limiter is for agents and models, not for tools",
            "agents_10000": MINUTES,
        },
    ),
    Contender(
        "openai_agents",
        "openai-agents",
        "import agents",
        ("openai-agents", "openai", "pydantic"),
        first=(
            "async def noop(n: int) -> int: return n\n"
            "agents.Agent('bench', tools=[agents.function_tool(noop)])"
        ),
        loops=ASYNCIO,
        peer=True,
        requirements=("openai-agents>=0.24",),
        lacks={
            "agents_10000": MINUTES,
        },
    ),
    Contender(
        "langgraph_toolnode",
        "langgraph ToolNode",
        "import langgraph.graph, langgraph.prebuilt",
        ("langgraph", "langgraph-prebuilt", "langchain-core"),
        first=(
            "async def noop(n: int) -> int: 'Give n back.'; return n\n"
            "langgraph.prebuilt.ToolNode([noop])"
        ),
        loops=ASYNCIO,
        peer=True,
        requirements=("langgraph>=1.2",),
        lacks={
            "hang": "no timeout of a tool",
            "conflict": "no order between the calls of a turn",
            "limits": "its max_concurrency does not reach the calls of an asynchronous ToolNode",
            "agents_10000": MINUTES,
        },
    ),
    Contender(
        "langgraph_agent",
        "langgraph agent",
        "import langchain.agents",
        ("langchain", "langgraph", "langchain-core"),
        loops=ASYNCIO,
        peer=True,
        requirements=("langchain>=1.2", "langgraph>=1.2"),
        lacks={
            "hang": "no timeout of a tool",
            "agents_10000": MINUTES,
        },
    ),
    Contender(
        "inspect_ai",
        "inspect_ai",
        "import inspect_ai, inspect_ai.model, inspect_ai.tool",
        ("inspect_ai", "pydantic"),
        peer=True,
        requirements=("inspect_ai>=0.3.285", "trio>=0.32"),
        lacks={
            "threads": "its tools must be asynchronous",
            "cpu": "its tools must be asynchronous",
            "hang": "no timeout of a tool",
            "consumer": "no stream of the events of a run",
            "agents_10000": MINUTES,
        },
    ),
    Contender(
        "agentscope",
        "agentscope",
        "import agentscope, agentscope.agent",
        ("agentscope", "pydantic"),
        loops=ASYNCIO,
        peer=True,
        requirements=("agentscope>=2.0.11",),
        lacks={
            "raise": "what a tool raises is always a result for the model",
            "hang": "no timeout of a tool",
            "limits": "no cap on the calls of a tool that run at once",
            "agents_10000": MINUTES,
        },
    ),
    Contender(
        "bridgic",
        "bridgic",
        "import bridgic.core.agentic.recent",
        ("bridgic", "bridgic-core", "pydantic"),
        loops=ASYNCIO,
        peer=True,
        requirements=("bridgic>=0.4",),
        lacks={
            "hang": "no timeout of a tool",
            "conflict": "no order between the calls of a turn",
            "limits": "no cap on the calls of a tool that run at once",
            "consumer": "no stream of the events of a run",
            "agents_10000": MINUTES,
        },
    ),
)

FLOOR: Final = "anyio_group"
OURS: Final = "turnscope_kernel"
BEFORE: Final = "turnscope_before"
KNOWN: Final = "import anyio, attrs"
"""What turnscope is built on: the modules that come with these need no explaining."""
