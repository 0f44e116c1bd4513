"""A process that reads strangers' files for us: it may hang, crash or eat memory, and the index goes on without it.

`python -m brolly.adapt.retrieve.child BYTES` answers a JSON line for each JSON line. It can write no files; on systems
without `resource` (Windows) time alone is limited. It is no sandbox against code that takes the process over.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any

from brolly.adapt.retrieve.document import Block, Document
from brolly.errors import BrollyError, MediaError, MissingExtra

SECONDS = 120.0  # for one file
MEMORY = 2 << 30  # bytes beside those of the file itself
LONGEST = 512 << 20  # characters of an answer


class Reader:
    """The parent's side: starts the child when the first file comes and anew when it has died."""

    def __init__(self, seconds: float = SECONDS, memory: int = MEMORY) -> None:
        self.seconds, self.memory = seconds, memory
        self._child: subprocess.Popen[bytes] | None = None

    def read(self, path: Path, kind: str) -> Document:
        """A file's document. Raises MediaError, MissingExtra."""
        child = self._started()
        late: list[bool] = []

        def stop() -> None:
            late.append(True)
            child.kill()

        timer = Timer(self.seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            assert child.stdin and child.stdout
            question = {"path": str(path.absolute()), "kind": kind, "seconds": self.seconds}
            child.stdin.write(json.dumps(question).encode() + b"\n")
            child.stdin.flush()
            line = child.stdout.readline(LONGEST)
        except OSError:
            line = b""
        except BaseException:
            self.close()
            raise
        finally:
            timer.cancel()
        if late:
            self.close()
            raise MediaError(f"{path} took more than {self.seconds:.0f} s to read; split it, or leave it out.")
        if not line.endswith(b"\n"):
            code = child.wait()
            self.close()
            raise MediaError(f"{path} crashed its reader (code {code}): it is broken, or made to do so.")
        return _document(json.loads(line), path, self.memory)

    def close(self) -> None:
        """End the child; the next file starts another."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe:
                    with suppress(OSError):
                        pipe.close()
            self._child = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(
                [sys.executable, "-m", "brolly.adapt.retrieve.child", str(self.memory)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        return self._child


def _document(said: dict[str, Any], path: Path, memory: int) -> Document:
    if extra := said.get("extra"):
        raise MissingExtra(said["error"], extra)
    if said.get("error") == "memory":
        raise MediaError(f"{path} wants more than {memory >> 20:,} MB of memory to read; split it, or leave it out.")
    if "error" in said:
        raise MediaError(f"{path}: {said['error']}.")
    blocks = tuple(Block(int(a), int(b), str(kind), str(head), page) for a, b, kind, head, page in said["blocks"])
    return Document(said["text"], blocks, said["title"], said["fields"])


# The child's side -----------------------------------------------------------------------------------------------------


def confine(memory: int) -> None:
    """No more memory than this, no written file, no other process."""
    try:
        import resource
    except ImportError:
        return
    for name, most in (("RLIMIT_AS", memory), ("RLIMIT_FSIZE", 0), ("RLIMIT_CORE", 0)):
        if limit := getattr(resource, name, None):
            try:
                resource.setrlimit(limit, (most, most))
            except (ValueError, OSError):
                continue  # a stricter one is set already


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What was read, or why it could not be."""
    from brolly.adapt.retrieve import formats

    path = Path(question["path"])
    try:
        found = {"pdf": formats.read_pdf, "docx": formats.read_docx, "html": formats.read_html}[question["kind"]](path)
    except MissingExtra as error:
        return {"error": str(error).partition(" needs")[0], "extra": error.extra}
    except (BrollyError, OverflowError) as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "memory"}
    except OSError as error:
        return {"error": f"it cannot be read ({error.strerror or error})"}
    except RecursionError:
        return {"error": "it is nested too deep"}
    return {"text": _clean(found.text), "blocks": found.blocks, "title": _clean(found.title), "fields": found.fields}


def _clean(text: str) -> str:
    """Without lone surrogates, which no store can hold, and as long as before."""
    return text.encode("utf-8", "replace").decode() if any("\ud800" <= c <= "\udfff" for c in text) else text


def main() -> None:
    out = sys.stdout.buffer
    sys.stdout = sys.stderr
    confine(int(sys.argv[1]))
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if hasattr(signal, "alarm"):  # ends it, also within C, where whoever asked is gone and cannot
            signal.alarm(int(question["seconds"]) + 2)
        try:
            told = json.dumps(answer(question), ensure_ascii=False).encode("utf-8", "replace")
        except MemoryError:
            told = b'{"error": "memory"}'
        out.write(told + b"\n")
        out.flush()
        if hasattr(signal, "alarm"):
            signal.alarm(0)


if __name__ == "__main__":
    main()
