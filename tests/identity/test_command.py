"""`brolly identify` as a stranger types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brolly.cli import main
from tests.identity.hollow import hollow_files, llama_shapes, write_hollow
from tests.identity.samples import FILES, OPAQUE, lightning, safetensors

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 5e5, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = write_hollow(tmp_path / "m", hollow_files(llama_shapes(4096, 32, 1024, 14336, 128256), 2, CONFIG))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    return folder


def said(capsys: Any, *arguments: object) -> tuple[int, str, str]:
    code = main(["identify", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_card_fits_eighty_columns(capsys: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = said(capsys, model)
    assert code == 0 and "8.03 B parameters" in out and "\033" not in out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert len(out.splitlines()) <= 45, "one screen, read in ten seconds"


def test_colours_only_where_wanted(capsys: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\033[1" in said(capsys, model)[1]


def test_json_is_one_line_and_why_adds_evidence(capsys: Any, model: Path) -> None:
    code, out, _ = said(capsys, model, "--json")
    card = json.loads(out)
    assert code == 0 and out.count("\n") == 1 and "why" not in card
    assert (card["family"], card["kind"], card["is_llm"]) == ("Llama", "llm", True)
    assert card["parameters"] | {"components": {}} == {
        "total": 8030261248, "activated": 8030261248, "activated_without_embeddings": 7504924672, "exact": True,
        "source": "tensors", "components": {},
    }  # fmt: skip
    assert (card["context_length"], card["kv_bytes_per_token"], card["size_class"]) == (131072, 131072, "small")
    why = json.loads(said(capsys, model, "--json", "--why")[1])["why"]
    assert {"kind", "parameters.total"} <= {row["line"] for row in why}
    text = said(capsys, model, "--why")[1]
    assert "config.json" in text and "inputs:" in text


@pytest.mark.parametrize(
    ("condition", "holds"), [("non-commercial", True), ("unsafe", False), ("systemic", False), ("not-open", True)]
)
def test_a_pipeline_can_fail_on_a_condition(capsys: Any, model: Path, condition: str, holds: bool) -> None:
    code, out, err = said(capsys, model, "--fail-on", condition)
    assert code == (3 if holds else 0) and out
    assert (f"{condition}: " in err) == holds


def test_stated_training_decides_the_rules(capsys: Any, model: Path) -> None:
    code, out, err = said(capsys, model, "--tokens", "1e15", "--json", "--fail-on", "systemic,gpai")
    card = json.loads(out)
    assert code == 3 and card["training"]["tokens"] == 1e15 and "systemic: " in err
    assert {r["id"]: r["outcome"] for r in card["rules"]}["eu-systemic"] == "meets"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("m", "--fail-on", "rain"), "'rain' is no condition; there are unsafe"),
        (("m", "--tokens", "many"), "'many' is no number like 15T"),
        (("m", "--sbom", "xml"), "invalid choice"),
        ((), "nothing to identify"),
        (("./none",), "does not exist"),
        (("no such model at all",), "not in the table of known models"),
        (("",), "the model's name is empty"),
    ],
)
def test_mistakes_are_told_in_a_sentence(capsys: Any, arguments: tuple[str, ...], message: str) -> None:
    try:
        code = main(["identify", *arguments])
    except SystemExit as ended:
        code = int(str(ended.code))
    err = capsys.readouterr().err
    assert code == 2 and message in err and "Traceback" not in err


def test_a_name_is_answered_from_the_table_and_says_so(capsys: Any) -> None:
    code, out, _ = said(capsys, "GPT-4o", "--json")
    card = json.loads(out)
    assert code == 0 and card["from"] == "table" and card["path"] is None
    assert (card["kind"], card["is_llm"], card["parameters"]["total"]) == ("lmm", False, None)
    assert card["sources"]
    assert "from the table; no files seen" in said(capsys, "GPT-4o")[1]


def test_a_page_and_documents_are_written(capsys: Any, model: Path, tmp_path: Path) -> None:
    code, out, err = said(capsys, model, "--html", tmp_path / "card.html")
    assert code == 0 and out == "" and "is written" in err
    assert (tmp_path / "card.html").read_text().startswith("<!doctype html>")
    for arguments, mark in (
        (("--sbom", "cyclonedx"), '"bomFormat": "CycloneDX"'),
        (("--sbom", "spdx", "--hash"), '"ai_AIPackage"'),
        (("--sarif",), '"version": "2.1.0"'),
        (("--form", "gpai"), "model documentation form"),
    ):
        target = tmp_path / "small"
        if not target.exists():
            target.mkdir()
            safetensors(target / "model.safetensors")
        code, out, _ = said(capsys, target, *arguments)
        assert code == 0 and mark.lower() in out.lower() and json.loads(out)


def test_nothing_can_be_written_where_no_folder_is(capsys: Any, model: Path, tmp_path: Path) -> None:
    code, _, err = said(capsys, model, "--html", tmp_path / "none" / "card.html")
    assert code == 2 and "give a file in a folder that exists" in err


def test_trees_and_comparisons(capsys: Any, model: Path, tmp_path: Path) -> None:
    code, out, _ = said(capsys, "--tree", tmp_path, "--json")
    assert code == 0 and [card["family"] for card in json.loads(out)] == ["Llama"]
    assert "1 models" in said(capsys, "--tree", tmp_path)[1]
    code, out, _ = said(capsys, model, "--compare", model, "--json")
    assert code == 0 and json.loads(out)["relation"] in ("identical", "cannot-tell")
    assert "B to A" in said(capsys, model, "--compare", model)[1]


def test_what_brolly_runs_is_what_its_card_says(tmp_path: Path) -> None:
    import brolly
    from brolly.errors import BrollyError

    mini = brolly.identify("mini-llm")
    assert mini.verbs == ("generate", "chat", "score") == brolly.load("mini-llm").card.verbs
    lightning(tmp_path / "last.ckpt")
    card = brolly.identify(tmp_path / "last.ckpt")
    assert card.verbs == ()
    with pytest.raises(BrollyError) as refused:
        brolly.load(tmp_path / "last.ckpt")
    assert str(refused.value) == card.verbs_why


@pytest.mark.parametrize("sample", FILES)
def test_clean_files_of_every_format_have_no_findings(tmp_path: Path, capsys: Any, sample: str) -> None:
    FILES[sample](tmp_path / sample)
    code, out, _ = said(capsys, tmp_path / sample, "--json", "--fail-on", "unsafe,findings")
    card = json.loads(out)
    assert card["findings"] == [] and code == 0
    assert card["parameters"]["total"] or sample in OPAQUE, "and their parameters are counted"


def test_identifying_imports_nothing_heavy(model: Path) -> None:
    code = (
        "import sys\nfrom brolly.cli import main\nmain(['identify', sys.argv[1], '--json'])\n"
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'huggingface_hub', 'httpx', 'asyncio', 'tqdm'}))"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, env=env, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"
