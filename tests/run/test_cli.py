"""The command line: what `run` prints, streams and reads, what helps and versions say, and pipes that close."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

import brolly as package
from brolly.cli import main
from brolly.verbs import GenerateOptions
from tests.run.checkpoints import CONTEXT, END, START, tokenizer, write_llama, write_reciter
from tests.run.terminal import COMMAND, LIMIT, brolly, environment

VERBS = ["run", "chat", "pull", "list", "remove", "pretrain", "doctor"]
SAYS = "The größte fox 🦊 said:\ngood morning. "
GREEDY = ["--temperature", "0", "--device", "cpu", "--dtype", "float32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reciter")
    write_reciter(path, SAYS)
    return path


def text_after(prompt: str, n: int) -> str:
    backend = tokenizer()
    says, start = backend.encode(SAYS).ids, len(backend.encode(prompt).ids)
    return backend.decode([says[(start + i) % len(says)] for i in range(n)])


def run(capsys: Any, *args: str | Path) -> str:
    """What a run that succeeds writes to standard output."""
    assert main(["run", *GREEDY, *map(str, args)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


# As a program --------------------------------------------------------------------------------------------------------


def test_json_is_one_object(folder: Path) -> None:
    result = brolly("run", folder, "fox", *GREEDY, "--max-tokens", 20, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    answer = json.loads(result.stdout)
    assert answer.keys() == {"text", "tokens", "finish_reason", "usage"}
    assert (answer["text"], answer["finish_reason"]) == (text_after("fox", 20), "length")
    assert answer["usage"] == {
        "prompt_tokens": 2, "completion_tokens": 20, "total_tokens": 22, "cached_tokens": 0, "reasoning_tokens": 0,
        "written_tokens": 0,
    }  # fmt: skip


def test_text_reaches_a_pipe_as_it_is_written(tmp_path: Path) -> None:
    """The first words arrive while the program is still writing."""
    pytest.importorskip("transformers")
    write_llama(tmp_path, max_position_embeddings=2**20)
    bias = json.dumps({str(tokenizer().token_to_id(END)): -1000})
    command = [*COMMAND, "run", str(tmp_path), "Once", *GREEDY, "--logit-bias", bias]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert len(process.stdout.read(8)) == 8
        assert process.poll() is None
        process.stdout.close()  # as `| head -c 8` does
        assert process.wait(LIMIT) == 0


@pytest.mark.parametrize("args", [["run", "{}", "x", "--json"], ["run", "{}", "x"], ["doctor"], ["--help"]], ids=str)
def test_a_pipe_that_nobody_reads_ends_quietly(folder: Path, args: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    command = [*COMMAND, *(arg.format(folder) for arg in args)]
    result = subprocess.run(
        command, stdout=theirs, stderr=subprocess.PIPE, env=environment(), timeout=LIMIT, check=False
    )
    os.close(theirs)
    assert (result.returncode, result.stderr) == (0, b"")


def test_a_terminal_without_our_letters_shows_others(folder: Path) -> None:
    narrow = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    result = brolly("run", folder, "fox", *GREEDY, "--max-tokens", 30, env=narrow)
    assert result.returncode == 0
    assert result.stdout == text_after("fox", 30).encode("ascii", "replace").decode() + "\n"


@pytest.mark.parametrize("args", [[], *([verb] for verb in VERBS)], ids=str)
def test_help_is_light_and_quick_to_import(args: list[str]) -> None:
    """No verb's help imports torch, and none of the commands that run nothing."""
    code = (
        "import sys\nfrom brolly.cli import main\n"
        f"try:\n    main([*{args!r}, '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print([name for name in ('torch', 'numpy', 'tokenizers', 'huggingface_hub') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=True)
    *lines, heavy = result.stdout.splitlines()
    assert heavy == "[]"
    assert lines[0].startswith(f"usage: brolly {' '.join(args)}".rstrip())
    if not args:
        assert all(any(line.split()[:1] == [verb] for line in lines) for verb in VERBS)


def test_importing_brolly_imports_no_torch() -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import brolly, brolly.verbs, brolly.errors"],
        capture_output=True, text=True, timeout=LIMIT, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "brolly.verbs" in imported
    assert not imported & {"torch", "numpy", "tokenizers", "jinja2", "huggingface_hub", "transformers"}


def test_version() -> None:
    result = brolly("--version")
    assert (result.returncode, result.stdout) == (0, f"brolly {package.__version__}\n")


# In this process -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 9, 33])
def test_run_writes_the_continuation_alone(folder: Path, capsys: Any, n: int) -> None:
    assert run(capsys, folder, "fox", "--max-tokens", str(n)) == text_after("fox", n) + "\n"


def test_options_may_come_before_the_prompt(folder: Path, capsys: Any) -> None:
    assert run(capsys, "--max-tokens", "5", folder, "fox") == text_after("fox", 5) + "\n"
    assert run(capsys, folder, "--max-tokens", "5", "fox") == text_after("fox", 5) + "\n"


def test_a_prompt_may_begin_with_a_dash(folder: Path, capsys: Any) -> None:
    assert run(capsys, "--max-tokens", "5", folder, "--", "-s")[:-1] == text_after("-s", 5)
    assert run(capsys, folder, "--max-tokens", "5", "--", "-s")[:-1] == text_after("-s", 5)


def test_stop_may_be_repeated(folder: Path, capsys: Any) -> None:
    whole = text_after("fox", 40)
    assert run(capsys, folder, "fox", "--stop", "🦊", "--stop", ":\n") == whole.split("🦊")[0] + "\n"


def test_every_option_has_a_flag_and_reaches_the_model(folder: Path, capsys: Any) -> None:
    args = [
        "--max-tokens", "6", "--top-p", "0.5", "--top-k", "3", "--min-p", "0.1", "--repetition-penalty", "1.1",
        "--presence-penalty", "0.5", "--frequency-penalty", "-0.5", "--seed", "3", "--stop", "zzz",
        "--logit-bias", json.dumps({str(tokenizer().token_to_id("z")): 1000}), "--logprobs", "2",
        "--min-tokens", "0", "--no-ignore-eos",
    ]  # fmt: skip
    named = {arg[2:].removeprefix("no-").replace("-", "_") for arg in args if arg.startswith("--")} | {"temperature"}
    named |= {"json_schema", "regex", "choice", "grammar"}  # one at a time: test_guided_cli.py
    named |= {"effort", "thoughts"}  # of chats: tests/remote
    assert named == set(GenerateOptions.__dataclass_fields__)
    assert main(["run", str(folder), "fox", "--json", "--temperature", "0.5", *args]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["finish_reason"], len(answer["tokens"])) == ("", "stop", 3)
    assert [len(detail["top"]) for detail in answer["logprobs"]] == [2, 2, 2]


def test_verbose_says_the_speed_on_standard_error(folder: Path, capsys: Any) -> None:
    assert main(["run", str(folder), "fox", "--max-tokens", "5", "-v", *GREEDY]) == 0
    out, err = capsys.readouterr()
    assert out == text_after("fox", 5) + "\n"
    assert "GPT-2" in err and "float32 on cpu" in err and "5 tokens, " in err


def test_a_prompt_from_standard_input(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("the hen\nsaid"))
    assert run(capsys, folder, "--max-tokens", "8") == text_after("the hen\nsaid", 8) + "\n"


def test_a_prompt_given_leaves_standard_input_unread(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("not for us"))
    assert run(capsys, folder, "fox", "--max-tokens", "8") == text_after("fox", 8) + "\n"
    assert sys.stdin.read() == "not for us"


@pytest.mark.parametrize(
    ("prompt", "piped", "user"), [("Sum up", "notes", "Sum up\n\nnotes"), (None, "notes", "notes"), ("Hi", "", "Hi")]
)
def test_an_instruction_goes_through_the_template(
    folder: Path, capsys: Any, monkeypatch: Any, prompt: str | None, piped: str, user: str
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(piped))
    args = [folder, *([prompt] if prompt else []), "-s", "Be brief.", "--max-tokens", "8"]
    whole = f"{START}system\nBe brief.{END}\n{START}user\n{user}{END}\n{START}assistant\n"
    assert run(capsys, *args) == text_after(whole, 8) + "\n"
    monkeypatch.setattr(sys, "stdin", StringIO(piped))
    answer = json.loads(run(capsys, *args, "--json"))
    assert (answer["text"], answer["usage"]["prompt_tokens"]) == (
        text_after(whole, 8),
        len(tokenizer().encode(whole).ids),
    )


def test_an_empty_prompt_begins_a_text(folder: Path, capsys: Any) -> None:
    assert json.loads(run(capsys, folder, "", "--max-tokens", "4", "--json"))["usage"]["prompt_tokens"] == 1


def test_run_fills_the_context_without_a_limit(folder: Path, capsys: Any) -> None:
    assert json.loads(run(capsys, folder, "fox", "--json"))["usage"]["total_tokens"] == CONTEXT


def test_a_weights_file_runs_as_its_folder_does(folder: Path, capsys: Any) -> None:
    assert run(capsys, folder / "model.safetensors", "fox", "--max-tokens", "5") == text_after("fox", 5) + "\n"


def test_input_that_is_no_text_is_told(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"abc\xff"), encoding="utf-8"))
    assert main(["run", str(folder)]) == 2
    assert capsys.readouterr().err == "brolly: standard input is not text (invalid start byte at byte 3).\n"


def test_an_interrupt_is_130(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("brolly.commands.run.open_model", interrupted)
    assert main(["run", str(folder), "fox"]) == 130
    assert "Traceback" not in capsys.readouterr().err


# Doctor --------------------------------------------------------------------------------------------------------------


def test_doctor_json(tmp_path: Path) -> None:
    result = brolly("doctor", "--json", env={"HF_HUB_CACHE": str(tmp_path / "none" / "yet"), "HF_TOKEN": "hf_secret"})
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report["brolly"]["version"] == package.__version__
    assert report["brolly"]["python"] == sys.version.split()[0]
    assert report["packages"]["torch"] != "not installed"
    assert report["device"]["chosen"] in ("cpu", "mps") or report["device"]["chosen"].startswith("cuda")
    assert "1 threads" in report["device"]["cpu"]
    assert report["cache"]["folder"] == str(tmp_path / "none" / "yet")
    assert report["cache"]["offline"].startswith("yes")
    assert report["cache"]["token"] == "yes" and "hf_secret" not in result.stdout
    assert report["on the cpu"].keys() == {"bfloat16", "float16", "float32"}
    assert report["kernels"]["c"] and report["faster"]["1."]


def test_doctor_prints_what_json_holds_in_straight_columns(capsys: Any) -> None:
    from brolly.doctor import examine

    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    report = examine()
    assert [line for line in lines if not line.startswith(" ")] == list(report)
    rows = [(key, str(value)) for part in report.values() for key, value in part.items()]
    width = max(len(key) for key, _ in rows)
    assert [line[2 : 2 + width].strip() for line in lines if line.startswith(" ")] == [key for key, _ in rows]
    assert any(line.startswith("  torch ") and line[4 + width :] == report["packages"]["torch"] for line in lines)


def test_doctor_counts_the_cached_models(tmp_path: Path, monkeypatch: Any) -> None:
    from brolly.doctor import examine

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"\0" * 20_000_000)
    assert examine()["cache"]["models"].startswith("0.02 GB, ")


def test_doctor_advises_a_compiler_where_there_is_none(tmp_path: Path, monkeypatch: Any) -> None:
    from brolly.doctor import enumerate_advice

    monkeypatch.setenv("PATH", str(tmp_path))
    assert any("C compiler" in text for _, text in enumerate_advice(native=True))
    assert any("BF16" in text for _, text in enumerate_advice(native=False))
