"""A command in a process that ends with the server that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Run brolly's command line; on Linux SIGTERM comes when whoever started it is gone, however it went."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            return 1
    from brolly.cli import main as run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
