"""`brolly serve` as a process of its own, and `ps`, `load` and `unload` that talk to it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import IO, Any
from urllib.request import Request, urlopen

import pytest

from brolly.cli import main, parsed
from brolly.commands import serve
from brolly.commands.ps import table
from brolly.errors import OptionError
from brolly.serve.settings import Settings

KEY = "a-key-of-sixteen-letters-or-more"
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "BROLLY_HOST": "", "BROLLY_API_KEY": ""}


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "brolly", "serve", "--port", "0", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)


def read_page(process: subprocess.Popen[str]) -> str:
    """What it prints at the start, up to the last line."""
    lines: list[str] = []
    output: IO[str] = process.stdout  # type: ignore[assignment]
    for line in output:
        lines.append(line)
        if "in a browser" in line:
            return "".join(lines)
    raise AssertionError(f"it ended: {''.join(lines)}{process.stderr.read()}")  # type: ignore[union-attr]


def url_of(page: str) -> str:
    found = re.search(r"^at +(http://\S+)", page, re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def running() -> Iterator[str]:
    """The URL of a server with two models, one of them pinned; it must end well."""
    process = start("mini-llm", "mini-embed", "--alias", "gpt-4o=mini-llm", "--pin", "mini-embed", "--keep-alive", "5m")
    try:
        page = read_page(process)
        yield url_of(page)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server of the environment; and loggers, which `serve` configures, as they were."""
    for name in ("BROLLY_HOST", "BROLLY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("brolly", "uvicorn"):
        logger = logging.getLogger(name)
        for part in ("handlers", "propagate", "level"):
            monkeypatch.setattr(logger, part, getattr(logger, part))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_start_tells_what_is_served_where_and_three_commands() -> None:
    process = start("mini-llm", "mini-whisper", "--alias", "gpt-4o=mini-llm", "--memory", "2GB")
    try:
        page = read_page(process)
        url = url_of(page)
        assert re.search(r"^mini-llm \(gpt-4o\) +llm +5\.4M +generate, chat, score$", page, re.MULTILINE)
        assert re.search(r"^mini-whisper +speech +2\.24M +transcribe$", page, re.MULTILINE)
        assert "2.00 GB for models on cpu" in page and page.count(url) >= 4
        command = re.search(r"^try +(curl .*)$", page, re.MULTILINE)
        assert command
        found = subprocess.run(command[1], shell=True, capture_output=True, text=True, timeout=60)
        assert json.loads(found.stdout)["choices"][0]["message"]["role"] == "assistant"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_ps_load_and_unload_tell_what_they_did(running: str, capsys: pytest.CaptureFixture[str]) -> None:
    while "mini-embed  loaded" not in said(capsys, "ps", "--url", running)[1]:  # pinned, so it comes by itself
        time.sleep(0.05)
    code, out, _ = said(capsys, "load", "GPT-4o", "--url", running, "--keep-alive", "1h")
    assert code == 0 and re.match(r"mini-llm is in memory: \d+ MB on cpu, bfloat16|float32", out)
    code, out, _ = said(capsys, "ps", "--url", running)
    assert re.search(r"^mini-llm +loaded +\d+ MB +cpu \w+ +nobody +in 60 min$", out, re.MULTILINE)
    assert re.search(r"^mini-embed +loaded .* for ever \(pinned\)$", out, re.MULTILINE)
    code, out, _ = said(capsys, "unload", "mini-llm", "--url", running)
    assert (code, out) == (0, "mini-llm is not in memory any more.\n")
    code, out, _ = said(capsys, "ps", "--json", "--url", running)
    assert [m["name"] for m in json.loads(out)["models"]] == ["mini-embed"]


def test_the_environment_says_where_the_server_is(
    running: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROLLY_HOST", running.removeprefix("http://"))
    assert said(capsys, "ps")[0] == 0


def test_an_unknown_model_is_a_sentence(running: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "load", "mini-lmm", "--url", running)
    assert code == 2 and err.startswith("brolly: the model 'mini-lmm' is not served here; did you mean mini-llm")


def test_no_server_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        code, _, err = said(capsys, "ps", "--url", url)
    assert code == 2 and "no server answers at" in err and "brolly serve" in err and err.count("\n") == 1


@pytest.mark.parametrize("url", ["http://[", "nonsense://x", "http://127.0.0.1:99999"])
def test_a_wrong_address_is_a_sentence(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "ps", "--url", url)
    assert code == 2 and err.count("\n") == 1


def test_a_port_that_is_taken_is_one_sentence(running: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "serve", "mini-llm", "--port", running.rpartition(":")[2])
    assert code == 2 and err.count("\n") == 1 and "in use" in err.lower()


@pytest.mark.parametrize(
    "words",
    [
        ["nowhere/at-all/really"],
        ["mini-llm", "--alias", "x=nobody"],
        ["mini-llm", "--pin", "nobody"],
        ["mini-llm", "--adapter", "x=/nowhere"],
        ["mini-llm", "--host", "256.1.1.1"],
        ["mini-llm", "--api-key-file", "/nowhere"],
        ["mini-llm", "--alias", "a=mini-llm", "--alias", "a=mini-embed"],
    ],
)
def test_wrong_flags_are_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "serve", "--port", "0", *words)
    assert code == 2 and err.splitlines()[-1].startswith("brolly: ") and "Traceback" not in err


@pytest.mark.parametrize("words", [["--device", "tpu"], ["--dtype", "int3"]])
def test_a_device_or_a_dtype_that_is_not_here_ends_the_start(words: list[str]) -> None:
    process = start("mini-llm", *words)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 2 and out == ""
    assert err.splitlines()[-1].startswith(f"brolly: {words[0][2:]} '{words[1]}'")


def test_keys_are_asked_for_and_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "keys").write_text(f"{KEY} admin\n")
    process = start("mini-embed", "--api-key-file", str(tmp_path / "keys"), "--log", "json")
    try:
        url = url_of(read_page(process))
        code, _, err = said(capsys, "ps", "--url", url)
        assert code == 2 and "No API key was given" in err
        assert said(capsys, "ps", "--url", url, "--api-key", KEY)[0] == 0
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert all(json.loads(line) for line in errors.splitlines()) and KEY not in errors
    finally:
        process.kill()
        process.communicate()


def test_an_answer_that_was_begun_is_finished_after_sigterm() -> None:
    process = start("mini-llm")
    try:
        url = url_of(read_page(process))
        body = {"model": "mini-llm", "prompt": "Once", "max_tokens": 200, "stream": True, "ignore_eos": True}
        body["temperature"] = 0
        asked = Request(f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urlopen(asked, timeout=60) as answer:
            first = answer.readline()
            process.send_signal(signal.SIGTERM)
            rest = answer.read()
        assert first.startswith(b"data: {") and rest.rstrip().endswith(b"data: [DONE]")
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("16GB", 16 * 10**9), ("1.5 GiB", 3 * 2**29), ("512m", 512 * 10**6), ("1e9", 10**9)]
)
def test_sizes_are_read(text: str, n_bytes: int) -> None:
    assert serve.size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "12XB", "1e99", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        serve.size(text)


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("-1", -1), ("90", 90), ("1.5h", 5400), ("0", 0)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert serve.duration(text) == seconds


def test_every_setting_has_a_flag(tmp_path: Path) -> None:
    words = (
        "serve m --alias a=m --pin m --adapter m:x=f --host h --port 1 --memory 1GB --keep-alive 1m --device cpu "
        "--dtype float32 --cors o --allow-host n --open-metrics --otel --max-body 1MB --max-upload 1MB --timeout 1m "
        "--connections 5 --waiting 5 --fetch h --log json --log-prompts --store s --shutdown-time 5 --room-time 5 "
        "--body-time 5 --store-size 1MB --files-size 1MB --store-days 5 --no-prefix-cache --strict --max-cost 5 "
        "--price m=1,2 --vendor-rate 60 --vendor-concurrency 5 --api-key-file"
    )
    (tmp_path / "keys").write_text(f"{KEY}\n")
    given = serve.settings_of(parsed([*words.split(), str(tmp_path / "keys")]))
    assert not [f.name for f in fields(Settings) if getattr(given, f.name) == getattr(Settings(), f.name)]
    assert given.adapters == {"m:x": "f"} and given.cors == ("o",) and given.api_keys == ((KEY, "user"),)
    assert serve.settings_of(parsed(["serve"])) == Settings()


def test_models_may_stand_before_and_behind_the_flags() -> None:
    assert parsed(["serve", "a", "--port", "1", "b", "c"]).models == ["a", "b", "c"]


def test_one_name_with_two_meanings_is_refused() -> None:
    with pytest.raises(OptionError):
        serve.once([("a", "x"), ("a", "y")])


def test_ps_says_until_when_in_words() -> None:
    row = {
        "name": "m", "state": "loaded", "bytes": 2 * 10**9, "device": "cpu", "dtype": "bfloat16", "uses": 0,
        "pinned": False, "until": 100.0,
    }  # fmt: skip
    found = {"models": [], "failed": [], "used": 0, "memory": 10**10, "process": 10**9}

    def last(**changes: Any) -> str:
        return table(found | {"models": [row | changes]}, now=40.0).splitlines()[1]

    assert last().endswith("in 60 s") and last(until=10_000.0).endswith("in 3 h")
    assert last(until=None).endswith("for ever") and last(until=None, uses=1).endswith("1 request  in use")
    assert "No model is in memory" in table(found, 0.0)
