"""OpenAI's /v1/fine_tuning/jobs."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from brolly.serve.wire.common import Answer, Listed, Strict, Words

Auto = Literal["auto"]


class Hyperparameters(Strict):
    n_epochs: Auto | int | None = Field(None, description="times that each example is seen")
    batch_size: Auto | int | None = None
    learning_rate_multiplier: Auto | float | None = Field(None, description="1 or auto; say learning_rate instead")
    beta: Auto | float | None = Field(None, description="of DPO")
    # brolly's own
    learning_rate: float | None = Field(None, gt=0, le=10)
    rank: int | None = Field(None, ge=1, le=2048)
    alpha: float | None = Field(None, gt=0)


class Learning(Strict):
    hyperparameters: Hyperparameters | None = None


class Method(Strict):
    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Learning | None = None
    dpo: Learning | None = None
    reinforcement: dict[str, Any] | None = None


class JobRequest(Strict):
    model: str
    training_file: str
    validation_file: str | None = None
    suffix: str | None = Field(None, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int | None = Field(None, ge=0, le=2**31)
    method: Method | None = None
    hyperparameters: Hyperparameters | None = None
    metadata: Words | None = Field(None, max_length=16)
    integrations: list[dict[str, Any]] | None = None


class JobError(Answer):
    code: str
    message: str
    param: str | None


class JobBody(Answer):
    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    error: JobError | None
    fine_tuned_model: str | None
    finished_at: int | None
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    model: str
    organization_id: str
    result_files: list[str]
    status: Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled", "paused"]
    trained_tokens: int | None
    training_file: str
    validation_file: str | None
    integrations: list[Any]
    seed: int
    estimated_finish: int | None
    metadata: dict[str, str]
    suffix: str | None


class JobList(Answer):
    object: Literal["list"]
    data: list[JobBody]
    has_more: bool


class JobEvent(Answer):
    id: str
    object: Literal["fine_tuning.job.event"]
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any]


class JobEventList(Answer):
    object: Literal["list"]
    data: list[JobEvent]
    has_more: bool


class CheckpointBody(Answer):
    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    step_number: int
    metrics: dict[str, Any]


class CheckpointList(Listed):
    data: list[CheckpointBody]
