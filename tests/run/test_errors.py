"""What goes wrong is told in one clear sentence on standard error, with exit code 2 and no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from brolly.cli import main
from tests.run.checkpoints import CONTEXT, write_reciter, write_tokenizer
from tests.run.terminal import brolly


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def sentence(capsys: Any, *args: str | Path) -> str:
    """The one line that a failing command writes; nothing else is written anywhere."""
    try:
        code = main([*map(str, args)])
    except SystemExit as end:  # argparse's way
        code = end.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert err.startswith("brolly: ") and err.endswith((".\n", ")\n")) and err.count("\n") == 1
    assert "Traceback" not in err and "unexpected" not in err
    return err


# Checkpoints that are none -------------------------------------------------------------------------------------------


def config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def notes(folder: Path) -> Path:
    (folder / "notes.txt").write_text("Buy milk.")
    return folder / "notes.txt"


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def no_weights(folder: Path) -> Path:
    write_tokenizer(folder)
    config(folder, model_type="gpt2")
    return folder


def blip(folder: Path) -> Path:
    """Two towers and their projections, of a kind that brolly tells and does not run."""
    names = [
        "text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.0.self_attn.q_proj.weight",
        "vision_model.embeddings.patch_embedding.weight", "text_projection.weight", "visual_projection.weight",
    ]  # fmt: skip
    save_file(
        {name: torch.zeros(8, 8) for name in names} | {"logit_scale": torch.zeros(())}, folder / "model.safetensors"
    )
    config(folder, model_type="blip", architectures=["BlipModel"], projection_dim=8)
    write_tokenizer(folder)
    return folder


def unknown(folder: Path) -> Path:
    save_file({"weight": torch.zeros(4, 4)}, folder / "model.safetensors")
    config(folder, model_type="hyena-of-mars")
    return folder


def no_config(folder: Path) -> Path:
    write_reciter(folder, "abc")
    (folder / "config.json").unlink()
    return folder


def no_tokenizer(folder: Path) -> Path:
    write_reciter(folder, "abc")
    (folder / "tokenizer.json").unlink()
    return folder


def with_text(name: str, text: str) -> Callable[[Path], Path]:
    """Makes a sound checkpoint of which one file holds something else."""

    def make(folder: Path) -> Path:
        write_reciter(folder, "abc")
        (folder / name).write_text(text)
        return folder

    return make


broken_tokenizer = with_text("tokenizer.json", '{"model": 5}')
broken_config = with_text("config.json", '{"model_type": "gpt2", ')
broken_generation_config = with_text("generation_config.json", "[1]")
advice_out_of_range = with_text("generation_config.json", '{"do_sample": true, "temperature": -1.0}')


def cut_off(folder: Path) -> Path:
    write_reciter(folder, "abc")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def missing_tensor(folder: Path) -> Path:
    write_reciter(folder, "abc")
    tensors(folder, lambda state: state.pop("ln_f.bias"))
    return folder


def needless_tensor(folder: Path) -> Path:
    write_reciter(folder, "abc")
    tensors(folder, lambda state: state.update({"h.7.attn.c_attn.weight": torch.zeros(2, 2)}))
    return folder


def other_shape(folder: Path) -> Path:
    write_reciter(folder, "abc")
    config(folder, n_inner=64)
    return folder


def other_depth(folder: Path) -> Path:
    write_reciter(folder, "abc")
    config(folder, n_layer=3)
    return folder


def no_numbers(folder: Path) -> Path:
    write_reciter(folder, "abc")
    tensors(folder, lambda state: state["lm_head.weight"].fill_(torch.nan))
    return folder


MODELS: list[tuple[Callable[[Path], Path], str]] = [
    (notes, "notes.txt is not a model; expected a model: a folder with weights"),
    (lambda folder: folder / "gone.safetensors", "gone.safetensors does not exist; expected a folder or a file"),
    (lambda folder: folder / "gone" / "away", "does not exist; expected a folder or a file, or a hub name"),
    (empty, "empty is empty; expected a model"),
    (no_weights, "config.json, tokenizer.json, tokenizer_config.json, and no weights; expected a model"),
    (blip, "is a 'blip' model, which brolly does not know; it knows"),
    (unknown, "is a 'hyena-of-mars' model, which brolly does not know; it knows"),
    (no_config, "has tensors and no config.json or params.json beside them"),
    (no_tokenizer, "holds no tokenizer; expected tokenizer.json"),
    (broken_tokenizer, "tokenizer.json is not a tokenizer that can be read"),
    (broken_config, "config.json"),
    (broken_generation_config, "generation_config.json"),
    (advice_out_of_range, "generation_config.json: temperature is -1.0; it must be a number between 0 and 100"),
    (cut_off, "model.safetensors"),
    (
        missing_tensor,
        "does not fit a GPT-2 of its config: the network lacks ln_f.bias; the file has no use for nothing",
    ),
    (needless_tensor, "the network lacks nothing; the file has no use for h.7.attn.c_attn.weight"),
    (other_shape, "model.safetensors: h.0.mlp.c_fc.bias is (4,); its config makes it (64,)."),
    (other_depth, "does not fit a GPT-2 of its config: the network lacks h.1."),
    (no_numbers, "the model computed no number for any token"),
]


@pytest.mark.parametrize(("make", "message"), MODELS, ids=lambda x: getattr(x, "__name__", ""))
def test_what_is_no_model(tmp_path: Path, capsys: Any, make: Callable[[Path], Path], message: str) -> None:
    assert message in sentence(capsys, "run", make(tmp_path), "Hello", "--max-tokens", "2", "--device", "cpu")


@pytest.mark.parametrize("make", [blip, unknown, empty, no_weights, no_tokenizer], ids=lambda f: f.__name__)
def test_chat_tells_the_same(tmp_path: Path, capsys: Any, make: Callable[[Path], Path]) -> None:
    assert str(tmp_path) in sentence(capsys, "chat", make(tmp_path), "--device", "cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("notes.txt", "notes.txt does not exist; expected a folder or a file"),
        ("./nowhere", "./nowhere does not exist"),
        ("~/no/such/folder", "does not exist"),
        ("org/name", "org/name is not in the cache"),
        ("", "the model's name is empty"),
        ("  ", "the model's name is empty"),
        ("two words", "'two words' is neither a path here nor a hub name"),
        ("../../etc/passwd.gguf", "does not exist"),
    ],
)
def test_names_that_lead_nowhere(tmp_path: Path, capsys: Any, monkeypatch: Any, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in sentence(capsys, "run", name, "Hello")


# Options and inputs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reciter")
    write_reciter(path, "abc")
    return path


OPTIONS = [
    (["--max-tokens", "0"], "max_tokens is 0; it must be a number at least 1."),
    (["--max-tokens", "-5"], "max_tokens is -5; it must be a number at least 1."),
    (["--max-tokens", "ten"], "argument --max-tokens: invalid int value: 'ten'"),
    (["--max-tokens", "1.5"], "argument --max-tokens: invalid int value: '1.5'"),
    (["--temperature", "-1"], "temperature is -1.0; it must be a number between 0 and 100."),
    (["--temperature", "nan"], "temperature is nan; it must be a number"),
    (["--temperature", "inf"], "temperature is inf; it must be a number"),
    (["--temperature", "warm"], "invalid float value: 'warm'"),
    (["--top-p", "1.1"], "top_p is 1.1; it must be a number between 0 and 1."),
    (["--top-k", "-1"], "top_k is -1; it must be a number at least 0."),
    (["--min-p", "2"], "min_p is 2.0; it must be a number between 0 and 1."),
    (["--repetition-penalty", "0"], "repetition_penalty is 0.0; it must be a number at least 0.01."),
    (["--presence-penalty", "3"], "presence_penalty is 3.0; it must be a number between -2 and 2."),
    (["--frequency-penalty", "-3"], "frequency_penalty is -3.0; it must be a number between -2 and 2."),
    (["--logprobs", "101"], "logprobs is 101; it must be a number between 0 and 100."),
    (["--seed", "x"], "invalid int value: 'x'"),
    (["--stop", ""], "stop holds an empty string"),
    (["--logit-bias", "nope"], """'nope' is not JSON like {"50256": -100}"""),
    (["--logit-bias", "[1]"], "'[1]' is not JSON like"),
    (["--logit-bias", '{"a": 1}'], "is not JSON like"),
    (["--logit-bias", '{"1": "x"}'], "is not JSON like"),
    (["--logit-bias", '{"1": NaN}'], "logit_bias is {1: nan}; it must map token ids to finite numbers."),
    (["--logit-bias", '{"99999": 1}'], "logit_bias names token 99999; this vocabulary has 0 to"),
    (["--dtype", "float33"], "dtype 'float33' is not known; expected float32, bfloat16, float16."),
    (["--device", "warp"], "device 'warp' is not available here"),
    (["--device", "cuda:99"], "device 'cuda:99' is not available here"),
    (["--colour", "red"], "unrecognized arguments: --colour red; see brolly run --help"),
    (["another", "word"], "unrecognized arguments: another word"),
    (["-s"], "argument -s/--system: expected one argument"),
]


@pytest.mark.parametrize(("args", "message"), OPTIONS, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_options_out_of_their_range(folder: Path, capsys: Any, args: list[str], message: str) -> None:
    assert message in sentence(capsys, "run", folder, "Hello", *args)


@pytest.mark.parametrize("args", [["--max-tokens", "0"], ["--logit-bias", "x"], ["--temperature", "nan"]], ids=" ".join)
def test_a_wrong_option_is_told_before_a_model_is_looked_for(capsys: Any, args: list[str]) -> None:
    assert "nowhere" not in sentence(capsys, "run", "./nowhere", "Hello", *args)


@pytest.mark.parametrize("verb", ["run", "chat"])
def test_a_prompt_over_the_context(folder: Path, capsys: Any, monkeypatch: Any, verb: str) -> None:
    message = sentence(capsys, "run", folder, "x" * 1000, *(["-s", "Be brief."] if verb == "chat" else []))
    assert f"tokens; this model holds {CONTEXT}, answer included. Shorten it." in message


def test_nothing_to_continue(folder: Path, capsys: Any) -> None:
    assert "there is nothing to continue; give a prompt" in sentence(capsys, "run", folder)


def test_an_instruction_for_a_base_model(tmp_path: Path, capsys: Any) -> None:
    write_reciter(tmp_path, "abc", template=None)
    message = sentence(capsys, "run", tmp_path, "Hi", "-s", "Be brief.", "--device", "cpu")
    assert "comes without a chat template: this is a base model" in message


@pytest.mark.parametrize("args", [[], ["sing"], ["run"], ["chat"], ["pretrain"], ["pretrain", "gone.toml"]], ids=str)
def test_commands_that_are_none_or_incomplete(capsys: Any, args: list[str]) -> None:
    sentence(capsys, *args)


# As a program --------------------------------------------------------------------------------------------------------


def test_the_program_ends_with_2_and_debug_shows_where(tmp_path: Path) -> None:
    path = blip(tmp_path)
    plain = brolly("chat", path)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith(f"brolly: {path} is a 'blip' model") and plain.stderr.count("\n") == 1
    shown = brolly("chat", path, "--debug")
    assert shown.returncode == 1
    assert shown.stderr.startswith("Traceback") and "brolly.errors.UnknownModel" in shown.stderr


def test_our_own_fault_is_1_and_says_how_to_see_more(folder: Path, capsys: Any, monkeypatch: Any) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("brolly.commands.run.open_model", broken)
    assert main(["run", str(folder), "x"]) == 1
    expected = "brolly: unexpected ZeroDivisionError: a bug of ours (--debug shows where)\n"
    assert capsys.readouterr().err == expected
    with pytest.raises(ZeroDivisionError):
        main(["run", str(folder), "x", "--debug"])


def test_a_second_interrupt_shows_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    import gc
    import signal

    from brolly import cli

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli, "main", lambda: 130)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    try:
        assert cli.program() == 130 and signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
