"""A process that reads strangers' files ends, whoever is left to end it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

HANGS = """
import sys
from brolly.adapt.retrieve import child
child.answer = lambda question: [None for _ in iter(int, 1)]
sys.argv = ["child", str(2 << 30)]
child.main()
"""


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="this system has no alarms")
def test_a_file_that_hangs_its_reader_ends_it_though_nobody_waits() -> None:
    child = subprocess.Popen([sys.executable, "-c", HANGS], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert child.stdin
    child.stdin.write(b'{"path": "x", "kind": "pdf", "seconds": -1}\n')
    child.stdin.close()
    assert child.wait(60) == -signal.SIGALRM
