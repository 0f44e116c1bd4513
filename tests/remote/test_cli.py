"""The command line over models that run elsewhere: the model's name is changed, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from brolly.cli import main
from brolly.remote.prices import price_of
from brolly.remote.target import parse
from tests.remote import more
from tests.remote.fakes import KEY
from tests.remote.fakes.anthropic import FakeAnthropic
from tests.remote.fakes.gemini import FakeGemini
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.fakes.server import STALL, Reply, Request, sse
from tests.remote.more import VENDORS, known
from tests.run.terminal import Terminal, brolly, environment

openai = more.fake  # a fixture

EXAMPLES = Path(__file__).parents[2] / "examples"
PICTURE, TEXT, PDF = EXAMPLES / "pictures" / "cat.png", EXAMPLES / "library" / "letter.txt", EXAMPLES / "library" / "regatta.pdf"  # fmt: skip # noqa: E501
SOUND = EXAMPLES / "talk.flac"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key and no cache of the user's."""
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=["openai:gpt-4o-mini", "anthropic:claude-opus-5-5", "gemini:gemini-3-pro"])
def named(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """A model's name, and the fake vendor that has it."""
    vendor = request.param.partition(":")[0].upper()
    with VENDORS[vendor]() as fake:
        known(fake, monkeypatch, vendor)
        yield request.param, fake


def run(capsys: Any, *args: Any, code: int = 0) -> tuple[str, str]:
    """What a command writes, on standard output and beside it; the key is in neither."""
    assert main([str(arg) for arg in args]) == code, capsys.readouterr()
    out, err = capsys.readouterr()
    for vendor in ("OPENAI", "ANTHROPIC", "GEMINI"):
        if secret := os.environ.get(f"{vendor}_API_KEY"):
            assert secret not in out + err
    return out, err


# Starting ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["run", "openai:gpt-4o-mini", "Hi"], ["chat", "openai:gpt-4o-mini"]])
def test_a_model_elsewhere_needs_no_torch(openai: FakeOpenAI, command: list[str]) -> None:
    code = (
        "import sys\nfrom brolly.cli import main\n"
        f"assert main({command!r}) == 0\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'tokenizers', 'jinja2', 'huggingface_hub', 'openai'} & "
        "set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], input="Hi\n", capture_output=True, text=True, timeout=60, env=environment()
    )
    assert found.stdout.splitlines() == ["You said: Hi", *([""] if command[0] == "chat" else []), "[]"], found.stderr


def test_rows_of_a_prompt_need_no_torch(openai: FakeOpenAI) -> None:
    args = ["prompt", "run", str(EXAMPLES / "prompts" / "who.toml"), "--set", "story=Ben ran."]
    code = (
        f"import sys\nfrom brolly.cli import main\nassert main({[*args, '--model', 'openai:gpt-4o-mini']!r}) == 0\n"
        "print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment(), check=True
    )
    assert found.stdout.splitlines() == ["Lily", "False"]


# run -----------------------------------------------------------------------------------------------------------------


def test_run_answers_by_every_vendor(named: tuple[str, Any], capsys: Any) -> None:
    name, fake = named
    assert run(capsys, "run", name, "Hello there.")[0] == "You said: Hello there.\n"
    assert run(capsys, "run", name, "Hello", "-s", "Be brief.", "--effort", "low")[0] == "You said: Hello\n"
    assert len(fake.requests) == 2 and not fake.broken


def test_json_is_json(named: tuple[str, Any], capsys: Any) -> None:
    name, _ = named
    answer = json.loads(run(capsys, "run", name, "Hello there.", "--json", "--thoughts", "--effort", "low")[0])
    assert (answer["text"], answer["finish_reason"]) == ("You said: Hello there.", "stop")
    assert answer["usage"]["total_tokens"] > 5 and "opaque" not in answer


def test_bytes_of_logprobs_are_numbers(openai: FakeOpenAI, capsys: Any) -> None:
    answer = json.loads(run(capsys, "run", "openai:gpt-4o-mini", "Hé", "--json", "--logprobs", "1")[0])
    assert bytes(answer["logprobs"][-1]["bytes"]).decode().strip() == "Hé" and answer["logprobs"][0]["others"]


def test_verbose_tells_tokens_times_and_cost(openai: FakeOpenAI, capsys: Any) -> None:
    _, err = run(capsys, "run", "openai:gpt-5", "Hello there", "-v")
    assert (
        " tokens, " in err
        and "first after 0." in err
        and "2 read" in err
        and "; $0.0000" in err
        and "by prices of 20" in err
    )
    _, err = run(capsys, "run", f"{openai.base}#gpt-4o-mini", "Hi", "-v", code=2)  # no key for this address
    assert "brolly keys set http://127.0.0.1" in err


class Open(FakeOpenAI):
    """A server that asks for no key, such as one's own vLLM."""

    def answer(self, request: Request) -> Reply:
        assert "authorization" not in request.headers
        request.headers["authorization"] = f"Bearer {self.key}"
        return super().answer(request)


def test_a_price_that_nobody_knows_is_told_as_such(capsys: Any) -> None:
    with Open() as fake:
        name = f"{fake.base}#mine"
        assert run(capsys, "run", name, "Hi", "-v")[1].endswith("cost unknown\n")
        run(capsys, "run", name, "Hi", "--max-cost", "1", "--max-tokens", "9", code=2)
        _, err = run(capsys, "run", name, "Hi", "--max-cost", "1", "--max-tokens", "9", "--price", "1,2", "-v")
        assert "; $0.0000" in err and len(fake.requests) == 2


def test_thoughts_go_beside_the_answer(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeAnthropic() as fake:
        known(fake, monkeypatch, "ANTHROPIC")
        out, err = run(capsys, "run", "anthropic:claude-opus-5-5", "Hello", "--thoughts", "--effort", "high")
        assert (out, err) == ("You said: Hello\n", "Let me think.\n\n")


def test_a_limit_of_cost_is_kept(openai: FakeOpenAI, capsys: Any) -> None:
    _, err = run(capsys, "run", "openai:gpt-5", "Hi", "--max-cost", "0.0001", code=2)
    assert "may cost $" in err and "max_cost" in err and not openai.requests
    assert run(capsys, "run", "openai:gpt-5", "Hi", "--max-cost", "0.1", "--max-tokens", "50")[0] == "You said: Hi\n"
    assert run(capsys, "run", "openai:gpt-5", "Hi", "--max-cost", "0.05")[0] == "You said: Hi\n"
    assert openai.requests[-1].json["max_completion_tokens"] == 4500  # what $0.045 pay for
    long, args = " ".join("abcdefghijklmnopqrstuvwxyz"), ["--max-cost", "0.0003", "--price", "0.1,10"]
    out, err = run(capsys, "run", "openai:gpt-5", long, *args)
    assert out.startswith("You said: a b") and err == "brolly: cut at 27 tokens, which --max-cost pays for.\n"


def test_strict_refuses_what_is_otherwise_warned_of(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeAnthropic() as fake:
        known(fake, monkeypatch, "ANTHROPIC")
        out, err = run(capsys, "run", "anthropic:claude-opus-5-5", "Hi", "--seed", "3")
        assert out == "You said: Hi\n" and "seed" in err and "all the same" in err
        _, err = run(capsys, "run", "anthropic:claude-opus-5-5", "Hi", "--seed", "3", "--strict", code=2)
        assert "seed" in err and len(fake.requests) == 1


def test_flags_want_a_model_of_their_kind(openai: FakeOpenAI, capsys: Any) -> None:
    assert (
        "--device is for models on this disk" in run(capsys, "run", "openai:gpt-5", "Hi", "--device", "cpu", code=2)[1]
    )
    _, err = run(capsys, "run", "mini-llm", "Hi", "--max-cost", "1", code=2)
    assert err == "brolly: --max-cost is for models that run elsewhere; mini-llm is on this disk.\n"
    assert "takes no adapter" in run(capsys, "run", "openai:gpt-5", "Hi", "--adapter", "x", code=2)[1]
    assert "has no top_k" in run(capsys, "run", "openai:gpt-5", "Hi", "--top-k", "3", code=2)[1]
    assert not openai.requests


def test_a_wrong_key_is_told_without_it(openai: FakeOpenAI, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-wrong-0123456789")
    _, err = run(capsys, "run", "openai:gpt-5", "Hi", code=2)
    assert "key" in err and "6789" not in err
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "brolly keys set openai" in run(capsys, "run", "openai:gpt-5", "Hi", code=2)[1]


def test_what_is_kept_back_is_told(named: tuple[str, Any], capsys: Any) -> None:
    assert "kept the answer" in run(capsys, "run", named[0], "a forbidden thing")[1]


# Files ---------------------------------------------------------------------------------------------------------------


def test_files_go_along(named: tuple[str, Any], capsys: Any) -> None:
    name, _ = named
    assert run(capsys, "run", name, "What?", "-a", PICTURE, "-a", PDF)[0] == "I see 1 picture and 1 file.\n"
    out, _ = run(capsys, "run", name, "What?", "--attach", TEXT)
    assert out.startswith("You said: letter.txt:\n") and out.endswith("What?\n")


def test_sounds_go_where_they_are_heard(capsys: Any, monkeypatch: pytest.MonkeyPatch, openai: FakeOpenAI) -> None:
    with FakeGemini() as fake:
        known(fake, monkeypatch, "GEMINI")
        assert run(capsys, "run", "gemini:gemini-3-pro", "What?", "-a", SOUND)[0] == "I see 1 sound.\n"
    _, err = run(capsys, "run", "openai:gpt-5", "What?", "-a", SOUND, code=2)
    assert "talk.flac is a sound; openai:gpt-5 reads text, image" in err


def test_a_model_here_reads_texts_and_tells_what_it_does_not(capsys: Any, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("Once upon a time")
    args = ["--max-tokens", "2", "--temperature", "0", "--json", "--device", "cpu"]
    out = json.loads(run(capsys, "run", "mini-llm", "-a", note, "there was", *args)[0])
    same = json.loads(run(capsys, "run", "mini-llm", "note.txt:\nOnce upon a time\n\nthere was", *args)[0])
    assert out["tokens"] == same["tokens"] and out["usage"] == same["usage"]
    assert "cat.png is a picture; " in run(capsys, "run", "mini-llm", "x", "-a", PICTURE, code=2)[1]
    assert "does not exist" in run(capsys, "run", "mini-llm", "x", "-a", tmp_path / "none.txt", code=2)[1]


# chat ----------------------------------------------------------------------------------------------------------------


def talk(capsys: Any, monkeypatch: pytest.MonkeyPatch, typed: str, *args: Any) -> list[str]:
    monkeypatch.setattr(sys, "stdin", StringIO(typed))
    return run(capsys, "chat", *args)[0].splitlines()


def test_a_conversation_goes_on(named: tuple[str, Any], capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    name, fake = named
    typed = f"one\ntwo\n/save {tmp_path}/said.json\n/undo\nthree\n"
    assert talk(capsys, monkeypatch, typed, name) == ["You said: one", "You said: two", "You said: three", ""]
    said = json.loads((tmp_path / "said.json").read_text())
    assert [(m["role"], m["content"]) for m in said] == [
        ("user", "one"), ("assistant", "You said: one"), ("user", "two"), ("assistant", "You said: two"),
    ]  # fmt: skip
    assert not fake.broken and len(fake.requests) == 3


def test_what_a_vendor_wants_back_goes_back(capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    with FakeAnthropic() as fake:
        known(fake, monkeypatch, "ANTHROPIC")
        talk(capsys, monkeypatch, "one\ntwo\n", "anthropic:claude-opus-5-5", "--effort", "high", "--thoughts")
        blocks = fake.requests[-1].json["messages"][1]["content"]
        assert [block["type"] for block in blocks] == ["thinking", "text"] and blocks[0]["signature"]


def test_files_go_with_the_next_question(openai: FakeOpenAI, capsys: Any, monkeypatch: Any) -> None:
    typed = f"/attach {PICTURE}\nlook\nand?\n/attach /none.png\n/attach\n/stats\n"
    lines = talk(capsys, monkeypatch, typed, "openai:gpt-4o-mini", "-a", PICTURE)
    assert lines[:2] == ["cat.png goes with the next question", "I see 2 pictures."]
    assert lines[3].startswith("/none.png does not exist") and lines[4] == "/attach takes a file."
    assert "4 messages; " in lines[5] and "0 of them cached" in lines[5] and lines[5].endswith(" so far")
    first, second = (request.json["messages"] for request in openai.requests)
    assert [part["type"] for part in first[0]["content"]] == ["image_url", "image_url", "text"]
    assert second[0] == first[0] and second[-1] == {"role": "user", "content": "and?"}


def test_options_are_set_and_refused(openai: FakeOpenAI, capsys: Any, monkeypatch: Any) -> None:
    typed = "/set max_tokens 5\nHello you\n/set top_k 3\n/set effort low\nHi you\n/set effort null\n"
    lines = talk(capsys, monkeypatch, typed, "openai:gpt-5")
    assert lines[0] == "You said:" and lines[1].startswith("openai:gpt-5 has no top_k") and lines[2] == "You said:"
    assert openai.requests[-1].json["reasoning_effort"] == "low"


def test_an_error_leaves_the_history_as_it_was(openai: FakeOpenAI, capsys: Any, monkeypatch: Any) -> None:
    lines = talk(capsys, monkeypatch, "one\ntoolong\na forbidden thing\ntwo\n/stats\n", "openai:gpt-4o-mini")
    assert lines[0] == "You said: one" and "toolong" not in lines[1] and "You said: two" in lines
    last = [m["content"] for m in openai.requests[-1].json["messages"]]
    assert "toolong" not in last and last[-1] == "two"


# ^C ------------------------------------------------------------------------------------------------------------------


def test_an_interrupt_closes_the_stream(openai: FakeOpenAI) -> None:
    openai.faults.append(lambda _: Reply(chunks=[_chunk("Wait"), STALL]))
    process = subprocess.Popen(
        [sys.executable, "-m", "brolly", "run", "openai:gpt-4o-mini", "Hi"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stdout and process.stdout.read(4) == b"Wait"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and b"Traceback" not in err
    openai.until(lambda: openai.left == 1)


def test_an_interrupt_ends_a_whole_answer_too(openai: FakeOpenAI) -> None:
    openai.faults.append(lambda _: Reply(headers={"content-type": "application/json"}, chunks=["{", STALL]))
    process = subprocess.Popen(
        [sys.executable, "-m", "brolly", "run", "openai:gpt-4o-mini", "Hi", "--json"], stderr=subprocess.PIPE,
        env=environment(),
    )  # fmt: skip
    openai.until(lambda: len(openai.requests) == 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and b"Traceback" not in err
    openai.until(lambda: openai.left == 1)


def test_an_interrupt_at_the_terminal_stops_the_answer_alone(openai: FakeOpenAI) -> None:
    openai.faults.append(lambda _: Reply(chunks=[_chunk("Wait"), STALL]))
    with Terminal("chat", "openai:gpt-4o-mini") as terminal:
        terminal.until(">>> ")
        terminal.type("Hi\n")
        terminal.until("Wait")
        terminal.interrupt()
        assert "(stopped)" in terminal.until(">>> ")
        openai.until(lambda: openai.left == 1)
        assert "You said: again" in terminal.ask("again")
        terminal.type("\x04")
        assert terminal.finish() == 0
    last = openai.requests[-1].json["messages"]
    assert [m["content"] for m in last] == ["Hi", "Wait", "again"]


def test_rows_that_are_interrupted_close_their_streams(openai: FakeOpenAI, tmp_path: Path) -> None:
    for _ in range(8):
        openai.faults.append(lambda _: Reply(chunks=[_chunk("Wait"), STALL]))
    out, rows = tmp_path / "out.jsonl", tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"story": "{i}"}}\n' for i in range(8)))
    process = subprocess.Popen(
        [sys.executable, "-m", "brolly", "prompt", "run", str(EXAMPLES / "prompts" / "who.toml"), str(rows), "-o",
         str(out), "--model", "openai:gpt-4o-mini"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    openai.until(lambda: len(openai.requests) == 8)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and b"Go on with --resume." in err and b"Traceback" not in err
    openai.until(lambda: openai.left == 8)


def test_a_terminal_obeys_nothing_that_a_model_writes(openai: FakeOpenAI) -> None:
    with Terminal("chat", "openai:gpt-4o-mini") as terminal:
        terminal.until(">>> ")
        openai.faults.append(lambda _: Reply(chunks=[_chunk("\x1b]0;gone\x07\x1b[2J\rfine"), STALL]))
        terminal.type("Hi\n")
        shown = terminal.until("fine")
        terminal.interrupt()
        terminal.until(">>> ")
    assert "\x1b" not in shown.replace("\x1b[?2004h", "").replace("\x1b[?2004l", "") and "\x07" not in shown
    found = brolly("run", "openai:gpt-4o-mini", "a\x1b[2Jb")
    assert found.stdout == "You said: a\x1b[2Jb\n"  # a pipe gets what was written


def _chunk(text: str) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return sse({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


# Other verbs ---------------------------------------------------------------------------------------------------------


def test_texts_are_embedded(openai: FakeOpenAI, capsys: Any) -> None:
    said = json.loads(run(capsys, "embed", "openai:text-embedding-3-large", "a", "b", "--json", "--dimensions", "4")[0])
    assert [len(row["embedding"]) for row in said["data"]] == [4, 4]
    _, err = run(capsys, "embed", "openai:text-embedding-3-large", PICTURE, "b", code=2)
    assert "embeds texts" in err


def test_sounds_are_heard(openai: FakeOpenAI, capsys: Any) -> None:
    out, _ = run(capsys, "transcribe", "openai:whisper-1", SOUND)
    assert len(out.splitlines()) == 2
    srt, _ = run(capsys, "transcribe", "openai:whisper-1", SOUND, "--format", "srt")
    assert srt.startswith("1\n00:00:00,000 --> ") and srt.count("-->") == 2
    said = json.loads(run(capsys, "transcribe", "openai:whisper-1", SOUND, "--json")[0])
    assert said["text"] == " ".join(line.strip() for line in out.splitlines()) and len(said["segments"]) == 2
    assert run(capsys, "transcribe", "openai:gpt-4o-transcribe", SOUND)[0].strip()
    _, err = run(capsys, "transcribe", "openai:gpt-4o-transcribe", SOUND, "--format", "vtt", code=2)
    assert "tells no times" in err
    assert "no beam_size" in run(capsys, "transcribe", "openai:whisper-1", SOUND, "--beam-size", "2", code=2)[1]
    assert "hears files" in run(capsys, "transcribe", "openai:whisper-1", "--mic", code=2)[1]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["classify", PICTURE, "--labels", "a,b"], "has no classifier"),
        (["search", EXAMPLES / "pictures", "a cat"], "gives no vectors of pictures"),
        (["rerank", "q", "a", "b"], "does not rerank"),
        (["transcribe", SOUND], "nothing that can transcribe"),
        (["embed", "a"], "nothing that can embed"),
    ],
)
def test_what_it_cannot_do_is_told(capsys: Any, args: list[Any], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert told in run(capsys, args[0], "anthropic:claude-opus-5-5", *args[1:], code=2)[1]


def test_nothing_to_ask_is_told(openai: FakeOpenAI, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(""))
    for args in (["run", "openai:gpt-5"], ["run", "openai:gpt-5", ""], ["run", "openai:gpt-5", "-s", "Be brief."]):
        assert "there is nothing to" in run(capsys, *args, code=2)[1]
    assert not openai.requests


def test_a_name_that_is_none_is_told(capsys: Any) -> None:
    assert "'nosuch' is no vendor; expected openai, anthropic, " in run(capsys, "run", "nosuch:gpt-5", "Hi", code=2)[1]
    assert "names no model" in run(capsys, "run", "openai:", "Hi", code=2)[1]
    assert "no files of it to download" in run(capsys, "pull", "openai:gpt-5", code=2)[1]
    assert "cannot chat" in run(capsys, "chat", "openai:text-embedding-3-large", code=2)[1]


def test_rows_are_measured_by_what_is_written(openai: FakeOpenAI, capsys: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": t, "completion": f" You said: {t}"}) + "\n" for t in ("a", "b", "c")))
    said = json.loads(run(capsys, "eval", "openai:gpt-5", rows, "--json")[0])
    assert {m["name"]: m["value"] for m in said["measures"]} == {"exact match": 1.0, "F1": 1.0}
    assert "no likelihood" in run(capsys, "eval", "openai:gpt-5", rows, "--no-generate", code=2)[1]
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"text": "Once"}\n')
    assert "tells neither" in run(capsys, "eval", "openai:gpt-5", plain, code=2)[1]
    labelled = tmp_path / "labelled.jsonl"
    labelled.write_text('{"text": "good", "label": "a"}\n{"text": "bad", "label": "b"}\n')
    said = json.loads(run(capsys, "eval", "openai:gpt-5", labelled, "--json")[0])
    assert {m["name"]: m["value"] for m in said["measures"]}["accuracy"] == 0.5
    _, err = run(capsys, "eval", "openai:gpt-5", rows, "--max-cost", "0.0000001", code=2)
    assert "max_cost" in err


def test_every_flag_of_manners_reaches_the_model(openai: FakeOpenAI, capsys: Any) -> None:
    args = ["--retries", "0", "--connect-seconds", "5", "--silence-seconds", "9", "--concurrency", "2", "--rate", "600"]
    openai.faults.append(lambda _: Reply(500, body={"error": {"message": "no"}}))
    run(capsys, "run", "openai:gpt-5", "Hi", *args, code=2)
    assert len(openai.requests) == 1
    assert price_of(parse("openai:gpt-5"), "1,2")


def test_it_works_as_a_program_of_its_own(openai: FakeOpenAI) -> None:
    found = brolly("run", "openai:gpt-4o-mini", stdin="from a pipe")
    assert (found.returncode, found.stdout, found.stderr) == (0, "You said: from a pipe\n", "")
