"""How much resident memory this process has had."""

import re
import resource
import sys
from pathlib import Path


def peak_resident_bytes() -> int:
    """The most so far.

    Linux hands the peak of a parent on to its children in ``ru_maxrss``, so there it is read from
    /proc/self/status (proc(5), VmHWM), which a new program starts anew.
    """
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
