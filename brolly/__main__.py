"""`python -m brolly`; started by a server, it ends with it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from brolly.cli import program


def end_with(parent: int) -> None:
    """Let SIGTERM come when the process that started this one is gone, however it went."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=look, daemon=True).start()


if __name__ == "__main__":
    if (server := os.environ.pop("BROLLY_SERVER", "")).isdigit():
        end_with(int(server))
    sys.exit(program())
