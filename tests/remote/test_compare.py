"""The same questions to several models: `brolly compare`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from brolly.cli import main
from brolly.commands.compare_page import page
from brolly.errors import NotFound, OptionError, RecipeError
from brolly.measure.beside import Answer, Column, Comparison, beside
from brolly.measure.questions import Question, questions
from brolly.remote import Remote
from brolly.verbs import Usage
from tests.remote.fakes import KEY
from tests.remote.fakes.anthropic import FakeAnthropic
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.fakes.server import STALL, Reply
from tests.remote.more import known

GPT, CLAUDE = "openai:gpt-4.1", "anthropic:claude-opus-4-6"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> ' \" \x1b[2J \u202e & end"


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeOpenAI, FakeAnthropic]]:
    with FakeOpenAI() as one, FakeAnthropic() as other:
        known(one, monkeypatch)
        known(other, monkeypatch, "ANTHROPIC")
        yield one, other


def asked(folder: Path, *rows: Any, name: str = "prompts.jsonl") -> str:
    path = folder / name
    path.write_text("".join(f"{row if name.endswith('.txt') else json.dumps(row)}\n" for row in rows))
    return str(path)


def test_two_vendors_and_a_model_here_side_by_side(
    fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = asked(
        tmp_path, "Tell me of the sea", {"prompt": "forbidden"}, {"prompt": "Hello there", "system": "Be brief"}
    )
    page_file = tmp_path / "page.html"
    words = ["compare", GPT, CLAUDE, "mini-llm", file, "--max-tokens", "12", "--html", str(page_file), "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [m["model"] for m in found["models"]] == [GPT, CLAUDE, "mini-llm"]
    assert [row["question"] for row in found["rows"]][0] == "Tell me of the sea"
    first, second, third = (row["answers"] for row in found["rows"])
    assert first[GPT]["text"] == first[CLAUDE]["text"] == "You said: Tell me of the sea"
    assert first[GPT]["finish"] == "stop" and first["mini-llm"]["text"] and "cost" not in first["mini-llm"]
    assert first[GPT]["cost"] > 0 and first[GPT]["usage"]["prompt_tokens"] == 5
    assert 0 < first[GPT]["first"] <= first[GPT]["seconds"]
    assert second[GPT]["finish"] == second[CLAUDE]["finish"] == "content_filter"
    assert third[CLAUDE]["text"] == "You said: Hello there"
    totals = {m["model"]: m["totals"] for m in found["models"]}
    assert totals[GPT]["answered"] == 3 and totals[GPT]["errors"] == 0 and totals["mini-llm"]["cost"] is None
    assert totals[GPT]["cost"] == pytest.approx(sum(row[GPT]["cost"] for row in (first, second, third)))
    made = page_file.read_text()
    assert "You said: Tell me of the sea" in made and not any(key in made + out + err for key in (KEY, fakes[0].key))


def test_the_terminal_gets_answers_and_a_table(fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = asked(tmp_path, "One", "Two", "", "Three", name="prompts.txt")
    assert main(["compare", GPT, CLAUDE, file, "--max-tokens", "50"]) == 0
    out = capsys.readouterr().out
    assert f"2. Two\n   {GPT}: You said: Two\n   {CLAUDE}: You said: Two\n" in out
    last = out.splitlines()[-3:]
    assert re.match(r"model +answered +failed +first +time +read", last[0])
    assert last[1].startswith(GPT) and last[1].split()[1:3] == ["3", "0"] and "$" in last[1]


def test_a_page_is_made_where_no_name_is_given(
    fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked(tmp_path, "One")
    for words in (["--html", "prompts.jsonl"], ["prompts.jsonl", "--html"]):
        assert main(["compare", "--max-tokens", "50", GPT, CLAUDE, *words]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "compare.html"
        (tmp_path / "compare.html").unlink()


def test_an_error_stands_in_its_place(fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = asked(tmp_path, "toolong", "Hello")
    assert main(["compare", GPT, "openai:missing", file, "--json", "--retries", "0"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "text" not in found["rows"][0]["answers"][GPT] and found["rows"][0]["answers"][GPT]["error"]
    assert found["rows"][1]["answers"][GPT]["text"] == "You said: Hello"
    assert found["models"][1]["totals"]["errors"] == 2


def test_what_runs_elsewhere_is_asked_at_once(fakes: Any) -> None:
    one, other = fakes
    for fake in fakes:
        for _ in range(8):
            fake.faults.append(_slow(fake))
    begun = time.monotonic()
    asks = [Question("", ({"role": "user", "content": f"Word {n}"},)) for n in range(8)]
    found = beside([(n, Remote(n)) for n in (GPT, CLAUDE)], asks, {"max_tokens": 20})
    assert time.monotonic() - begun < 3.1  # 16 answers of 0.2 s
    assert [a.text for a in found.columns[0].answers] == [f"You said: Word {n}" for n in range(8)]
    assert all(a.first is not None and a.first >= 0.2 for c in found.columns for a in c.answers)


def _slow(fake: Any) -> Any:
    def late(request: Any) -> Reply:
        reply = fake.answer(request)
        return Reply(reply.status, reply.headers, chunks=[0.2, *list(reply.chunks)])

    return late


def test_whoever_stops_keeps_what_was_answered(
    fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = fakes
    other.faults.append(lambda request: Reply(200, chunks=[STALL]))
    from brolly.measure import beside as module

    taken = module.Come.take

    def take(self: Any) -> Any:
        found = taken(self)
        if found is not None:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(module.Come, "take", take)
    file = asked(tmp_path, "Hello")
    assert main(["compare", GPT, CLAUDE, file, "--json", "--max-tokens", "20"]) == 130
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["stopped"] and "stopped" in err
    assert found["rows"][0]["answers"][GPT]["text"] == "You said: Hello"
    assert found["rows"][0]["answers"][CLAUDE] == {}
    other.until(lambda: other.open == 0 and other.left == len(other.requests))  # closed, if it was there yet


def test_a_budget_is_for_all_models_together(fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = asked(tmp_path, *(f"Question {n}" for n in range(6)))
    words = ["compare", GPT, CLAUDE, file, "--json", "--max-tokens", "10", "--parallel", "1", "--max-cost", "0.0008"]
    assert main(words) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    answers = [answer for row in found["rows"] for answer in row["answers"].values()]
    assert any("max_cost" in a.get("error", "") for a in answers) and any("text" in a for a in answers)
    assert sum(a.get("cost", 0) for a in answers) <= 0.0008


def test_a_budget_alone_bounds_the_answers(fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = asked(tmp_path, "Hello", "Good day")
    assert main(["compare", "openai:gpt-5", GPT, file, "--max-cost", "0.05", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "an answer may have 281 tokens, for --max-cost" in err
    assert all(answer["text"] for row in json.loads(out)["rows"] for answer in row["answers"].values())
    assert main(["compare", GPT, CLAUDE, file, "--max-cost", "0.5", "--max-tokens", "9"]) == 0
    assert "an answer may have" not in capsys.readouterr().err


def test_an_option_that_one_has_not_is_told_before_anything_is_sent(
    fakes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = asked(tmp_path, "Hello")
    assert main(["compare", GPT, CLAUDE, file, "--grammar", "start: /a/"]) == 2
    assert "grammar" in capsys.readouterr().err and not any(fake.requests for fake in fakes)


def test_pictures_go_by_their_paths_below_the_folder(fakes: Any, tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "sea.png")
    (tmp_path / "note.txt").write_text("secret")
    outside = tmp_path.parent / "outside.png"
    Image.new("RGB", (3, 2)).save(outside)
    file = asked(
        tmp_path, {"prompt": "What is it?", "images": ["sea.png"]},
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "sea.png"}}, {"type": "text", "text": "And this?"}]}]},
        {"prompt": "a", "images": ["note.txt"]}, {"prompt": "a", "images": ["../outside.png"]},
        {"prompt": "a", "images": [str(outside)]}, {"prompt": "a", "images": ["absent.png"]},
        {"prompt": 7}, {"messages": []},
    )  # fmt: skip
    found, faults = questions(file)
    assert [str(one) for one in found] == ["[sea.png]\nWhat is it?", "[sea.png]\nAnd this?"] and len(faults) == 6
    assert "a picture, a sound or a PDF in" in str(faults[1]) and "line 4" in str(faults[1])
    answers = beside([(GPT, Remote(GPT)), ("mini", _deaf())], found, {"max_tokens": 20})
    assert [a.text for a in answers.columns[0].answers] == ["I see 1 picture."] * 2
    made = page(answers, "p", ())
    assert made.count("data:image/jpeg;base64,") == 2


def _deaf() -> Any:
    class Deaf:
        tokenizer = type("T", (), {"prompt": staticmethod(lambda messages: None)})

        def stream_chat(self, messages: Any, **_: Any) -> Any:
            raise OptionError("it reads text.")

    return Deaf()


def test_questions_of_other_shapes_and_with_answers(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    found, _ = questions(asked(tmp_path, {"messages": turns}, {"prompt": "a", "expected": "b"}))
    assert [(str(one), one.expected) for one in found] == [("1+1?", "2"), ("a", "b")]
    found, _ = questions(asked(tmp_path, {"question": "Where?", "answer": "Here"}, name="qa.jsonl"))
    assert [(str(one), one.expected, one.prompt) for one in found] == [("Where?", "Here", "Where?")]
    (tmp_path / "t.csv").write_text("prompt,completion\nOne,1\nTwo,2\n")
    assert [one.expected for one in questions(tmp_path / "t.csv", 1)[0]] == ["1"]
    with pytest.raises(NotFound):
        questions(tmp_path / "absent.jsonl")
    found, faults = questions(asked(tmp_path, {"prompt": "a"}, "b", {"bad": 1}, name="mixed.jsonl"))
    assert [str(one) for one in found] == ["a", "b"]
    assert [str(one) for one in faults] == ["mixed.jsonl, line 3: has neither a prompt nor messages"]
    (tmp_path / "bad.jsonl").write_bytes(b"{\n\xff\n7\n")
    with pytest.raises(RecipeError, match=r"bad\.jsonl, line 1"):
        questions(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([GPT, "p.jsonl"], "two models or more"), ([GPT, GPT, "p.jsonl"], "named twice"),
        ([GPT, CLAUDE, "absent.jsonl"], "does not exist"), ([GPT, CLAUDE, "p.jsonl", "--limit", "0"], "--limit is 0"),
        ([GPT, CLAUDE, "p.jsonl", "--html", "no/such/page.html"], "cannot be written"),
    ],
)  # fmt: skip
def test_mistakes_are_told_first(
    fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], why: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    asked(tmp_path, "Hello", name="p.jsonl")
    assert main(["compare", *words]) == 2
    assert why in capsys.readouterr().err and not any(fake.requests for fake in fakes)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_obeys_nobody_and_loads_nothing() -> None:
    usage = Usage(3, 4)
    answers = [
        Answer(HOSTILE, HOSTILE, "stop", 0.1, 0.2, usage, 0.5), Answer(error=HOSTILE, seconds=0.1),
        Answer(f"{HOSTILE} more", "", HOSTILE, 0.1, 0.2, usage, None, calls={0: [HOSTILE, HOSTILE]}),
    ]  # fmt: skip
    columns = [Column(f"{HOSTILE}{n}", HOSTILE, False, [answer]) for n, answer in enumerate(answers)]
    question = Question(HOSTILE, ({"role": HOSTILE, "content": HOSTILE}, {"role": "user", "content": HOSTILE}), HOSTILE)
    made = page(Comparison([question], columns), HOSTILE, ((HOSTILE, HOSTILE),))
    tags = Tags()
    tags.feed(made)
    names = {tag for tag, _ in tags.found}
    assert not names & {"script", "img", "iframe", "link", "object", "svg", "base", "form", "a"}
    assert not any(name.startswith("on") or name in ("src", "href") for _, attrs in tags.found for name in attrs)
    assert "default-src 'none'" in made and "\x1b" not in made and "\u202e" not in made and "http" not in _text(made)
    assert made.count("&lt;script&gt;alert(1)") >= 8


def _text(made: str) -> str:
    return made.replace('http-equiv="Content-Security-Policy"', "")


def test_what_differs_from_the_first_is_marked() -> None:
    texts = ("The sea is blue today", "The sea is green today", "Quite another answer, of other words")
    columns = [Column(str(n), "", True, [Answer(text, finish="stop", seconds=1.0)]) for n, text in enumerate(texts)]
    made = page(Comparison([Question("", ({"role": "user", "content": "How is it?"},))], columns), "p", ())
    assert re.findall("<mark>(.*?)</mark>", made) == ["green"]
    same = [Column(str(n), "", True, [Answer("Vienna ", finish="stop", seconds=1.0)]) for n in range(2)]
    made = page(Comparison([Question("", ({"role": "user", "content": "?"},), "Vienna")], same), "p", ())
    assert "all the same" in made and made.count(">as expected<") == 2 and "1 answered the same" in made
