"""Runs `brolly` as a user does: as a program of its own, or behind a terminal that answers keystrokes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "brolly"]
LIMIT = 60  # seconds before a program counts as hung


def environment(**changes: str) -> dict[str, str]:
    """Offline, one thread, UTF-8, and a dumb terminal that draws nothing by itself."""
    plain = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "TERM": "dumb", "INPUTRC": os.devnull}
    return os.environ | plain | changes


def brolly(
    *args: str | Path, stdin: str = "", env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """One run to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, args)], input=stdin, capture_output=True, encoding="utf-8", timeout=LIMIT,
        env=environment(**(env or {})), check=False, **options,
    )  # fmt: skip


class Terminal:
    """A program behind a pseudo-terminal of its own, as a shell starts it."""

    def __init__(self, *args: str | Path) -> None:
        ours, theirs = pty.openpty()
        self.end, self.shown = ours, ""
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, args)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(),
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)
        os.close(self.end)

    def type(self, keys: str) -> None:
        os.write(self.end, keys.encode())

    def interrupt(self) -> None:
        """^C, a moment after what was shown last: one that comes while readline draws its prompt waits for a key."""
        time.sleep(0.2)
        self.type("\x03")

    def until(self, text: str) -> str:
        """All that is shown up to and with a text, which was not there before."""
        deadline = time.monotonic() + LIMIT
        while text not in self.shown:
            assert self._read(deadline), f"the program ended before it showed {text!r}; it showed {self.shown!r}"
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def ask(self, line: str, prompt: str = ">>> ") -> str:
        """Type a line at the prompt; what is shown between its echo and the next prompt."""
        self.type(line + "\n")
        self.until("\n")
        return self.until(prompt).removesuffix(prompt).replace("\r\n", "\n")

    def finish(self) -> int:
        """Read on until the program ends; its exit code."""
        deadline = time.monotonic() + LIMIT
        while self._read(deadline):
            pass
        return self.process.wait(LIMIT)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self.end], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"nothing came for {LIMIT} s; the terminal showed {self.shown!r}"
        try:
            data = os.read(self.end, 65536)
        except OSError:  # Linux says EIO when the other end is closed
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)
