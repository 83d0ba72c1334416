"""A Starlette endpoint that streams a run, for a page that keeps the conversation.

The page posts what it asks, with the history that it got the last time, and closes the stream at
``run_finished``. Here the histories are kept in a dict; a service has a database for them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from turnscope import Agent, History, Kernel, tool
from turnscope.abc import Model
from turnscope_adapters.asgi import SSE


@tool
def population(city: str) -> int:
    """Tell how many people live in a city."""
    return {"Beijing": 21_840_000, "Shanghai": 24_870_000}[city]


agent = Agent(model="openai:gpt-5", tools=[population])


def service(model: Model | None = None) -> Starlette:
    """The service; *model* stands in for the agent's, as a test wants it."""
    stored: dict[str, str] = {}

    async def ask(request: Request) -> SSE:
        asked = await request.json()
        talk = asked["conversation"]
        history = History.from_json(stored[talk]) if talk in stored else None
        run = request.app.state.kernel.start(agent, asked["text"], history=history)

        async def keep() -> None:
            # Whatever has become of the run, its history is whole turns: it can be gone on from.
            stored[talk] = run.history.to_json()

        return SSE(run, show=["arguments", "results"], background=keep)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with Kernel(model=model) as app.state.kernel:
            yield

    return Starlette(routes=[Route("/ask", ask, methods=["POST"])], lifespan=lifespan)


app = service()
