"""A header is read without its tensors: files of 20 GB with nothing in them open at once and take no memory."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from brolly.checkpoint import read_header
from brolly.errors import CheckpointError
from tests.checkpoint.pickles import MAGIC, state, tensor

GB20 = 20 * 10**9 // 4 * 4  # bytes
N = GB20 // 4  # float32 numbers
BODY = state(tensor(0, (N,), (1,), count=N))


def huge_safetensors(path: Path) -> int:
    entry = {"dtype": "F32", "shape": [N], "data_offsets": [0, GB20]}
    raw = json.dumps({"w": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    return path.stat().st_size + GB20


def huge_gguf(path: Path) -> int:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor_info("w", (N,), np.dtype("float32"), GB20)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return -(-path.stat().st_size // 32) * 32 + GB20


def huge_llama2c(path: Path) -> int:
    dim, hidden, layers, heads, vocab, seq = 4096, 11008, 24, 32, 32000, 2048
    path.write_bytes(struct.pack("<7i", dim, hidden, layers, heads, heads, vocab, seq))
    each = 4 * dim * dim + 3 * dim * hidden + 2 * dim
    return 28 + 4 * (vocab * dim + layers * each + dim + seq * (dim // heads))


def huge_legacy(path: Path) -> int:
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, 1001, {}))
    path.write_bytes(head + BODY + pickle.dumps(["0"], 2) + struct.pack("<q", N))
    return path.stat().st_size + GB20


def huge_zip(path: Path) -> int:
    """An archive with ZIP64's fields, its directory behind the hole where the numbers would be."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", BODY)
        at = archive.start_dir
        info = zipfile.ZipInfo("archive/data/0")
        info.header_offset, info.file_size, info.compress_size = at, GB20, GB20
        info.CRC = 0
        archive.fp.seek(at)
        archive.fp.write(info.FileHeader(zip64=True))
        archive.start_dir = archive.fp.tell() + GB20
        archive.filelist.append(info)
        archive._didModify = True
    return path.stat().st_size


HUGE: dict[str, Callable[[Path], int]] = {
    "w.safetensors": huge_safetensors,
    "w.gguf": huge_gguf,
    "w.bin": huge_llama2c,
    "legacy.pt": huge_legacy,
    "zip.pt": huge_zip,
}

# The mapping itself takes address space, not memory: what a process holds is measured, not what it may reach.
MEASURE = """
import resource, sys, time
from pathlib import Path
from brolly.checkpoint import Mapped, read_header
start = time.process_time()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
header = read_header(Path(sys.argv[1]))
with Mapped(header) as mapped:
    largest = max(header.tensors.values(), key=lambda t: t.nbytes)
    buffer = mapped.buffer(largest)
    assert not any(buffer[:16]) and not any(buffer[-16:])
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(header.format, header.n_bytes, grown // 1024, time.process_time() - start)
"""


@pytest.mark.parametrize("filename", HUGE)
def test_a_header_of_20_gb_is_read_at_once(tmp_path: Path, filename: str) -> None:
    path = tmp_path / filename
    size = HUGE[filename](path)
    with open(path, "r+b") as file:
        file.truncate(size)
    assert path.stat().st_blocks * 512 < 2**20, "the file system keeps no holes"
    run = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    form, n_bytes, megabytes, seconds = run.stdout.split()
    assert form in ("safetensors", "gguf", "llama2c", "torch")
    assert int(n_bytes) > 0.9 * GB20
    assert int(megabytes) < 40
    assert float(seconds) < 2


@pytest.mark.parametrize("filename", HUGE)
def test_a_20_gb_file_cut_short_by_a_byte_is_refused(tmp_path: Path, filename: str) -> None:
    path = tmp_path / filename
    size = HUGE[filename](path)
    with open(path, "r+b") as file:
        file.truncate(size - 1)
    with pytest.raises(CheckpointError, match=filename):
        read_header(path)
