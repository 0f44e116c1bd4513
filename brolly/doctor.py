"""What is here: versions, device, dtypes, caches, and what would make it faster."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

from brolly import __version__, hub

PACKAGES = ("torch", "tokenizers", "huggingface_hub", "jinja2", "tqdm")


def examine() -> dict[str, dict[str, str]]:
    """Titles, each with its lines."""
    import torch

    from brolly.fill import choose_device, native_bf16

    flags = cpu_flags()
    place = cache = hub.cache_folder()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    native = native_bf16()
    compute = {
        "bfloat16": "native" if native else "emulated: checkpoints in bfloat16 are computed in float32",
        "float16": "slow on a CPU: checkpoints in float16 are computed in " + ("bfloat16" if native else "float32"),
        "float32": "native",
    }
    n_bytes = sum(m.n_bytes for m in hub.cached() if not m.bundled)
    return {
        "brolly": {"version": __version__, "python": sys.version.split()[0], "platform": platform.platform(terse=True)},
        "packages": {name: installed(name) for name in PACKAGES},
        "device": {
            "chosen": str(choose_device(None)),
            "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
            "cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "has": ", ".join(f for f in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if f in flags)
            or "-",
        },
        "on the cpu": compute,
        "kernels": kernels(),
        "cache": {
            "folder": str(cache),
            "models": f"{n_bytes / 1e9:.2f} GB, {free / 1e9:.0f} GB free",
            "offline": "yes (HF_HUB_OFFLINE)" if hub.offline() else "no",
            "token": "yes" if os.environ.get("HF_TOKEN") else "no HF_TOKEN",
        },
        "faster": dict(enumerate_advice(native)),
    }


def enumerate_advice(native: bool) -> list[tuple[str, str]]:
    advice = [] if native else ["a CPU with AVX-512 BF16 or AMX computes bfloat16 models twice as fast"]
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        advice.append("a C compiler (gcc or clang) lets brolly build its decode kernel")
    return [(f"{i}.", text) for i, text in enumerate(advice or ["nothing that we know of"], 1)]


def kernels() -> dict[str, str]:
    from brolly import kernels as room

    return {"c": room.status()}


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(line.partition(":")[2].split())
