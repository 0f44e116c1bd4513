"""SIGKILL at any moment of a write: under the target's name lies the old file or the new one, whole; never a part."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from brolly.checkpoint import read_header, write_safetensors

# Writes for ever, each file in many pieces; a line on stdout says that one is finished.
WRITE = """
import sys, time
from pathlib import Path
from brolly.checkpoint import write_safetensors
def numbers():
    time.sleep(0.0003)
    return bytes([turn % 256]) * 40_000
for turn in range(1, 10**6):
    rows = [(f"t{i:02}", "U8", (40_000,), numbers) for i in range(50)]
    write_safetensors(Path(sys.argv[1]), rows, {"turn": str(turn)})
    print(turn, flush=True)
"""


@pytest.mark.parametrize("old", [False, True])
def test_a_killed_writer_leaves_the_old_file_or_the_new(tmp_path: Path, old: bool) -> None:
    rng = random.Random(int(old))
    parts = wholes = 0
    for attempt in range(12):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        target = folder / "model.safetensors"
        if old:
            write_safetensors(target, [("t00", "U8", (3,), b"old")], {"turn": "0"})
        with subprocess.Popen([sys.executable, "-c", WRITE, target], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout
            if attempt >= 6:  # the other half die during their first file
                assert writer.stdout.readline()
            else:
                deadline = time.monotonic() + 20
                while len(list(folder.iterdir())) == int(old) and time.monotonic() < deadline:
                    time.sleep(0.0001)
            time.sleep(rng.random() * 0.03)
            writer.kill()
            finished = writer.stdout.read().split()
            assert writer.wait() == -signal.SIGKILL
        left = [p.name for p in folder.iterdir() if p != target]
        parts += len(left)
        assert all(n.startswith(".model.safetensors.") and n.endswith(".part") for n in left), left
        if not target.exists():
            assert not old and not finished
            continue
        assert read_header(folder).files == (target,), "what a killed writer left is not taken for weights"
        turn = int(read_header(target).metadata["turn"])
        assert turn >= max(map(int, finished), default=0)
        wholes += turn > 0
        if turn:
            found = load_file(target)
            assert len(found) == 50
            assert all(bool((t == turn % 256).all()) for t in found.values())
        else:
            assert load_file(target)["t00"].numpy().tobytes() == b"old"
    assert parts, "no writer was caught in the middle of a file: this test shows nothing"
    assert wholes >= 6
