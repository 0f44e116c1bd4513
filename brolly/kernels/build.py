"""Compiles a C file of this folder at its first use, keeps the library in the user's cache and loads it."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger("brolly")

FLAGS = ("-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fPIC", "-shared", "-pthread")
SECONDS = 120


@cache
def library(name: str) -> ctypes.CDLL | str:
    """The library of NAME.c, or the reason why there is none: every kernel has a torch twin that serves then."""
    if os.environ.get("BROLLY_NO_KERNELS"):
        return "switched off by BROLLY_NO_KERNELS"
    source = Path(__file__).with_name(f"{name}.c")
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if compiler is None:
        return "no C compiler (cc, gcc or clang)"
    try:
        return ctypes.CDLL(str(built(source, compiler)))
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or ["no reason given"]
        return f"{compiler} refused {source.name} ({lines[0]:.120})"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{source.name} could not be built ({str(error):.120})"


def built(source: Path, compiler: str) -> Path:
    """The library's path; compiled unless this text, compiler and processor have been seen before."""
    told = [*texts(source.parent), compiler, *FLAGS, platform.machine(), processor()]
    key = hashlib.sha256("\0".join(told).encode()).hexdigest()[:16]
    folder = private(cache_folder())
    target = folder / f"{source.stem}-{key}.so"
    if not target.exists():
        log.info("compiling %s, once", source.name)
        with tempfile.TemporaryDirectory(dir=folder) as spare:
            fresh = Path(spare) / target.name
            command = [compiler, *FLAGS, "-o", str(fresh), str(source), "-lm"]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
            fresh.replace(target)  # whole or absent, whoever else compiles at the same time
    return target


def texts(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.iterdir()) if path.suffix in {".c", ".h"}]


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "brolly" / "kernels"


def private(folder: Path) -> Path:
    """A folder that nobody else can write to: what lies there is loaded into this process."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    about = folder.stat()
    if about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise OSError(f"{folder} can be written by others; make it yours alone (chmod 700)")
    return folder


def processor() -> str:
    """What -march=native sees: a library from a shared home folder must not run on a lesser machine."""
    try:
        with open("/proc/cpuinfo") as file:
            return next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return platform.processor()
