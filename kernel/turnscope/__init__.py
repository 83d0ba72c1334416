"""turnscope: one turn, one scope. A structured-concurrency kernel for LLM agents.

The layers, from the top; a file imports from those below it only:

    _later                        the names that are loaded when one of them is used
    _fallback                     several models as one
    _plan_tool _plan_turn         a tool that carries out a plan, a graph of calls; its turn
    _plan_results _plan           what its steps came to; the graph, read and put in order
    _kernel _prepare              Kernel: owns what turns and runs share; a run before it begins
    _run _conductor _feed         Run, the face in the caller's task; its loop; its events
    _answering                    the loop of an agent whose answer has a type
    _early _request               calls that start while the model streams; one model request
    _endings                      what a turn of a run leaves
    _assemble _models             a model's events as whole calls; which model
    _agent _budget                who answers, with what, for how much
    _output                       what an answer has to be
    _turn _supervisor _asking     Turn, the face in the caller's task; its inside; its end
    _block _facts                 how the blocks open and are left; what is known of a turn
    _routes _guards               from a tool to the way of its calls; what they claim
    _places _guests               where they run; what the kernel opens
    _observers                    who is told of everything
    _hedging _leg                 a call's two bodies, if one is slow; each of them
    _attempt _retrying _askable   one call: its life; its further attempts; its end
    _view _parking                what its body sees; what is nested in it
    _outcome                      what a body came to, in the words of a result
    _decorator _tools             from a function to a tool; what a tool is
    _functions _schema            its function; what it takes
    _keys _key_templates          what its calls read and write
    _resources _queue_words       conflict order: who waits for whom, also in words
    _index                        who shares a key
    _options _retry               whether its options fit together; what is tried again
    _limits _adaptive _holds      capacity; one that changes; work that goes on outside the loop
    _statistics                   a look at all of it
    _loop _interrupt              which loop this is; one interrupt for a body, then enforcement
    _context abc                  what tools see; the ports
    events _turn_events           what is told; of it, what is told of a turn and its calls
    _model_events                 what is streamed
    _history _stored _messages    a conversation, as JSON too
    _calls _errors                values, and the error tree
    _record                       what makes a class a value

Beside them, `turnscope.testing`: a scripted model, virtual time and checkers for tests of your own.
"""

from typing import TYPE_CHECKING

from ._adaptive import AdaptiveLimit as AdaptiveLimit
from ._calls import Content as Content
from ._calls import Status as Status
from ._calls import ToolCall as ToolCall
from ._calls import ToolResult as ToolResult
from ._context import CallContext as CallContext
from ._context import check_cancelled as check_cancelled
from ._context import current_call as current_call
from ._context import heartbeat as heartbeat
from ._context import progress as progress
from ._decorator import tool as tool
from ._errors import BudgetExceeded as BudgetExceeded
from ._errors import CallCancelled as CallCancelled
from ._errors import CallError as CallError
from ._errors import DeadlineExceeded as DeadlineExceeded
from ._errors import InvalidArguments as InvalidArguments
from ._errors import LimiterLeaked as LimiterLeaked
from ._errors import ModelError as ModelError
from ._errors import ModelsFailed as ModelsFailed
from ._errors import NotSerialisable as NotSerialisable
from ._errors import NotStarted as NotStarted
from ._errors import OutputInvalid as OutputInvalid
from ._errors import OutputRefused as OutputRefused
from ._errors import RunCancelled as RunCancelled
from ._errors import ToolFailed as ToolFailed
from ._errors import TurnscopeError as TurnscopeError
from ._errors import UnknownTool as UnknownTool
from ._errors import WorkerLost as WorkerLost
from ._holds import Release as Release
from ._kernel import Kernel as Kernel
from ._limits import Limits as Limits
from ._retry import Retry as Retry
from ._tools import Tool as Tool
from ._turn import Turn as Turn

if TYPE_CHECKING:
    from . import events as events
    from ._later import Agent as Agent
    from ._later import AssistantMessage as AssistantMessage
    from ._later import Budget as Budget
    from ._later import CallName as CallName
    from ._later import Claimant as Claimant
    from ._later import History as History
    from ._later import KernelStatistics as KernelStatistics
    from ._later import KeyStatistics as KeyStatistics
    from ._later import LimiterStatistics as LimiterStatistics
    from ._later import Message as Message
    from ._later import Reasoning as Reasoning
    from ._later import ResultMessage as ResultMessage
    from ._later import Run as Run
    from ._later import RunContext as RunContext
    from ._later import RunResult as RunResult
    from ._later import Usage as Usage
    from ._later import UserMessage as UserMessage
    from ._later import fallback as fallback
    from ._later import plan_tool as plan_tool
    from ._later import run as run
else:  # so that type checkers know the names, and no others

    def __getattr__(name: str) -> object:
        """Load the names of `_later`, when the first of them is asked for."""
        if name == "__all__":  # by `from turnscope import *`
            return [each for each in __dir__() if not each.startswith("_")]
        if name.startswith("_") or name not in (names := _later_names()):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for each, value in names.items():
            globals().setdefault(each, value)  # not what somebody has put in its place, in a test
        return names[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *_later_names()} - {"TYPE_CHECKING"})

    def _later_names() -> dict[str, object]:
        from . import _later

        return {name: each for name, each in vars(_later).items() if not name.startswith("_")}
