"""Loads, uses and unloads models again and again in a process of its own, and prints what each round left behind.

One JSON object a round: bytes of memory that are this process's own and in all, threads, open files, temporary files.
`python -m tests.serve.cycles ROUNDS MODEL…`
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from brolly.serve.house import House
from brolly.serve.settings import Settings


def left() -> dict[str, int]:
    status = Path("/proc/self/status").read_text()
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status.splitlines() if line.endswith("kB")}
    return {
        "own": sizes["RssAnon"], "all": sizes["VmRSS"], "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")), "temporary": len(os.listdir(tempfile.gettempdir())),
        "maps": len(Path("/proc/self/maps").read_text().splitlines()),
    }  # fmt: skip


def work(model: Any) -> None:
    """Everything that it can do, once, so that every kernel and cache has been made."""
    for verb in model.card.verbs:
        match verb:
            case "generate":
                model.generate("Once upon a time", max_tokens=3, temperature=0)
                model.generate(["Once", "Upon a time"], max_tokens=3)  # by the engine
            case "embed":
                model.embed(["a fox", "a hen"])
            case "classify":
                model.classify(Image.new("RGB", (64, 64), "red"), ["red", "blue"])
            case "transcribe":
                model.transcribe(np.sin(np.arange(16000, dtype=np.float32) / 10), rate=16000)


async def main(rounds: int, names: list[str]) -> None:
    house = House(Settings(models=tuple(names)))
    await house.start()
    for _ in range(rounds):
        for name in list(house.entries):
            async with house.use(name) as use:
                await asyncio.to_thread(work, use.model)
                del use
            await house.unload(name)
        print(json.dumps(left()), flush=True)
    await house.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
