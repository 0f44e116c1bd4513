"""What every benchmark needs: limits of this machine, workers that are timed in turn, a table."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Worker:
    """A Python process that answers one JSON line for each JSON line it is sent; it sleeps while others are timed."""

    def __init__(self, script: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.name = " ".join(arguments)
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | (env or {}),
        )  # fmt: skip

    def ask(self, **question: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker {self.name} ended with code {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve(answer: Callable[[dict[str, Any]], Any]) -> None:
    """A worker's loop. What libraries print goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=out, flush=True)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_bandwidth(n_bytes: int = 2**30, rounds: int = 6) -> float:
    """Bytes a second at which all threads read memory (huge pages, each byte once): the best of some rounds."""
    import torch

    from brolly.engine.settle import huge

    memory = huge(n_bytes).view(torch.int64)
    memory.zero_()
    return n_bytes / min(seconds(memory.sum) for _ in range(rounds))


def matmul_flops(n: int = 4096, rounds: int = 4) -> float:
    """FLOP a second of a bfloat16 matrix product of n³: the best of some rounds."""
    import torch

    a, b = (torch.randn(n, n).to(torch.bfloat16) for _ in range(2))
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(rounds))


def median(values: list[float]) -> float:
    return statistics.median(values)


def machine(*packages: str) -> str:
    """The processor, its cores and the versions, in one line."""
    about = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in about if line.startswith("model name")), "")
    flags = [f for f in ("avx512f", "avx512_bf16", "amx_bf16") if any(f in line.split() for line in about)]
    parts = [model or platform.machine(), f"{os.cpu_count()} cores", *flags, f"Python {platform.python_version()}"]
    return ", ".join(parts + [f"{name} {version(name)}" for name in packages])


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
