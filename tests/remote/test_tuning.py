"""Tuning where a model runs: what is uploaded, asked and followed; against a fake of OpenAI's and our own server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import brolly
from brolly.cli import main
from brolly.errors import BadAnswer, OptionError, RecipeError, RemoteError, Unreachable
from brolly.remote.dialects.openai import tuning
from brolly.remote.target import parse
from brolly.remote.tuning import Hosted, named
from brolly.rows import open_rows
from brolly.rows.hosted import lines
from brolly.train import hosted
from tests.remote import more
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.fakes.server import CUT, Reply
from tests.remote.more import alike, ours, theirs

fake = more.fake  # a fixture

MODEL = "gpt-4.1-mini-2025-04-14"
CHATS = [
    {"messages": [{"role": "user", "content": f"{n} and {n}?"}, {"role": "assistant", "content": f"{2 * n}"}]}
    for n in range(10)
]
PAIRS = [{"prompt": f"Greet {n}.", "chosen": f"Dear {n}", "rejected": f"Hey {n}"} for n in range(5)]


def written(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(f"{json.dumps(row) if not isinstance(row, str) else row}\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({}, {"type": "supervised", "supervised": {"hyperparameters": {}}}),
        ({"epochs": 3, "batch": 2, "lr_multiplier": 0.5},
         {"type": "supervised", "supervised": {
             "hyperparameters": {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 0.5}}}),
        ({"beta": 0.2, "epochs": 1}, {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 1}}}),
    ],
)  # fmt: skip
def test_we_send_what_the_package_sends(fake: FakeOpenAI, options: dict[str, Any], method: dict[str, Any]) -> None:
    client, rows = theirs(fake), lines(open_rows(PAIRS if "beta" in options else CHATS))
    file = client.files.create(file=("rows.jsonl", rows.data, "application/jsonl"), purpose="fine-tune")
    said = client.fine_tuning.jobs.create(
        model=MODEL, training_file=file.id, seed=7, suffix="sums", method=method,  # type: ignore[arg-type]
    )  # fmt: skip
    job = Hosted(ours(MODEL)).start(rows.data, b"", rows.method, {**options, "seed": 7, "suffix": "sums"})
    alike(fake.requests[0], fake.requests[2], named=True)
    sent = dict(fake.requests[3].json)
    assert sent.pop("training_file") == "file-" + "0" * 23 + "1"
    assert sent == {name: value for name, value in fake.requests[1].json.items() if name != "training_file"}
    assert job.state == "queued" and said.status == "validating_files"
    client.fine_tuning.jobs.retrieve(job.id)
    assert Hosted(ours(MODEL)).job(job.id).id == job.id
    alike(fake.requests[-2], fake.requests[-1])
    client.fine_tuning.jobs.cancel(job.id)
    assert fake.requests[-1].path == "/v1" + tuning.cancel(job.id, parse("openai:x")).path
    assert Hosted(ours(MODEL)).cancel(said.id).state == "cancelled"
    told = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    found = tuning.event_rows(fake.more.events(fake.requests[-1], job.id).body)
    assert [row.id for row in told] == [row[0] for row in found]


def test_a_job_is_followed_to_its_model(fake: FakeOpenAI) -> None:
    events: list[dict[str, Any]] = []
    fake.more.steps = 7
    found = brolly.tune(f"openai:{MODEL}", CHATS, epochs=2, suffix="sums", progress=events.append, every=0.01)
    assert found.path == f"openai:ft:{MODEL}:org-test:sums:abc123" and found.kind == "hosted" and found.steps == 7
    assert [e["step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5, 6, 7]
    assert events[0]["event"] == "plan" and events[0]["examples"] == 10 and events[0]["cost"] is None
    assert events[-1]["event"] == "done" and events[-1]["loss"] == pytest.approx(2 / 7, abs=1e-3)
    uploaded = [json.loads(line) for line in fake.more.files["file-" + "0" * 24].splitlines()]
    assert uploaded == CHATS


def test_events_of_more_than_a_page_come_once_and_in_order(fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "PAGE", 3)
    fake.more.steps = 10
    model = Hosted(ours(MODEL))
    job = model.start(lines(open_rows(CHATS)).data, b"", "supervised", {})
    for _ in range(5):
        fake.more.events(fake.requests[-1], job.id)  # the job runs on while nobody looks
    found = [event["step"] for event in model.follow(job.id, every=0.01) if isinstance(event, dict) and "step" in event]
    assert found == list(range(1, 11))


def test_a_look_that_fails_ends_nothing(fake: FakeOpenAI) -> None:
    model = Hosted(ours(MODEL))
    job = model.start(lines(open_rows(CHATS)).data, b"", "supervised", {})
    for reply in (Reply(503), Reply(200, {}, b"<html>"), Reply(429, {"retry-after": "0"}), Reply(200, chunks=[CUT])):
        fake.faults.append(lambda _, reply=reply: reply)
    *_, end = model.follow(job.id, every=0.01)
    assert not isinstance(end, dict) and end.state == "done"


def test_a_vendor_that_is_gone_is_told_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-1")
    monkeypatch.setattr("brolly.remote.tuning.SLOWEST", 0.01)
    with pytest.raises(Unreachable):
        list(Hosted(ours(MODEL)).follow("ftjob-1", every=0.001))


def test_rows_become_the_lines_that_are_learnt() -> None:
    calls = {"role": "assistant", "content": None, "tool_calls": [
        {"type": "function", "function": {"name": "add", "arguments": "{}"}}]}  # fmt: skip
    chat = [{"messages": [{"role": "user", "content": "1+1?"}, calls, {"role": "tool", "content": "2"},
                          {"role": "assistant", "content": "2"}]}]  # fmt: skip
    (turns,) = (json.loads(line)["messages"] for line in lines(open_rows(chat)).data.splitlines())
    assert turns[1]["tool_calls"][0]["id"] == turns[2]["tool_call_id"] == "call_1_0"
    made = lines(open_rows([{"prompt": "a", "completion": "b"}]))
    assert json.loads(made.data) == {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    }
    pairs = lines(open_rows(PAIRS[:1]))
    assert pairs.method == "dpo" and json.loads(pairs.data)["preferred_output"] == [
        {"role": "assistant", "content": "Dear 0"}
    ]
    with pytest.raises(RecipeError, match="of the shape 'text'"):
        lines(open_rows([{"text": "a"}]))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"lr": 1e-4}, "has no --lr"), ({"rank": 8}, "has no --rank"), ({"schedule": "linear"}, "has no --schedule"),
        ({"epochs": 1.5}, "a whole number"), ({"beta": 0.1}, "beta is for preferences"),
        ({"objective": "orpo"}, "objective is orpo"), ({"epochs": -1}, "epochs is -1"), ({"lora": None}, "lora is for"),
        ({"out": "here"}, "out is for a model on this computer"),
    ],
)  # fmt: skip
def test_what_is_not_to_be_had_there_is_refused(fake: FakeOpenAI, options: dict[str, Any], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        brolly.tune(f"openai:{MODEL}", CHATS, **options)
    assert not fake.requests


def test_a_budget_is_not_kept_by_guessing(fake: FakeOpenAI) -> None:
    with pytest.raises(OptionError, match="not known here"):
        hosted.tune(ours(MODEL, max_cost=5.0), CHATS)
    assert not fake.requests


def test_a_job_that_fails_says_why(fake: FakeOpenAI) -> None:
    model = ours(MODEL)
    job = Hosted(model).start(b'{"bad": 1}\n', b"", "supervised", {})
    with pytest.raises(RemoteError, match="failed: The job failed due to an invalid training file"):
        hosted.follow(model, job.id, every=0.01)


@pytest.mark.parametrize(
    "body",
    [None, [], {}, {"id": 7}, {"id": "x\x1b[2J", "status": "running"}, {"id": "x", "status": ["running"]},
     {"id": "x", "status": "melted"}, {"id": "x" * 1000, "status": "running"}],
)  # fmt: skip
def test_what_is_no_job_is_a_bad_answer(body: Any) -> None:
    with pytest.raises(BadAnswer):
        tuning.read(body)


def test_odd_numbers_of_events_are_left_out() -> None:
    data = {"step": "1", "total_steps": True, "train_loss": float("nan"), "valid_loss": 0.5}
    (row,) = tuning.event_rows({"data": [{"id": "a", "message": None, "data": data}]})
    assert row == ("a", "", {"held": 0.5})
    for bad in (None, {}, {"data": [7]}, {"data": [{"id": None}]}):
        with pytest.raises(BadAnswer):
            tuning.event_rows(bad)


def test_the_tuned_model_has_a_reference_of_its_own() -> None:
    assert named(parse("http://127.0.0.1:1/v1#mini-llm"), "mini-llm:ft-1") == "http://127.0.0.1:1/v1#mini-llm:ft-1"
    assert parse(named(parse("openai:gpt-4.1"), "ft:gpt-4.1:me::1")).model == "ft:gpt-4.1:me::1"


def test_brolly_tune_tells_how_to_run_it(
    fake: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("brolly.remote.tuning.EVERY", 0.01)
    rows = written(tmp_path / "rows.jsonl", [*CHATS, "no json", {"messages": []}])
    assert main(["tune", f"openai:{MODEL}", rows, "--epochs", "2", "--seed", "3", "--held-out", "0.2"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == f"openai:ft:{MODEL}:org-test::abc123"
    assert "8 to learn, 2 held out" in err and "rows.jsonl, line 11" in err and "cost       unknown" in err
    assert f'brolly run openai:ft:{MODEL}:org-test::abc123 "…"' in err and "sk-test" not in out + err
    assert fake.requests[2].json["validation_file"] == "file-" + "0" * 23 + "1"
    assert main(["tune", f"openai:{MODEL}", rows, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [e["event"] for e in events][:2] == ["plan", "job"] and events[-1]["event"] == "done"
    job = events[1]["id"]
    assert main(["tune", f"openai:{MODEL}", "--follow", job]) == 0
    assert main(["tune", f"openai:{MODEL}", "--cancel", job]) == 2
    assert "already" in capsys.readouterr().err
    before = len(fake.requests)
    assert main(["tune", f"openai:{MODEL}", rows, "--dry-run"]) == 0
    assert main(["tune", f"openai:{MODEL}"]) == 2 and main(["tune", f"openai:{MODEL}", rows, "-o", "out"]) == 2
    assert main(["tune", "mini-llm", rows, "--suffix", "a", "-o", str(tmp_path / "o")]) == 2
    assert len(fake.requests) == before


def test_a_person_who_leaves_is_told_how_to_come_back(
    fake: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = written(tmp_path / "rows.jsonl", CHATS)

    def leave(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brolly.remote.tuning.time.sleep", leave)
    assert main(["tune", f"openai:{MODEL}", rows]) == 130
    err = capsys.readouterr().err
    assert "--follow ftjob-00000000" in err and "--cancel ftjob-00000000" in err
    assert not any(request.path.endswith("/cancel") for request in fake.requests)


def test_rows_to_evaluate_on_and_preferences(fake: FakeOpenAI, tmp_path: Path) -> None:
    rows, held = written(tmp_path / "rows.jsonl", PAIRS), written(tmp_path / "held.jsonl", PAIRS[:2])
    events: list[dict[str, Any]] = []
    hosted.tune(ours(MODEL), rows, eval=held, beta=0.3, progress=events.append, every=0.01)
    first, second = fake.more.files.values()
    assert (len(first.splitlines()), len(second.splitlines())) == (5, 2)
    (job,) = fake.more.jobs.values()
    assert job["validation_file"] and job["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3}}}
    assert (events[0]["method"], events[0]["examples"], events[0]["held"]) == ("dpo", 5, 2)
    with pytest.raises(OptionError, match="leave one out"):
        hosted.tune(ours(MODEL), rows, eval=held, held_out=0.2)
    with pytest.raises(OptionError, match="nothing was begun"):
        hosted.tune(ours(MODEL), rows, approve=lambda plan: "DPO" not in str(plan))
    assert len(fake.more.jobs) == 1
