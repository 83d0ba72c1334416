"""Another commit's turnscope, as `turnscope_kernel`: what a change has cost, in one run.

It is measured where ``--python turnscope_before=/path/to/python`` says that it is installed.
"""

from .turnscope_kernel import Session as Session
from .turnscope_kernel import session as session
