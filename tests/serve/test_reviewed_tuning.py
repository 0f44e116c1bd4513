"""Fine-tuning jobs whose processes misbehave, and what they leave."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

pytest.importorskip("fastapi")

from brolly.serve import tuning  # noqa: E402
from brolly.serve.tuning import Job, Jobs  # noqa: E402

WAITS = 'import time; print(\'{"event": "plan"}\', flush=True); time.sleep(60)'


def made(tmp_path: Path) -> Jobs:
    entry = SimpleNamespace(path=tmp_path / "model", name="model", adapters={})
    house: Any = SimpleNamespace(find=lambda name: (entry, None))
    return Jobs(tmp_path / "tuning", house)


def create(jobs: Jobs, tmp_path: Path) -> Job:
    rows = tmp_path / "content.jsonl"
    rows.write_text("{}")
    told = {"id": f"ftjob-{uuid4().hex}", "status": "queued"}
    return jobs.create(told, "model", rows, None, (), "")


def running(code: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have jobs run this in place of `brolly tune`; the processes' numbers."""
    begun: list[int] = []

    async def started(*words: str, **pipes: Any) -> asyncio.subprocess.Process:
        words = (sys.executable, "-c", code)
        process = await asyncio.create_subprocess_exec(*words, start_new_session=True, **pipes)
        begun.append(process.pid)
        return process

    monkeypatch.setattr(tuning, "started", started)
    return begun


def test_a_process_whose_events_make_no_sense_is_ended_and_the_next_job_has_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = running(WAITS, monkeypatch)

    async def work() -> None:
        jobs = made(tmp_path)
        both = [create(jobs, tmp_path) for _ in range(2)]
        await asyncio.gather(*jobs._tasks.values())
        for job, pid in zip(both, begun, strict=True):
            assert job.status == "failed" and job.told["error"]["code"] == "server_error"
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.mark.parametrize("code", ["import sys; sys.exit(2)", WAITS.replace("plan", "other")])
def test_a_job_that_ended_keeps_neither_rows_nor_what_it_half_learnt(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(code, monkeypatch)
    monkeypatch.setattr(tuning, "GRACE", 0.1)

    async def work() -> None:
        jobs = made(tmp_path)
        job = create(jobs, tmp_path)
        (job.folder / tuning.OUT).mkdir()
        if "sleep" in code:
            while job.process is None:
                await asyncio.sleep(0.01)
            await asyncio.gather(*(jobs.end(job, "cancelled") for _ in range(2)))  # both of the two who ask
        else:
            await asyncio.gather(*jobs._tasks.values())
        assert job.status in tuning.ENDED
        assert sorted(p.name for p in job.folder.iterdir()) == [tuning.EVENTS, tuning.JOB]

    asyncio.run(asyncio.wait_for(work(), 30))
