"""turnscope: one turn, one scope. A structured-concurrency kernel for the tool calls of LLM agents.

The layers, from the top; a file imports from those below it only:

    _kernel                       Kernel: owns what turns share
    _turn _supervisor             Turn, the face in the caller's task; and what goes on inside
    _attempt _view _parking       one call: its life, what its body sees, its nested turns
    _outcome                      what a body came to, in the words of a result
    _places _tools _schema        where a call runs; what a tool is; what it takes
    _limits _holds                capacity; work that goes on outside the loop
    _loop _interrupt              which loop this is; one interrupt for a body, then enforcement
    _context abc events           what tools see; the ports; what observers are told
    _calls _errors                values, and the error tree

Beside them, `turnscope.testing`: virtual time and checkers for tests of your own.
"""

from ._calls import Content as Content
from ._calls import Status as Status
from ._calls import ToolCall as ToolCall
from ._calls import ToolResult as ToolResult
from ._context import CallContext as CallContext
from ._context import check_cancelled as check_cancelled
from ._context import current_call as current_call
from ._context import heartbeat as heartbeat
from ._context import progress as progress
from ._errors import CallCancelled as CallCancelled
from ._errors import CallError as CallError
from ._errors import DeadlineExceeded as DeadlineExceeded
from ._errors import InvalidArguments as InvalidArguments
from ._errors import LimiterLeaked as LimiterLeaked
from ._errors import NotSerialisable as NotSerialisable
from ._errors import NotStarted as NotStarted
from ._errors import TurnscopeError as TurnscopeError
from ._errors import UnknownTool as UnknownTool
from ._errors import WorkerLost as WorkerLost
from ._holds import Release as Release
from ._kernel import Kernel as Kernel
from ._kernel import KernelStatistics as KernelStatistics
from ._limits import LimiterStatistics as LimiterStatistics
from ._limits import Limits as Limits
from ._tools import Tool as Tool
from ._tools import tool as tool
from ._turn import Turn as Turn
