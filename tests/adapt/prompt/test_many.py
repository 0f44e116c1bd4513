"""Many rows at a time: in order, together, an error alone, from the cache, with the nearest examples."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from brolly import Prompt
from brolly.adapt.prompt.cache import Cache, fingerprint
from brolly.adapt.prompt.select import Nearest
from brolly.errors import BrollyError, Busy, OptionError
from brolly.tasks.flow import WINDOW
from tests.adapt.prompt.models import Told

ECHO = Prompt("Say it again.", input="[{text}]", variables={"text": {"type": "text", "bare": True}})


def last(text: str) -> str:
    return text.rsplit("[", 1)[1].split("]")[0]


def test_order_is_kept_however_they_end() -> None:
    draws = random.Random(0)
    model = Told(last, delay=lambda number: draws.random() / 20)
    rows = [f"row {i}" for i in range(300)]
    found = ECHO.map(model, rows)
    assert [one.value for one in found] == rows and [one.number for one in found] == list(range(1, 301))
    assert 8 < model.most <= WINDOW


def test_an_error_takes_one_rows_place() -> None:
    model = Told(lambda text: OptionError("no") if "bad" in text else last(text))
    found = ECHO.map(model, ["a", "bad", {"x": 1}, ValueError("line 4"), "b"])
    assert [one.value for one in found] == ["a", None, None, None, "b"]
    assert [str(one.error) for one in found[1:4]] == ["no", "text is missing, and has no default.", "line 4"]


def test_a_busy_engine_is_waited_for() -> None:
    model = Told(last)
    refused = iter([True, False, True, True] + [False] * 9)
    submit = model.submit

    def busy(job: Any, deliver: Any) -> Any:
        if next(refused):
            raise Busy("later", 0.01)
        return submit(job, deliver)

    model.submit = busy  # type: ignore[method-assign]
    assert [one.value for one in ECHO.map(model, ["a", "b", "c"])] == ["a", "b", "c"]


def test_who_leaves_early_ends_what_is_being_written() -> None:
    model = Told(last, delay=lambda number: 60 if number else 0.3)
    found = ECHO.stream(model, (f"{i}" for i in range(50)))
    assert next(found).value == "0"
    found.close()  # type: ignore[attr-defined]
    assert len(model.tickets) > 1 and all(ticket.cancelled.is_set() for ticket in model.tickets[1:])


def test_rows_are_taken_as_they_are_needed() -> None:
    taken = []
    found = ECHO.stream(Told(last), (taken.append(i) or str(i) for i in range(10_000)))
    next(found)
    assert len(taken) <= WINDOW


def test_an_answer_is_written_once(tmp_path: Path) -> None:
    model, cache = Told(last), Cache(tmp_path / "in" / "answers.sqlite3")
    first = ECHO.map(model, ["a", "b"], cache=cache)
    again = ECHO.map(model, ["b", "c", "a"], cache=Cache(cache.path))
    assert [one.cached for one in first] == [False, False] and [one.cached for one in again] == [True, False, True]
    assert [one.value for one in again] == ["b", "c", "a"] and len(model.prompts) == 3
    assert first[0].tokens == again[2].tokens and cache.path.stat().st_mode & 0o077 == 0


def test_another_prompt_option_or_model_is_asked_anew(tmp_path: Path) -> None:
    model, cache = Told(last), Cache(tmp_path / "answers.sqlite3")
    other = Told(last)
    other.dtype = "another"
    for prompt, asked in (
        (ECHO, model), (ECHO.changed(instructions="Say it twice."), model),
        (ECHO.changed(options={"max_tokens": 9}), model), (ECHO.changed(answer=["a"]), model), (ECHO, other),
    ):  # fmt: skip
        assert not prompt.map(asked, ["a"], cache=cache)[0].cached
        assert prompt.map(asked, ["a"], cache=cache)[0].cached
    assert fingerprint(model) != fingerprint(other)


def test_what_chance_draws_is_not_kept(tmp_path: Path) -> None:
    model, cache = Told(last), Cache(tmp_path / "answers.sqlite3")
    drawn = ECHO.changed(options={"temperature": 1.0})
    assert not any(drawn.map(model, ["a"], cache=cache)[0].cached for _ in range(2))
    seeded = ECHO.changed(options={"temperature": 1.0, "seed": 1})
    assert [seeded.map(model, ["a"], cache=cache)[0].cached for _ in range(2)] == [False, True]


def test_errors_are_not_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "answers.sqlite3")
    says = iter([OptionError("no"), "a"])
    model = Told(lambda text: next(says))
    assert [ECHO.map(model, ["a"], cache=cache)[0].value for _ in range(2)] == [None, "a"]


def test_a_broken_cache_is_told(tmp_path: Path) -> None:
    (tmp_path / "answers.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(OptionError, match="--no-cache"):
        Cache(tmp_path / "answers.sqlite3")


def test_a_cache_that_grew_too_large_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite3"
    cache = Cache(path)
    ECHO.map(Told(last), [f"{i}" for i in range(40)], cache=cache)
    cache.close()
    cache = Cache(path, most_bytes=4096)
    assert not ECHO.map(Told(last), ["1"], cache=cache)[0].cached


class Counts:
    """An embedder: how often a text has each letter."""

    def embed(self, texts: list[str]) -> Any:
        return SimpleNamespace(vectors=np.array([[t.count(c) for c in "abcdefgh"] for t in texts], np.float32))


def test_the_nearest_examples_come_last_and_never_the_row_itself() -> None:
    examples = [("aaab", "1"), ("bbb", "2"), ("ab", "3"), ("ccc", "4")]
    prompt = Prompt("x", examples=examples, select={"most": 2, "by": "nearest"})
    chosen = Nearest(prompt, Counts()).choose([{"text": "aaa"}, {"text": "aaab"}, {"text": "c"}])
    assert [[e.values["text"] for e in some] for some in chosen] == [["ab", "aaab"], ["bbb", "ab"], ["aaab", "ccc"]]
    model = Told(lambda text: "ok")
    prompt.map(model, ["c", {"wrong": 1}, "bb"], embedder=Counts())
    assert model.prompts[0].rindex("ccc") > model.prompts[0].rindex("aaab") and "bbb" in model.prompts[1]


def test_nearest_examples_want_an_embedder() -> None:
    with pytest.raises(OptionError, match="name an embedder"):
        Prompt("x", select={"by": "nearest"}).map(Told(last), ["a"])


def test_fixed_examples_are_never_the_row_itself() -> None:
    model = Told(lambda text: "ok")
    Prompt("x", examples=[("one", "1"), ("two", "2"), ("three", "3")], select={"most": 2}).map(model, ["one", "four"])
    assert "<text>two" in model.prompts[0] and "<text>three" in model.prompts[0]
    assert "<text>one" in model.prompts[1] and "<text>three" not in model.prompts[1]


def test_rows_written_together_are_those_written_alone() -> None:
    from brolly.loader import load

    model = load("mini-llm", device="cpu", dtype="float32")
    prompt = Prompt("Tell a story.", options={"max_tokens": 10})
    rows = [f"A {animal} and a {thing}." for animal in ("fox", "hen") for thing in ("ball", "hat")]
    assert [one.value for one in prompt.map(model, rows)] == [prompt(model, row) for row in rows]


def test_an_adapter_answers_and_is_remembered_apart(tmp_path: Path) -> None:
    import json

    import torch
    from safetensors.torch import save_file

    from brolly.loader import load

    folder, name = tmp_path / "lora", "base_model.model.model.layers.5.mlp.down_proj"
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 64, "target_modules": ["down_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    tensors = {f"{name}.lora_A.weight": torch.randn(4, 688), f"{name}.lora_B.weight": torch.randn(256, 4)}
    save_file(tensors, folder / "adapter_model.safetensors")
    model, cache = load("mini-llm", device="cpu"), Cache(tmp_path / "answers.sqlite3")
    prompt = Prompt("Tell a story.", options={"max_tokens": 8})
    plain = prompt.map(model, ["A hen."], cache=cache)[0]
    for given in (folder, SimpleNamespace(path=folder)):
        adapted = prompt.map(model, ["A hen."], cache=cache, adapter=given)[0]
        assert adapted.text != plain.text and adapted.error is None
    assert not plain.cached and adapted.cached
    with pytest.raises(BrollyError, match="nowhere"):
        prompt.map(model, ["A hen."], adapter="nowhere")
