"""Fine-tuning jobs: each `brolly tune` in a process of its own, one at a time; resumed after a stop.

A job is a folder: job.json as clients see it, events.jsonl, the rows as they were, and what was learnt.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from brolly.errors import Busy, NotFound
from brolly.serve.child import ended, started
from brolly.serve.errors import Refused, bare
from brolly.serve.files import linked
from brolly.serve.house import House

log = logging.getLogger("brolly.serve")

JOB, EVENTS, OUT = "job.json", "events.jsonl", "out"
ENDED = ("succeeded", "failed", "cancelled")
MOST = 100  # jobs that wait
TOLD = 200  # steps of a run that become events
LINE = 1 << 20  # bytes of an event of the process
GRACE = 60.0  # seconds that a stopped process has to save


class Job:
    """One job; `told` is what clients read of it."""

    def __init__(self, folder: Path, told: dict[str, Any], owner: str, command: Sequence[str], base: str) -> None:
        self.folder, self.told, self.owner, self.command, self.base = folder, told, owner, list(command), base
        self.process: asyncio.subprocess.Process | None = None
        self.stop = ""  # the status that a stopped process is to leave: cancelled, or paused

    @property
    def id(self) -> str:
        return str(self.told["id"])

    @property
    def status(self) -> str:
        return str(self.told["status"])

    def keep(self) -> None:
        """Onto the disk, whole or as it was."""
        about = {"told": self.told, "owner": self.owner, "command": self.command, "base": self.base}
        part = self.folder / f"{JOB}.part"
        part.write_text(json.dumps(about), "utf-8")
        os.replace(part, self.folder / JOB)

    def say(self, message: str, level: str = "info", data: dict[str, Any] | None = None) -> None:
        """Tell an event."""
        row = {
            "id": f"ftevent-{uuid4().hex}", "object": "fine_tuning.job.event", "created_at": int(time.time()),
            "level": level, "message": message, "type": "metrics" if data else "message", "data": data or {},
        }  # fmt: skip
        with (self.folder / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def events(self) -> list[dict[str, Any]]:
        """What was told, the oldest first; a line cut short is left out."""
        found = []
        with suppress(FileNotFoundError):
            for line in (self.folder / EVENTS).read_text("utf-8").splitlines():
                with suppress(ValueError):
                    found.append(json.loads(line))
        return found


class Jobs:
    """The jobs of one server. Its methods are called on the event loop."""

    def __init__(self, folder: Path, house: House) -> None:
        self.folder, self.house = folder, house
        self.jobs: dict[str, Job] = {}
        self._turn = asyncio.Lock()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def open(self) -> None:
        """Find the jobs of earlier runs: what was learnt is served, what was stopped goes on."""
        for path in sorted(self.folder.glob(f"ftjob-*/{JOB}"), key=lambda path: path.stat().st_mtime):
            with suppress(OSError, ValueError, KeyError, TypeError):
                job = Job(path.parent, **json.loads(path.read_text("utf-8")))
                self.jobs[job.id] = job
                if job.status == "succeeded":
                    self._serve(job)
                elif job.status not in (*ENDED, "paused"):
                    self._begin(job)

    def create(
        self, told: dict[str, Any], base: str, rows: Path, held: Path | None, options: Sequence[str], owner: str
    ) -> Job:
        """A job on copies of these files; it waits for its turn. Raises Busy, NotFound."""
        if len(self._tasks) >= MOST:
            raise Busy(f"{len(self._tasks)} jobs wait already; try again when some are done.", 600)
        entry, _ = self.house.find(base)
        folder = self.folder / told["id"]
        folder.mkdir(parents=True, mode=0o700)
        given = [linked(path, folder / f"{name}{''.join(path.suffixes)}") for name, path in
                 (("rows", rows), ("held", held)) if path is not None]  # fmt: skip
        command = [str(entry.path), str(given[0]), "--out", str(folder / OUT), "--json", "--no-paths", *options]
        command += ["--eval", str(given[1])] if held is not None else []
        job = self.jobs[told["id"]] = Job(folder, told, owner, command, entry.name)
        job.keep()
        job.say(f"Created fine-tuning job: {job.id}")
        self._begin(job)
        return job

    def find(self, id: str, owner: str) -> Job:
        """A job of this owner's. Raises Refused."""
        job = self.jobs.get(id)
        if job is None or job.owner != owner:
            raise Refused(f"Could not find fine tune: {id:.80}", 404, param="fine_tune_id", code="fine_tune_not_found")
        return job

    async def end(self, job: Job, status: str) -> None:
        """Cancel or pause a job; on return it is so. Raises Refused."""
        if job.status in (*ENDED, "paused"):
            raise Refused(f"Job has already {'been ' * (job.status != 'failed')}{job.status}.", param="fine_tune_id")
        job.stop = status
        if job.process is not None:
            with suppress(ProcessLookupError):
                job.process.send_signal(signal.SIGTERM)
            await asyncio.wait([self._tasks[job.id]], timeout=GRACE)
        if (task := self._tasks.get(job.id)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if job.status != status and job.status not in ENDED:
            self._set(job, status)
        self._tidy(job)

    def resume(self, job: Job) -> None:
        """Let a paused job go on. Raises Refused."""
        if job.status != "paused":
            raise Refused(f"Job is {job.status}, and not paused.", param="fine_tune_id")
        job.stop = ""
        self._set(job, "queued")
        self._begin(job)

    async def close(self) -> None:
        """Stop what runs: it saves, and goes on with the next start."""
        self._closed = True
        for job in self.jobs.values():
            if job.process is not None:
                with suppress(ProcessLookupError):
                    job.process.send_signal(signal.SIGTERM)
        running = [self._tasks[job.id] for job in self.jobs.values() if job.process is not None]
        if running:
            await asyncio.wait(running, timeout=GRACE)
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _begin(self, job: Job) -> None:
        task = self._tasks[job.id] = asyncio.create_task(self._run(job))
        task.add_done_callback(lambda _: self._tasks.pop(job.id, None))

    async def _run(self, job: Job) -> None:
        async with self._turn:
            if self._closed or job.status in ENDED:
                return
            try:
                self._set(job, "validating_files")
                again = ["--resume"] if (job.folder / OUT).exists() else []
                pipe = asyncio.subprocess.PIPE
                job.process = await started("tune", *job.command, *again, stdout=pipe, stderr=pipe, limit=LINE)
                await self._follow(job, job.process)
            except Exception as error:  # a full disk, a number that is none: the job ends, and the next has its turn
                log.exception("%s", job.id)
                with suppress(OSError):
                    self._failed(job, f"the server could not follow it ({type(error).__name__})", "server_error")
            finally:
                if job.process is not None and job.process.returncode is None:
                    ended(job.process)
                    await job.process.wait()
                job.process = None
                self._tidy(job)

    def _tidy(self, job: Job) -> None:
        """What a job that has ended no longer needs: its rows, and what was learnt unless it is served."""
        if job.status not in ENDED:
            return
        with suppress(OSError):
            for path in job.folder.iterdir():
                if path.name.partition(".")[0] in ("rows", "held"):
                    path.unlink()
        if job.status != "succeeded":
            shutil.rmtree(job.folder / OUT, ignore_errors=True)

    async def _follow(self, job: Job, process: asyncio.subprocess.Process) -> None:
        """The events of a process, to its end."""
        assert process.stdout and process.stderr
        said = asyncio.create_task(_last(process.stderr))
        done: dict[str, Any] | None = None
        error = ""
        async for event in _events(process.stdout):
            match event.get("event"):
                case "plan":
                    self._set(job, "running", trained_tokens=int(event["tokens"] * event["epochs"]))
                    job.say(f"Fine-tuning on {event['examples']:,} examples, {event['steps']:,} steps")
                case "step":
                    step, steps = event["step"], event["steps"]
                    if step in (1, steps) or not step % max(steps // TOLD, 1):
                        data = {"step": step, "total_steps": steps, "train_loss": event["loss"]}
                        job.say(f"Step {step}/{steps}: training loss={event['loss']:.4f}", data=data)
                case "held":
                    data = {"step": event["step"], "full_valid_loss": event.get("loss")} | {
                        f"full_valid_{k}": v for k, v in event.items() if k not in ("event", "step", "loss")
                    }
                    job.say(f"Step {event['step']}: full validation loss={event.get('loss')}", data=data)
                case "done":
                    done = event
                case "error":
                    error = str(event["message"])
        code, last = await process.wait(), await said
        if done is not None and code == 0:
            name = self._serve(job)
            measures = {k: v for k, v in done.items() if k not in ("event", "path")}
            self._set(job, "succeeded", fine_tuned_model=name, estimated_finish=None)
            job.say("The job has successfully completed", data={"step": done["steps"], **measures})
        elif job.stop:
            self._set(job, job.stop)
        elif self._closed:
            self._set(job, "queued")
        else:
            self._failed(
                job,
                error or last or f"its process ended with {code}",
                "invalid_training_file" if code == 2 else "server_error",
            )

    def _failed(self, job: Job, message: str, code: str) -> None:
        message = bare(message)[:2000]  # where files lie here is nobody's business
        job.told["error"] = {"code": code, "message": message, "param": "training_file"}
        self._set(job, "failed")
        job.say(message, "error")

    def _set(self, job: Job, status: str, **more: Any) -> None:
        job.told |= {"status": status, **more}
        if status in ENDED:
            job.told["finished_at"] = int(time.time())
        if status in ("cancelled", "paused"):
            job.say(f"The job was {status}")
        job.keep()

    def _serve(self, job: Job) -> str | None:
        """The name by which what was learnt is served from now on, or None where its base is not here."""
        try:
            entry, _ = self.house.find(job.base)
        except NotFound as error:
            log.warning("%s was tuned from a model that is not served now: %s", job.id, error)
            return None
        short = name_of(job.told)
        entry.adapters[short] = job.folder / OUT
        return f"{entry.name}:{short}"


def name_of(told: dict[str, Any]) -> str:
    """What is put behind the base's name and a colon."""
    return f"{told.get('suffix') or 'ft'}-{told['id'][-8:]}"


async def _events(stream: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """JSON lines; others are left out."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:  # a line longer than the limit
            continue
        if not line:
            return
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                yield found


async def _last(stream: asyncio.StreamReader) -> str:
    """The last words of a stream."""
    kept = b""
    while piece := await stream.read(4096):
        kept = (kept + piece)[-2000:]
    return kept.decode(errors="replace").strip().rpartition("\n")[2]
