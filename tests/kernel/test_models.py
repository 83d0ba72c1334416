"""Which model answers, and how one that must be opened is opened once and closed with the kernel."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.abc
import pytest

from tests.kernel.agents import an_agent, asks, virtual_backend
from tests.kernel.bodies import UNIT, a_kernel, fine, took
from turnscope import (
    Agent,
    CallContext,
    DeadlineExceeded,
    Kernel,
    ModelError,
    RunCancelled,
    current_call,
    progress,
)
from turnscope.abc import ModelRequest
from turnscope.events import CallProgress, ModelFinished, TextDelta
from turnscope.testing import ScriptedModel, Stream, nothing_left

__all__ = ["virtual_backend"]

pytestmark = pytest.mark.anyio


class Opened(ScriptedModel):
    """A model that must be open, and notes who opens and closes it."""

    def __init__(self, *, wait: float = 0, fail: BaseException | None = None) -> None:
        super().__init__(self.answer)
        self.wait = wait
        self.fail = fail
        self.notes: list[str] = []
        self.tasks: list[int] = []
        self.open = False

    def answer(self, _request: ModelRequest) -> str:
        assert self.open
        return "ok"

    async def __aenter__(self) -> Opened:
        self.notes.append("opening")
        self.tasks.append(anyio.get_current_task().id)
        try:
            await anyio.sleep(self.wait)
            if self.fail is not None:
                raise self.fail
        except anyio.get_cancelled_exc_class():
            self.notes.append("given up")
            raise
        self.open = True
        self.notes.append("open")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tasks.append(anyio.get_current_task().id)
        self.open = False
        self.notes.append("closed")


# Which one.


async def test_the_model_of_a_run_stands_in_for_the_kernels_and_that_for_the_agents() -> None:
    of_agent, of_kernel, of_run = (ScriptedModel(lambda _, n=n: n) for n in ("a", "k", "r"))
    agent = Agent(model=of_agent)
    async with a_kernel() as kernel:
        assert (await kernel.run(agent, "go")).output == "a"
        assert (await kernel.run(agent, "go", model=of_run)).output == "r"
        assert (await kernel.run(Agent(), "go", model=of_run)).output == "r"
    async with a_kernel(model=of_kernel) as kernel:
        assert (await kernel.run(agent, "go")).output == "k"
        assert (await kernel.run(Agent(), "go")).output == "k"
        assert (await kernel.run(agent, "go", model=of_run)).output == "r"
    assert len(of_agent.requests) == 1


async def test_a_model_with_a_length_of_none_is_a_model() -> None:
    class Counting(ScriptedModel):
        def __len__(self) -> int:
            return len(self.requests)

    model = Counting(["mine"])
    async with a_kernel() as kernel:
        assert (await kernel.run(an_agent("the agent's"), "go", model=model)).output == "mine"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A distribution that offers models, as one that pip has installed is found."""
    from turnscope import _models

    module = ModuleType("models_of_a_stranger")
    module.made = []

    def make(name: str) -> ScriptedModel:
        module.made.append(name)
        return ScriptedModel(lambda _: f"I am {name}")

    module.make = make
    module.no_model = lambda name: name
    info = tmp_path / "strange-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[turnscope.models]\n"
        "strange = models_of_a_stranger:make\n"
        "wrong = models_of_a_stranger:no_model\n"
        "gone = models_of_a_stranger:was_here\n"
    )
    monkeypatch.setitem(sys.modules, "models_of_a_stranger", module)
    monkeypatch.syspath_prepend(str(tmp_path))
    _models._offered.cache_clear()
    yield module
    _models._offered.cache_clear()


async def test_a_model_is_found_by_the_entry_points_of_turnscope_models(
    installed: ModuleType,
) -> None:
    agent = Agent(model="strange:big:2")
    async with a_kernel() as kernel:
        assert installed.made == []
        assert (await kernel.run(agent, "go")).output == "I am big:2"
        assert (await kernel.run(agent, "go")).output == "I am big:2"
        assert (await kernel.run(agent, "go", model="strange:small")).output == "I am small"
        # One name, one object: its connections are shared.
        assert installed.made == ["big:2", "small"]
    async with a_kernel(model="strange:all") as kernel:
        assert (await kernel.run(agent, "go")).output == "I am all"


@pytest.mark.parametrize("name", ["nobody:x", "strange", "strange:", ":x", ""])
async def test_a_name_that_nobody_offers_is_refused_with_those_there_are(
    installed: ModuleType, name: str
) -> None:
    async with a_kernel() as kernel:
        with pytest.raises(ValueError, match=r"there are: .*strange:NAME") as caught:
            await kernel.run(Agent(model=name), "go")
        assert f"no model is named {name!r}" in str(caught.value)
    assert installed.made == []


async def test_a_factory_that_makes_no_model_is_found_out_before_any_request(
    installed: ModuleType,
) -> None:
    assert installed is not None
    async with a_kernel() as kernel:
        with pytest.raises(TypeError, match="'x' is no model: that is an object with stream"):
            await kernel.run(Agent(model="wrong:x"), "go")
        with pytest.raises(AttributeError, match="was_here"):
            await kernel.run(Agent(model="gone:x"), "go")


# Opening and closing.


async def test_a_model_is_opened_at_its_first_use_and_closed_with_the_kernel() -> None:
    model = Opened()
    async with a_kernel() as kernel:
        await anyio.sleep(UNIT)
        assert model.notes == []
        for _ in range(3):
            assert (await kernel.run(Agent(model=model), "go")).output == "ok"
        assert model.notes == ["opening", "open"]
    assert model.notes == ["opening", "open", "closed"]
    assert len(set(model.tasks)) == 1  # entered and left in one task, for it may hold task groups


async def test_runs_that_begin_together_open_a_model_once_and_wait_for_it() -> None:
    model = Opened(wait=UNIT)
    async with a_kernel() as kernel:
        start = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(kernel.run, Agent(model=model), "go")
        took(start, UNIT)
        assert model.notes == ["opening", "open"]


async def test_two_kernels_open_a_model_each_for_itself() -> None:
    first, second = Opened(), Opened()
    async with a_kernel() as one:
        await one.run(Agent(model=first), "go")
        async with a_kernel() as other:
            await other.run(Agent(model=second), "go")
        assert (first.notes[-1], second.notes[-1]) == ("open", "closed")
    assert first.notes[-1] == "closed"
    async with a_kernel() as third:  # and one after the other, the same
        assert (await third.run(Agent(model=first), "go")).output == "ok"
    assert first.notes == ["opening", "open", "closed"] * 2


async def test_a_model_without_a_context_needs_no_opening_and_serves_two_kernels() -> None:
    model = ScriptedModel(lambda _: "ok")
    assert not isinstance(model, AbstractAsyncContextManager)
    async with a_kernel() as one, a_kernel() as other:
        for kernel in (one, other):
            assert (await kernel.run(Agent(model=model), "go")).output == "ok"


async def test_an_opening_that_fails_is_the_cause_of_a_model_error_and_tried_again() -> None:
    model = Opened(fail=OSError("no route to host"))
    async with a_kernel() as kernel:
        for _ in range(2):
            with pytest.raises(ModelError, match="no route to host") as caught:
                await kernel.run(Agent(model=model), "go")
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.history is not None and len(caught.value.history) == 1
        model.fail = None
        assert (await kernel.run(Agent(model=model), "go")).output == "ok"
    assert model.notes == ["opening"] * 3 + ["open", "closed"]


async def test_an_opening_that_raises_a_model_error_keeps_its_status() -> None:
    error = ModelError("no key", status=401)
    async with a_kernel() as kernel:
        with pytest.raises(ModelError) as caught:
            await kernel.run(Agent(model=Opened(fail=error)), "go")
    assert caught.value is error


async def test_a_run_that_waits_for_an_opening_ends_at_its_deadline() -> None:
    model = Opened(wait=3 * UNIT)
    async with a_kernel() as kernel:
        start = anyio.current_time()
        with pytest.raises(DeadlineExceeded):
            await kernel.run(Agent(model=model), "go", timeout=UNIT)
        took(start, UNIT)
        # The opening is the kernel's: the next run finds it open.
        assert (await kernel.run(Agent(model=model), "go")).output == "ok"
    assert model.notes == ["opening", "open", "closed"]


async def test_a_run_that_waits_for_an_opening_can_be_cancelled() -> None:
    model = Opened(wait=60)
    async with nothing_left():
        async with Kernel() as kernel:
            start = anyio.current_time()
            with anyio.move_on_after(UNIT) as scope:
                await kernel.run(Agent(model=model), "go")
            assert scope.cancelled_caught
            async with kernel.start(Agent(model=model), "go") as run:
                run.cancel("enough")
                with pytest.raises(RunCancelled, match="enough"):
                    await run.wait()
        # And a kernel that closes does not wait for what hangs.
        took(start, UNIT)
    assert model.notes == ["opening", "given up"]


async def test_a_kernel_that_is_closed_under_an_opening_ends_its_runs() -> None:
    model = Opened(wait=60)

    async def one(kernel: Kernel, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with kernel.start(Agent(model=model), "go") as run:
            task_status.started()
            with pytest.raises(RunCancelled, match="the kernel was closed"):
                await run.wait()

    async with nothing_left():
        async with anyio.create_task_group() as group:
            async with Kernel() as kernel:
                await group.start(one, kernel)
                await anyio.sleep(UNIT)
    assert model.notes == ["opening", "given up"]


async def test_a_model_is_closed_after_the_last_run_has_let_go_of_it() -> None:
    class Late(Opened):
        @asynccontextmanager
        async def stream(self, request: ModelRequest, /) -> AsyncGenerator[Any]:
            async def events() -> AsyncGenerator[Any]:
                yield TextDelta("a")
                await anyio.sleep(60)
                yield ModelFinished()

            try:
                async with aclosing(events()) as streamed:
                    yield streamed
            finally:
                await anyio.sleep(UNIT)
                self.notes.append(f"request over, {'open' if self.open else 'closed'}")

    model = Late()

    async def one(kernel: Kernel) -> None:
        with pytest.raises(RunCancelled):
            await kernel.run(Agent(model=model), "go")

    async with anyio.create_task_group() as group:
        async with Kernel() as kernel:
            group.start_soon(one, kernel)
            await anyio.sleep(UNIT)
    assert model.notes == ["opening", "open", "request over, open", "closed"]


async def test_a_closing_that_fails_is_raised_by_the_kernels_block() -> None:
    class Broken(Opened):
        async def __aexit__(self, *_: object) -> None:
            raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):
        async with Kernel() as kernel:
            await kernel.run(Agent(model=Broken()), "go")


# What a model sees.


async def test_a_model_is_no_call_of_a_tool() -> None:
    told: list[Any] = []

    async def answer(request: ModelRequest) -> Any:
        assert isinstance(current_call(), CallContext)  # what it runs belongs to its run
        progress("half")
        return "ok" if request.history.results else asks(fine)

    async with a_kernel() as kernel:
        async with kernel.start(Agent(model=ScriptedModel(answer), tools=[fine]), "go") as run:
            async for event in run:
                told.append(event)  # noqa: PERF401 because a list is shared
    assert told
    assert not any(isinstance(event, CallProgress) for event in told)


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_model_that_raises_a_cancellation_of_its_own_has_failed() -> None:
    async def answer(_request: ModelRequest) -> Any:
        raise asyncio.CancelledError

    async with a_kernel() as kernel:
        with pytest.raises(ModelError, match="the model failed: CancelledError"):
            await kernel.run(Agent(model=ScriptedModel(answer)), "go")
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0


async def test_a_models_own_scopes_are_its_own() -> None:
    class Retries(ScriptedModel):
        @asynccontextmanager
        async def stream(self, request: ModelRequest, /) -> AsyncGenerator[Any]:
            with anyio.move_on_after(UNIT) as scope:
                await anyio.sleep(60)
            assert scope.cancelled_caught
            async with super().stream(request) as events:
                yield events

    async with a_kernel() as kernel:
        start = anyio.current_time()
        model = Retries([Stream([(UNIT, TextDelta("ok")), (UNIT, ModelFinished())])])
        assert (await kernel.run(Agent(model=model), "go", timeout=60)).output == "ok"
        took(start, 2 * UNIT)
