"""OpenAI's /files and /fine_tuning/jobs: rows are uploaded, a job learns them, its events tell how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from brolly.errors import BadAnswer
from brolly.remote.dialect import Call, Job
from brolly.remote.dialects.openai.envelope import MESSAGE
from brolly.remote.dialects.openai.envelope import told as told
from brolly.remote.target import Target

# what an option is called among hyperparameters; `beta` belongs to preferences alone
WORDS = {"epochs": "n_epochs", "batch": "batch_size", "lr_multiplier": "learning_rate_multiplier", "beta": "beta"}
TUNE = frozenset({*WORDS, "seed", "suffix"})
STATES = {
    "validating_files": "queued", "queued": "queued", "running": "running", "pausing": "running", "paused": "paused",
    "succeeded": "done", "failed": "failed", "cancelled": "cancelled",
}  # fmt: skip
# of an event: our name, and theirs
NUMBERS = (
    ("step", "step"), ("steps", "total_steps"), ("loss", "train_loss"), ("held", "valid_loss"),
    ("held", "full_valid_loss"),
)  # fmt: skip
PAGE = 100  # events a request
MOST = 1e15  # that a number of an event may be


def upload(data: bytes, name: str, target: Target) -> Call:
    """`data` is JSON lines: {"messages"}, or {"input", "preferred_output", "non_preferred_output"}."""
    return Call("/files", files=(("file", (name, data, "application/jsonl")),), form={"purpose": "fine-tune"})


def uploaded(body: Any) -> str:
    """The file's id. Raises BadAnswer."""
    return _id(body, "file")


def tune(file: str, held_out: str, options: Mapping[str, Any], target: Target) -> Call:
    """A job on uploaded rows. `options`: a `method`, "supervised" or "dpo", and what of TUNE was said."""
    method, words = str(options["method"]), {**WORDS, **_own(target)}
    chosen = {words[name]: value for name, value in options.items() if name in words}
    body: dict[str, Any] = {"model": target.model, "training_file": file}
    body |= {"validation_file": held_out} if held_out else {}
    body |= {name: options[name] for name in ("seed", "suffix") if name in options}
    body["method"] = {"type": method, method: {"hyperparameters": chosen}}
    return Call("/fine_tuning/jobs", body, safe=False)


def _own(target: Target) -> dict[str, str]:
    """Hyperparameters that a vendor has beyond OpenAI's: brolly's own server takes lr, rank and alpha."""
    return {name: target.vendor.words.get(name, name) for name in target.vendor.takes if name not in TUNE}


def job(id: str, target: Target) -> Call:
    return Call(_path(id), method="GET")


def read(body: Any) -> Job:
    """How a job is. Raises BadAnswer."""
    id, status, error = _id(body, "job"), body.get("status"), body.get("error")
    if not isinstance(status, str) or status not in STATES:
        raise BadAnswer(f"job {id} is {status!r:.40}; expected {', '.join(STATES)}.")
    message = error.get("message") if isinstance(error, Mapping) else None
    model = body.get("fine_tuned_model")
    named = isinstance(model, str) and len(model) <= MESSAGE and model.isprintable()
    return Job(id, STATES[status], model if named else "", message[:MESSAGE] if isinstance(message, str) else "")


def events(id: str, after: str, target: Target) -> Call:
    """The newest first; `after` is the id of one, and gives those older than it."""
    return Call(f"{_path(id)}/events", method="GET", query={"limit": str(PAGE), **({"after": after} if after else {})})


def event_rows(body: Any) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Id, message and numbers (step, steps, loss, valid_loss) of each event. Raises BadAnswer."""
    rows = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(rows, list):
        raise BadAnswer("no events came; expected rows under data.")
    found: list[tuple[str, str, Mapping[str, Any]]] = []
    for row in rows:
        if not isinstance(row, Mapping) or not isinstance(row.get("id"), str):
            raise BadAnswer("an event has no id.")
        given = row.get("data")
        data: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        numbers = {name: data[word] for name, word in NUMBERS if _is_number(data.get(word))}
        found.append((row["id"], str(row.get("message") or "")[:MESSAGE], numbers))
    return found


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and bool(abs(value) < MOST)


def cancel(id: str, target: Target) -> Call:
    return Call(f"{_path(id)}/cancel")


def _path(id: str) -> str:
    return f"/fine_tuning/jobs/{quote(id, safe='')}"


def _id(body: Any, what: str) -> str:
    id = body.get("id") if isinstance(body, Mapping) else None
    if not isinstance(id, str) or not 0 < len(id) <= 200 or not id.isprintable():
        raise BadAnswer(f"the {what} that was made has no id.")
    return id
