"""What `import turnscope` leaves out, loaded at once when the first of its names is used.

All that a run needs beyond what a turn does: who only runs turns of their own loop never loads it,
and it is a third of the import of everything. And the types of statistics, whose values the kernel
gives without anybody's naming them. Above: the package. Below: the rooms of runs.
"""

from . import events as events
from ._agent import Agent as Agent
from ._agent import RunContext as RunContext
from ._budget import Budget as Budget
from ._fallback import fallback as fallback
from ._history import History as History
from ._messages import AssistantMessage as AssistantMessage
from ._messages import Message as Message
from ._messages import Reasoning as Reasoning
from ._messages import ResultMessage as ResultMessage
from ._messages import Usage as Usage
from ._messages import UserMessage as UserMessage
from ._once import run as run
from ._plan_tool import plan_tool as plan_tool
from ._run import Run as Run
from ._run import RunResult as RunResult
from ._statistics import CallName as CallName
from ._statistics import Claimant as Claimant
from ._statistics import KernelStatistics as KernelStatistics
from ._statistics import KeyStatistics as KeyStatistics
from ._statistics import LimiterStatistics as LimiterStatistics
