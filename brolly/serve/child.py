"""brolly's command line in a process of its own, which ends with the server that started it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Any


async def started(*words: str, **pipes: Any) -> asyncio.subprocess.Process:
    """`brolly` with these words, in a session of its own, without standard input. Raises OSError."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "brolly", *words, stdin=asyncio.subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {"BROLLY_SERVER": str(os.getpid())}, **pipes,
    )  # fmt: skip


def ended(process: asyncio.subprocess.Process) -> None:
    """Kill such a process, and those that it started; who asks waits for it."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
