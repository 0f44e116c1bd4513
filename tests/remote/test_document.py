"""docs/closed-models.md: every command and program in it runs as it is printed, against fakes of the vendors."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from PIL import Image

from brolly.cli import main
from tests.remote.fakes import KEY
from tests.remote.fakes.anthropic import FakeAnthropic
from tests.remote.fakes.gemini import FakeGemini
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.test_keys import Memory

PAGE = Path(__file__).parent.parent.parent / "docs" / "closed-models.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if not kind for line in block.splitlines()]
PROGRAMS = [block for kind, block in BLOCKS if kind == "python"]
ELSEWHERE = "https://vllm.example"


@pytest.fixture(scope="module")
def fakes() -> Iterator[dict[str, str]]:
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic, FakeGemini() as gemini, FakeOpenAI() as vllm:
        yield {
            "OPENAI_BASE_URL": f"{openai.url}/v1", "OPENAI_API_KEY": openai.key, "ANTHROPIC_BASE_URL": anthropic.url,
            "ANTHROPIC_API_KEY": KEY, "GEMINI_BASE_URL": f"{gemini.url}/v1", "GEMINI_API_KEY": KEY,
            "BROLLY_KEYS": f"{vllm.url}={vllm.key}", ELSEWHERE: vllm.url, "MY_KEY": openai.key,
        }  # fmt: skip


@pytest.fixture(autouse=True)
def surroundings(fakes: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name, value in fakes.items():
        if name.isupper():
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("brolly.remote.tuning.EVERY", 0.01)
    monkeypatch.chdir(tmp_path)
    turns = [{"role": "user", "content": "1 and 1?"}, {"role": "assistant", "content": "2"}]
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 10)
    (tmp_path / "prompts.jsonl").write_text('"Name a colour."\n')
    (tmp_path / "talk.mp3").write_bytes(b"ID3\x04\x00\x00")
    Image.new("RGB", (8, 8)).save(tmp_path / "fog-1.png")
    before, memory = keyring.get_keyring(), Memory()
    memory.set_password("brolly", "openai", fakes["OPENAI_API_KEY"])
    keyring.set_keyring(memory)
    yield
    keyring.set_keyring(before)


def test_there_are_commands_and_programs() -> None:
    assert len(COMMANDS) > 15 and PROGRAMS


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run_as_printed(
    command: str, fakes: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, bar, after = command.rpartition("|")
    assert not bar or before.strip() == 'printf %s "$MY_KEY"'
    monkeypatch.setattr("sys.stdin", io.StringIO(fakes["MY_KEY"] if bar else ""))
    model = "gpt-4.1"  # what the other fake has
    said = after.replace(f"{ELSEWHERE}/v1#model", f"{fakes[ELSEWHERE]}/v1#{model}").replace(ELSEWHERE, fakes[ELSEWHERE])
    program, *arguments = shlex.split(said.partition("  #")[0])
    assert program == "brolly"
    code = main(arguments)
    out = capsys.readouterr()
    assert (code == 0) is not said.endswith("# an error"), out.err
    for secret in (KEY, fakes["OPENAI_API_KEY"]):
        assert secret not in out.out + out.err


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run_as_printed(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(program, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.strip()


def test_links_of_the_page_lead_somewhere() -> None:
    for name in re.findall(r"`((?:brolly|scripts)/[\w./-]+)`", PAGE.read_text()):
        assert (PAGE.parent.parent / name).exists(), name
