"""Compile a grammar in a process of its own first, so that one which asks for too much ends that one and not this.

llguidance bounds most of its work, and not all: `{"multipleOf": 99999999}` alone would build states for minutes.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from typing import Any

from brolly.errors import OptionError

CPU = 0.5  # seconds of processor that a grammar may take
WALL = 10.0  # seconds in all, where a processor's cannot be counted
MEMORY = 1 << 30  # bytes
STEPS = 8  # bytes that are written for a trial: some limits are met only then

_lock = threading.Lock()
_worker: subprocess.Popen[str] | None = None
_owner = 0  # the process that started it


def try_grammar(grammar: str) -> str:
    """Why llguidance refuses a grammar in its own notation, or "". Raises OptionError where it takes too much."""
    global _worker, _owner
    with _lock:
        if _worker is None or _worker.poll() is not None or _owner != os.getpid():  # a fork may not share its pipes
            _worker, _owner = _started(), os.getpid()
        assert _worker.stdin and _worker.stdout
        late = threading.Timer(WALL, _worker.kill)
        try:
            _worker.stdin.write(json.dumps(grammar) + "\n")
            _worker.stdin.flush()
            late.start()
            line = _worker.stdout.readline()
        except OSError:  # it ended before it read all
            line = ""
        finally:
            late.cancel()
        if line:
            answer: str = json.loads(line)
            return answer
        _stop()
    raise OptionError(
        f"the grammar takes more than {CPU:g} s or {MEMORY >> 30} GB to compile; make it smaller, with shorter "
        "repetitions, fewer alternatives and smaller numbers."
    )


def _started() -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "brolly.engine.trial"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # a ^C at the terminal is not meant for it
    )  # fmt: skip
    assert worker.stdout
    if not worker.stdout.readline():  # when it has imported what it needs, so that only compiling is timed
        raise RuntimeError(f"{sys.executable} -m brolly.engine.trial, which compiles grammars, does not start.")
    return worker


def _stop() -> None:
    global _worker
    if _worker is not None and _owner == os.getpid():
        _worker.kill()
        _worker.wait()
        for pipe in (_worker.stdin, _worker.stdout):
            if pipe:
                pipe.close()
        _worker = None


atexit.register(_stop)


def limits() -> Any:
    """What llguidance may spend on a grammar, and on one token."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=500_000, step_lexer_fuel=200_000, max_lexer_states=50_000, max_grammar_size=200_000,
        precompute_large_lexemes=False, verbose_errors=False,
    )  # fmt: skip


class _Bytes:
    """A vocabulary of the 256 bytes and an end: to compile for it costs nothing beside the grammar."""

    eos_token_id = 256
    bos_token_id = None
    tokens = [bytes([i]) for i in range(256)] + [b"<end>"]
    special_token_ids = [256]

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


def _serve() -> None:
    """A grammar a line in, why it is refused a line out; the kernel ends this process where one takes too much."""
    import llguidance

    clock: Any = None
    try:
        import resource
        import signal

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        clock = lambda seconds: signal.setitimer(signal.ITIMER_PROF, seconds)  # noqa: E731  SIGPROF ends a process
    except ImportError:  # Windows: the wall clock alone
        pass
    tokens = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Bytes()), n_vocab=257, eos_token=256)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        if clock:
            clock(CPU)
        matcher = llguidance.LLMatcher(tokens, json.loads(line), log_level=0, limits=limits())
        for _ in range(STEPS):
            if matcher.is_error() or matcher.is_stopped():
                break
            bits = int.from_bytes(matcher.compute_bitmask(), "little") & (1 << 256) - 1
            if bits:
                matcher.consume_token((bits & -bits).bit_length() - 1)
        if clock:
            clock(0)
        print(json.dumps(matcher.get_error()), flush=True)


if __name__ == "__main__":
    _serve()
