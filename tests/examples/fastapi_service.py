"""A FastAPI service: one kernel for its life; a client that goes ends what was done for it.

`uvicorn fastapi_service:app`, or `hypercorn -k trio fastapi_service:app`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import anyio
from fastapi import Depends, FastAPI, Request
from pydantic import BaseModel

from turnscope import Agent, Kernel, tool
from turnscope.abc import Model
from turnscope_adapters.asgi import SSE, ClientDisconnected, cancel_on_disconnect, no_answer


@tool(timeout=10)
async def weather(city: str) -> str:
    """Tell today's weather."""
    await anyio.sleep(0.1)
    return f"sunny in {city}"


agent = Agent(model="openai:gpt-5", tools=[weather], instructions="Answer in one sentence.")


class Question(BaseModel):
    text: str


class Answer(BaseModel):
    text: str
    tokens: int


def kernel_of(request: Request) -> Kernel:
    return request.app.state.kernel


TheKernel = Annotated[Kernel, Depends(kernel_of)]


def service(model: Model | None = None) -> FastAPI:
    """The service; *model* stands in for the agent's, as a test wants it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with Kernel(model=model) as app.state.kernel:
            yield

    # Without the handler, a client that goes is logged as a failure of the service.
    app = FastAPI(lifespan=lifespan, exception_handlers={ClientDisconnected: no_answer})

    @app.post("/ask")
    async def ask(question: Question, request: Request, kernel: TheKernel) -> Answer:
        async with cancel_on_disconnect(request):
            result = await kernel.run(agent, question.text, timeout=60)
        return Answer(text=result.output, tokens=result.usage.tokens)

    @app.get("/stream")
    async def stream(question: str, kernel: TheKernel) -> SSE:
        return SSE(kernel.start(agent, question, timeout=60))

    return app


app = service()
