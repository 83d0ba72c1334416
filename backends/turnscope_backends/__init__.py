"""Where a call's body runs: in the event loop, in a thread, in a process.

Each backend is found by its name through the entry points in ``turnscope.backends``; import one
here to give it options and hand it to ``Kernel(backends=[...])``. Below: the public names of
`turnscope`. A backend knows nothing of the others.
"""

from ._inline import InlineBackend as InlineBackend
from ._process import ProcessBackend as ProcessBackend
from ._thread import ThreadBackend as ThreadBackend
