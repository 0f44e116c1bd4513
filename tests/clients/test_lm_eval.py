"""lm-evaluation-harness measures through the server what it measures with transformers on the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI

from .conftest import CHAT

TEXTS = [
    ("A language model is", " loaded when it is asked for."),
    ("The server prints", " what it serves, where, with which memory"),
    ("", "Nothing stands before this."),
    ("Une réponse à moitié", " écrite — ½ of it, 你好, 🦊."),
    ("x = 1\ny =", " 2\n"),
]
TASK = """\
task: docs_yes_no
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/task.json}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["yes", "no", "perhaps not"]
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


@pytest.fixture(scope="module")
def ours(v1: str, checkpoint: Path) -> Any:
    return LocalCompletionsAPI(
        model=CHAT, base_url=f"{v1}/completions", tokenizer=str(checkpoint), tokenizer_backend="huggingface",
        max_length=1024, batch_size=2, num_concurrent=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> Any:
    return HFLM(pretrained=str(checkpoint), device="cpu", dtype="float32", max_length=1024, batch_size=1)


def asked(kind: str, rows: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, row, n) for n, row in enumerate(rows)]


def test_loglikelihoods(ours: Any, theirs: Any) -> None:
    found = ours.loglikelihood(asked("loglikelihood", TEXTS))
    expected = theirs.loglikelihood(asked("loglikelihood", TEXTS))
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_a_greedy_continuation_is_known_as_one(ours: Any, theirs: Any) -> None:
    (text,) = theirs.generate_until(asked("generate_until", [("The server", {"until": ["\n"], "max_gen_toks": 5})]))
    ((_, greedy),) = ours.loglikelihood(asked("loglikelihood", [("The server", text)]))
    assert greedy == theirs.loglikelihood(asked("loglikelihood", [("The server", text)]))[0][1]


def test_rolling_loglikelihoods(ours: Any, theirs: Any) -> None:
    docs = Path(__file__).parents[2] / "docs" / "serve.md"
    rows = [(docs.read_text()[:4000],), ("A short one.",)]
    found = ours.loglikelihood_rolling(asked("loglikelihood_rolling", rows))
    expected = theirs.loglikelihood_rolling(asked("loglikelihood_rolling", rows))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-3)


def test_greedy_texts(ours: Any, theirs: Any) -> None:
    how = {"until": ["\n\n"], "max_gen_toks": 24, "do_sample": False}
    rows = [(context, dict(how)) for context, _ in TEXTS if context]
    found = ours.generate_until(asked("generate_until", rows))
    assert found == theirs.generate_until(asked("generate_until", rows))


def test_the_program_tells_the_same_of_a_task(v1: str, checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"question": f"Is {n} more than {m}?", "answer": int(n <= m)} for n in range(4) for m in range(4)]
    (tmp_path / "task.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "task.yaml").write_text(TASK.replace("FOLDER", str(tmp_path)))

    def run(model: str, arguments: str) -> dict[str, float]:
        out = tmp_path / model
        command = [
            sys.executable,
            "-m",
            "lm_eval",
            "--model",
            model,
            "--model_args",
            arguments,
            "--tasks",
            "docs_yes_no",
        ]
        command += ["--include_path", str(tmp_path), "--output_path", str(out), "--device", "cpu"]
        own = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(command, capture_output=True, text=True, env=own)
        assert done.returncode == 0, done.stderr[-2000:]
        (report,) = out.rglob("results*.json")
        results: dict[str, Any] = json.loads(report.read_text())["results"]["docs_yes_no"]
        return {name: value for name, value in results.items() if name.startswith("acc") and isinstance(value, float)}

    served = run("local-completions", f"model={CHAT},base_url={v1}/completions,tokenizer={checkpoint},max_length=1024")
    assert served == run("hf", f"pretrained={checkpoint},dtype=float32,max_length=1024") and served


def test_chat_completions(v1: str) -> None:
    from lm_eval.models.api_models import JsonChatStr
    from lm_eval.models.openai_completions import LocalChatCompletion

    model = LocalChatCompletion(model=CHAT, base_url=f"{v1}/chat/completions")
    prompt = JsonChatStr(json.dumps([{"role": "user", "content": "Hello"}]))
    (text,) = model.generate_until(asked("generate_until", [(prompt, {"until": ["\n\n"], "max_gen_toks": 20})]))
    assert text
