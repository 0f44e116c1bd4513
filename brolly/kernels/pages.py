"""Brings a mapped file's pages into this process while Python does other things, such as importing torch. No torch."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Sequence

STEP = 2**21  # bytes a call: whoever maps memory meanwhile waits for one to end
POPULATE_READ = 22  # madvise's advice, since Linux 5.14
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h


class Populator(threading.Thread):
    """One pass over some mappings; `stop` ends it early, and so does the program's end. It can fail only to help."""

    def __init__(self, mappings: Sequence[mmap.mmap]) -> None:
        super().__init__(name="brolly-populate")
        self.mappings, self.stop = mappings, False

    def run(self) -> None:
        if sys.platform != "linux" or sum(map(len, self.mappings)) > available() / 2:
            return
        madvise = ctypes.CDLL(None).madvise
        for mapping in self.mappings:
            try:
                start = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
            except (TypeError, ValueError):  # read-only, or closed meanwhile
                return
            for at in range(0, len(mapping), STEP):
                n_bytes = min(STEP, len(mapping) - at)
                if self.stop or not threading.main_thread().is_alive():
                    return
                if madvise(ctypes.c_void_p(start + at), ctypes.c_size_t(n_bytes), POPULATE_READ):
                    return


def available() -> int:
    """Bytes of memory that the system could give now."""
    try:
        with open("/proc/meminfo") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable")), 0)
    except OSError:
        return 0


def keep_memory() -> None:
    """Keep what a step frees for the next one: glibc would give large tensors back and fault every page in again."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(option, 2**30)


def few_arenas() -> None:
    """Let all threads share one heap: glibc makes one for each, and what lies freed in those does not serve others.

    Holds for threads that have not begun. MALLOC_ARENA_MAX in the environment goes before it.
    """
    given = "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", "")
    if not given and sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_ARENA_MAX, 1)


def trim() -> None:
    """Give the system every page of freed memory that malloc keeps."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
