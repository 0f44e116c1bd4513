"""Starts the same command in several processes of this computer, as torchrun does. No torch."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

PATIENCE = 5.0  # seconds for the others once one has failed


def launch(processes: int, command: Sequence[str]) -> int:
    """Run a command so often, each with its RANK; returns the first exit code that is not 0. One's end ends all."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    cores = max((os.cpu_count() or 1) // processes, 1)
    shared = {"WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    shared |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", f"{cores}")}
    running = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": f"{i}", "LOCAL_RANK": f"{i}"})
        for i in range(processes)
    ]

    def hand_on(number: int, frame: Any) -> None:
        if number == signal.SIGINT and in_front():
            return  # the terminal told them itself, and the second ^C would stop them unsaved
        if running[0].poll() is None:
            running[0].send_signal(number)  # they agree to stop

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return wait(running)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for one in running:
            if one.poll() is None:
                one.kill()
                one.wait()


def in_front() -> bool:
    """Whether ^C at a terminal reaches this process and those that it started."""
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except (AttributeError, OSError):  # no terminals of this kind
        return False


def wait(running: Sequence[subprocess.Popen[bytes]]) -> int:
    """The exit code of all: 0, or that of the first that failed, behind which no other lives long."""
    while True:
        codes = [one.poll() for one in running]
        failed = next((code for code in codes if code), 0)
        if all(code is not None for code in codes):
            return failed
        if failed:
            end = time.monotonic() + PATIENCE
            for one in running:
                try:
                    one.wait(max(end - time.monotonic(), 0.01))
                except subprocess.TimeoutExpired:
                    one.kill()
                    one.wait()
            return failed
        time.sleep(0.05)


def again() -> list[str]:
    """This program's own command."""
    return [sys.executable, "-m", "brolly", *sys.argv[1:]]
