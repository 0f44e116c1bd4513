"""Answers that were written before, kept in the user's cache: the same tokens to the same model by the same options.

Of a model that runs elsewhere, the same messages to the same name at the same address."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brolly.errors import OptionError
from brolly.verbs import Usage

if TYPE_CHECKING:
    from brolly.engine.job import Job
    from brolly.remote.ask import Ask

MOST_BYTES = 1 << 30
TABLE = """create table if not exists answers (
    key blob primary key, text text not null, reason text not null, read integer not null, wrote integer not null
) without rowid"""
PLACES = 32  # numbers of each tensor that a model is told by


def cache_file() -> Path:
    """Where answers are kept."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "brolly" / "prompts" / "answers.sqlite3"


class Cache:
    """Answers by the job that asked for them. For one thread; other processes may use the same file."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path, timeout=30)
            path.chmod(0o600)
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.execute(TABLE)
            size = self._db.execute("pragma page_count").fetchone()[0] * 4096
            if size > most_bytes:
                self._db.execute("delete from answers")
                self._db.commit()
                self._db.execute("vacuum")
        except (OSError, sqlite3.Error) as error:
            raise OptionError(
                f"{path}: answers cannot be kept here ({error}); delete the file, set XDG_CACHE_HOME, or run with "
                "--no-cache."
            ) from None

    def get(self, key: bytes) -> tuple[str, str, Usage] | None:
        """The text, why it ended and its usage, or None."""
        try:
            row = self._db.execute("select text, reason, read, wrote from answers where key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise OptionError(f"{self.path} cannot be read ({error}); delete it, or run with --no-cache.") from None
        return (row[0], row[1], Usage(row[2], row[3], row[2])) if row else None

    def put(self, key: bytes, text: str, reason: str, usage: Usage) -> None:
        """Keep an answer. Where the disk takes no more, that is an error, and what was kept stays."""
        try:
            with self._db:
                self._db.execute(
                    "insert or replace into answers values (?, ?, ?, ?, ?)",
                    (key, text, reason, usage.prompt_tokens, usage.completion_tokens),
                )
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise OptionError(f"{self.path} cannot be written ({error}); run with --no-cache.") from None

    def close(self) -> None:
        """Give the file back."""
        self._db.close()


def repeatable(job: Job | Ask) -> bool:
    """Whether the same job is to give the same answer: greedy, or by a seed."""
    return job.options.temperature == 0 or job.options.seed is not None


def key_of(model: str, job: Job | Ask) -> bytes:
    """What an answer is kept under: the model, the prompt's tokens and everything that shapes the answer."""
    asked = sorted(asdict(job.options).items())
    if messages := getattr(job, "messages", ()):
        rest = {name: getattr(job, name) for name in ("tools", "choice", "parallel", "n", "extra", "template")}
        said = repr((model, asked, json.dumps([messages, rest], sort_keys=True, default=repr)))
    else:
        said = repr((model, list(job.prompt), asked, bool(job.guide), bool(job.split)))  # type: ignore[union-attr]
    return hashlib.sha256(said.encode("utf-8", "backslashreplace")).digest()


def fingerprint(model: Any, adapter: str | Path | None = None) -> str:
    """Of a model's template, some numbers of each of its tensors, and an adapter's file; or of its vendor's name."""
    if target := getattr(model, "target", None):
        return hashlib.sha256(repr((target.vendor.name, target.base, target.model)).encode()).hexdigest()
    tokenizer = model.tokenizer
    template = tokenizer.template.source if tokenizer.template else ""
    found = hashlib.sha256(repr((str(model.dtype), str(model.device), tokenizer.vocab_size, template)).encode())
    for name, parameter in model.network.named_parameters():
        flat = parameter.detach().flatten()
        some = flat[:: max(flat.numel() // PLACES, 1)][: 2 * PLACES].float().cpu().numpy()
        found.update(f"{name} {tuple(parameter.shape)}".encode() + some.tobytes())
    if adapter is not None:
        folder = Path(model.adapters.get(str(adapter), adapter)).expanduser()
        for path in sorted(folder.glob("adapter_*")):
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
