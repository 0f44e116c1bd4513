"""`brolly eval` from the command line, and the harness that it speaks to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import brolly
from brolly.cli import main

ROWS = [{"prompt": "Once upon a time", "completion": f" there was a {x}."} for x in ("fox", "girl", "tree")]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, {"prompt": "x"}]))
    return path


def test_eval_prints_a_table_and_leaves_a_report(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "report"
    assert main(["eval", "mini-llm", str(data), "--out", str(out), "--max-tokens", "3"]) == 0
    said = capsys.readouterr().out
    assert "perplexity" in said and "F1" in said and "line 4: has no 'completion'" in said
    assert {path.name for path in out.iterdir()} == {"rows.jsonl", "settings.json", "report.json", "plot.svg"}
    assert len((out / "rows.jsonl").read_text().splitlines()) == 3
    assert main(["eval", "mini-llm", str(data), "--out", str(out), "--max-tokens", "3"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(["eval", "mini-llm", str(data), "--out", str(out), "--max-tokens", "3", "--resume"]) == 0
    assert capsys.readouterr().out == said


def test_eval_compares(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "report"
    given = ["eval", "mini-llm", str(data), "--no-generate", "--compare", "mini-llm", "--out", str(out)]
    assert main([*given, "--json", "--limit", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["value"] for one in found["differences"]] == [0, 0] and found["b"]["rows"] == 2
    assert (out / "compared-rows.jsonl").exists() and json.loads((out / "report.json").read_text()) == found
    assert main(given) == 2 and "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "there is no data"),
        (["DATA", "--resume"], "name it with --out"),
        (["DATA", "--shape", "tales"], "'tales' is no shape"),
        (["DATA", "--columns", "prompt=text"], "no column 'text'"),
        (["DATA", "--harness", "x"], "brings data of its own"),
        (["DATA", "--language", "en"], "takes no language"),
        (["--harness", "none.yaml"], "no task file 'none.yaml'"),
        (["DATA", "--temperature", "-1"], "temperature is -1"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(words: list[str], why: str, data: Path, capsys: pytest.CaptureFixture) -> None:
    if "none.yaml" in words:
        pytest.importorskip("lm_eval")
    assert main(["eval", "mini-llm", *[str(data) if word == "DATA" else word for word in words]]) == 2
    assert why in capsys.readouterr().err


def test_what_was_trained_on_is_found_in_what_is_measured(data: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["eval", "mini-llm", str(data), "--no-generate", "--json", "--trained-on", str(data)]) == 0
    assert "3 of 3 held rows (100.0%) share" in json.loads(capsys.readouterr().out)["notes"][-1]


def test_columns_are_read_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q,a\nOnce upon, a time\n")
    given = ["eval", "mini-llm", str(path), "--columns", "prompt=q,completion=a", "--no-generate", "--json"]
    assert main(given) == 0 and json.loads(capsys.readouterr().out)["measures"][0]["n"] == 1
    with pytest.raises(SystemExit):
        main([*given, "--columns", "prompt"])
    assert "no role=column" in capsys.readouterr().err


def test_the_harness_is_answered_as_by_its_own_transformers(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from brolly import hub
    from brolly.measure.harness import offered

    model = brolly.load("mini-llm", device="cpu", dtype="float32")
    ours = offered(model)
    theirs = HFLM(str(hub.resolve("mini-llm")), device="cpu", dtype="float32", batch_size=1, max_length=511)

    def asked(kind: str, *arguments: Any) -> list[Any]:
        return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]

    pairs = [("The fox ran", " home."), ("Once upon a time ", "there was"), ("", "Once"), ("the " * 600, "end of it")]
    texts = [("The dog ran home.",), ("One day a fox met a dog. " * 90,)]
    writes = [
        ("Once upon a time", {"until": ["."], "max_gen_toks": 12}),
        ("The fox", {"until": ["\n"], "max_gen_toks": 9}),
    ]
    for (a, best), (b, other) in zip(
        ours.loglikelihood(asked("loglikelihood", *pairs), disable_tqdm=True),
        theirs.loglikelihood(asked("loglikelihood", *pairs), disable_tqdm=True), strict=True,
    ):  # fmt: skip
        assert a == pytest.approx(b, rel=1e-4) and best == other
    rolled = [
        one.loglikelihood_rolling(asked("loglikelihood_rolling", *texts), disable_tqdm=True) for one in (ours, theirs)
    ]
    assert rolled[0] == pytest.approx(rolled[1], rel=1e-4)
    written = [one.generate_until(asked("generate_until", *writes), disable_tqdm=True) for one in (ours, theirs)]
    assert written[0] == written[1] and all(written[0])


def test_tasks_of_the_harness_run_by_its_own_files(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"q": "Once upon a", "label": i % 2}) + "\n" for i in range(4))
    )
    (tmp_path / "mine.yaml").write_text(
        "task: brolly_mine\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: "
        f'{tmp_path}/mine.jsonl\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: "{{{{q}}}}"\n'
        'doc_to_choice: ["time", "piano"]\ndoc_to_target: "{{label}}"\nmetric_list:\n  - metric: acc\n'
    )
    assert main(["eval", "mini-llm", "--harness", str(tmp_path / "mine.yaml")]) == 0
    said = capsys.readouterr().out
    assert "brolly_mine" in said and "0.5000" in said
