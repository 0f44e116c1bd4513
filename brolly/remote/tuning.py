"""Tuning at a vendor's: rows go there, a job learns them, and what it tells is followed until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from brolly.errors import BadAnswer, Busy, OptionError, Overloaded, Unreachable
from brolly.remote import loop
from brolly.remote.dialect import Job, dialects
from brolly.remote.model import Remote
from brolly.remote.target import Target

ENDED = ("done", "failed", "cancelled")
PAGES = 100  # of events a look
EVERY, SLOWEST = 1.0, 15.0  # seconds between looks: the first, and where nothing is new
PATIENCE = 20  # looks that may fail in a row: the job goes on meanwhile


class Hosted:
    """Tuning jobs of one model's vendor. Raises UnsupportedTask where it has none."""

    def __init__(self, remote: Remote) -> None:
        self.remote, self.target = remote, remote.target
        (self.dialect, *_) = dialects(self.target, "tune")

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises OptionError for an option that the vendor has no word for."""
        vendor = self.target.vendor
        has = (self.dialect.TUNE | set(vendor.takes)) - set(vendor.lacks)
        if missing := [name for name in options if name not in has]:
            said = ", ".join("--" + name.replace("_", "-") for name in missing)
            raise OptionError(
                f"tuning at {vendor.title} has no {said}; leave it out. It has "
                f"{', '.join('--' + name.replace('_', '-') for name in sorted(self.dialect.TUNE))}."
            )

    def start(self, rows: bytes, held: bytes, method: str, options: Mapping[str, Any]) -> Job:
        """Upload rows (JSON lines) and begin to learn them. Raises OptionError and RemoteError's kinds."""
        self.check(options)
        files = [self._json(self.dialect.upload(data, name, self.target)) for data, name in
                 ((rows, "rows.jsonl"), (held, "held.jsonl")) if data]  # fmt: skip
        first, second, *_ = [*map(self.dialect.uploaded, files), ""]
        return self._job(self.dialect.tune(first, second, {**options, "method": method}, self.target))

    def job(self, id: str) -> Job:
        return self._job(self.dialect.job(id, self.target))

    def cancel(self, id: str) -> Job:
        return self._job(self.dialect.cancel(id, self.target))

    def follow(self, id: str, *, every: float | None = None) -> Iterator[Job | dict[str, Any]]:
        """What a job tells, an event each (step, held or said), and at last the job itself. It may be left any time."""
        every = EVERY if every is None else every
        last, pause, failed = "", every, 0
        while True:
            try:
                job, rows = self.job(id), self._news(id, last)
                failed = 0
            except (BadAnswer, Busy, Overloaded, Unreachable):
                failed += 1
                if failed == PATIENCE:
                    raise
                job, rows = Job(id, "running"), []
            for row in reversed(rows):
                yield _event(*row[1:])
            if job.state in ENDED:
                yield job
                return
            last, pause = (rows[0][0], every) if rows else (last, min(1.5 * pause, SLOWEST))
            time.sleep(pause)

    def _news(self, id: str, last: str) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Events behind the last one that was seen, the newest first."""
        found: list[tuple[str, str, Mapping[str, Any]]] = []
        for _ in range(PAGES):
            page = self.dialect.event_rows(
                self._json(self.dialect.events(id, found[-1][0] if found else "", self.target))
            )
            for row in page:
                if row[0] == last:
                    return found
                found.append(row)
            if not page:
                break
        return found

    def _job(self, call: Any) -> Job:
        found: Job = self.dialect.read(self._json(call))
        return found

    def _json(self, call: Any) -> Any:
        return loop.wait(self.remote.client.json(call, self.dialect.told))


def named(target: Target, model: str) -> str:
    """Another model of the same vendor and address, as a reference."""
    head, colon, rest = target.name.partition(":")
    return f"{head}{colon}{rest.partition('#')[0]}#{model}" if head in ("http", "https") else f"{head}:{model}"


def _event(message: str, numbers: Mapping[str, Any]) -> dict[str, Any]:
    if {"step", "steps", "loss"} <= numbers.keys():
        return {"event": "step", "step": int(numbers["step"]), "steps": int(numbers["steps"]), "loss": numbers["loss"]}
    if {"step", "held"} <= numbers.keys():
        return {"event": "held", "step": int(numbers["step"]), "loss": float(numbers["held"])}
    return {"event": "said", "message": message}
