"""Fine-tuning jobs, by OpenAI's own client: made, told, stopped, served."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brolly.serve.app import create
from brolly.serve.settings import Settings
from brolly.serve.wire.fine_tuning import CheckpointList, JobBody, JobEventList, JobList
from tests.serve.conftest import Running, serving

openai = pytest.importorskip("openai")

ROWS = [{"prompt": f"Q{n}:", "completion": " yes" if n % 2 else " no"} for n in range(8)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def client(server: Callable[[Settings], Running], store: Path) -> Any:
    running = server(Settings(models=("mini-llm",), store=store, port=0))
    return openai.OpenAI(base_url=running.v1, api_key="none", max_retries=0)


def upload(client: Any, rows: list[Any]) -> str:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    return str(client.files.create(file=("rows.jsonl", text.encode()), purpose="fine-tune").id)


def ended(client: Any, id: str, seconds: float = 120) -> Any:
    limit = time.monotonic() + seconds
    while (job := client.fine_tuning.jobs.retrieve(id)).status not in ("succeeded", "failed", "cancelled", "paused"):
        assert time.monotonic() < limit, job
        time.sleep(0.2)
    return job


def make(client: Any, rows: list[Any], **options: Any) -> Any:
    asked = {"n_epochs": 2, "batch_size": 4} | options.pop("hyperparameters", {})
    return client.fine_tuning.jobs.create(
        model="mini-llm", training_file=upload(client, rows), seed=3, extra_body=options,
        method={"type": "supervised", "supervised": {"hyperparameters": asked}},
    )  # fmt: skip


def test_a_job_learns_and_its_adapter_is_served_also_after_a_restart(client: Any, store: Path) -> None:
    made = make(client, ROWS, suffix="yes-no", metadata={"why": "test"})
    assert (made.object, made.model, made.seed, made.metadata) == ("fine_tuning.job", "mini-llm", 3, {"why": "test"})
    client.files.delete(made.training_file)  # its rows are the job's own
    job = ended(client, made.id)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model == f"mini-llm:yes-no-{job.id[-8:]}" and job.trained_tokens > 0 and job.finished_at
    assert job.fine_tuned_model in [m.id for m in client.models.list()]
    told = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    losses = [event.data["train_loss"] for event in told[::-1] if "train_loss" in (event.data or {})]
    assert told[0].message == "The job has successfully completed" and len(losses) == 4 and losses[-1] < losses[0]
    (kept,) = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert kept.fine_tuned_model_checkpoint == job.fine_tuned_model and kept.step_number == 4
    assert client.fine_tuning.jobs.list().data[0].id == job.id
    asked = {"model": job.fine_tuned_model, "prompt": "Q1:", "max_tokens": 2, "temperature": 0}
    text = client.completions.create(**asked).choices[0].text
    with serving(create(Settings(models=("mini-llm",), store=store, port=0))) as again:
        other = openai.OpenAI(base_url=again.v1, api_key="none", max_retries=0)
        assert other.completions.create(**asked).choices[0].text == text
        found = other.fine_tuning.jobs.retrieve(job.id)
        assert found.status == "succeeded"


def test_bad_rows_fail_the_job_and_say_which(client: Any) -> None:
    job = ended(client, make(client, [{"prompt": "a", "completion": ""}]).id)
    assert job.status == "failed" and job.error.code == "invalid_training_file"
    assert "line 1" in job.error.message and str(Path.home()) not in job.error.message


def test_a_job_reads_no_files_of_the_server_and_names_no_folder_of_it(client: Any, store: Path) -> None:
    made = make(client, [{"image": str(store / "secret.png"), "text": "x"}])
    assert "--no-paths" in json.loads((store / "tuning" / made.id / "job.json").read_text())["command"]
    message = ended(client, made.id).error.message
    assert "mini-llm" in message and "caption" in message and "/" not in message


def test_a_job_is_paused_goes_on_and_is_cancelled(client: Any) -> None:
    made = make(client, ROWS * 50, hyperparameters={"n_epochs": 500})
    limit = time.monotonic() + 120
    while not any("train_loss" in (e.data or {}) for e in client.fine_tuning.jobs.list_events(made.id).data):
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert client.fine_tuning.jobs.pause(made.id).status == "paused"
    assert client.fine_tuning.jobs.resume(made.id).status in ("queued", "validating_files", "running")
    with pytest.raises(openai.BadRequestError, match="not paused"):
        client.fine_tuning.jobs.resume(made.id)
    assert client.fine_tuning.jobs.cancel(made.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="already"):
        client.fine_tuning.jobs.cancel(made.id)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "absent"}, "not served"), ({"training_file": "file-absent"}, "No such File"),
        ({"suffix": "../x"}, "suffix"), ({"method": {"type": "reinforcement"}}, "reward"),
        ({"hyperparameters": {"learning_rate_multiplier": 2.0}}, "learning_rate"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(client: Any, change: dict[str, Any], told: str) -> None:
    asked = {"model": "mini-llm", "training_file": upload(client, ROWS)} | change
    with pytest.raises(openai.APIStatusError, match=told):
        client.fine_tuning.jobs.create(**asked)
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-absent")


def test_the_answers_have_the_served_schema(client: Any) -> None:
    import httpx

    v1 = str(client.base_url).rstrip("/")
    jobs = httpx.get(f"{v1}/fine_tuning/jobs", timeout=60).json()
    JobList.model_validate(jobs)
    id = jobs["data"][0]["id"]
    JobBody.model_validate(httpx.get(f"{v1}/fine_tuning/jobs/{id}", timeout=60).json())
    JobEventList.model_validate(httpx.get(f"{v1}/fine_tuning/jobs/{id}/events", timeout=60).json())
    CheckpointList.model_validate(httpx.get(f"{v1}/fine_tuning/jobs/{id}/checkpoints", timeout=60).json())


def test_a_user_may_not_begin_a_job(tmp_path: Path) -> None:
    keys = (("user-key-0123456789", "user"), ("admin-key-0123456789", "admin"))
    with serving(create(Settings(models=("mini-llm",), store=tmp_path, port=0, api_keys=keys))) as running:
        client = openai.OpenAI(base_url=running.v1, api_key=keys[0][0], max_retries=0)
        with pytest.raises(openai.PermissionDeniedError):
            client.fine_tuning.jobs.create(model="mini-llm", training_file=upload(client, ROWS))
