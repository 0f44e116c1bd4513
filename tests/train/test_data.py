"""From text to batches: documents stay apart, no token is lost, what is held out is never trained on."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from brolly.errors import RecipeError
from brolly.train.data import Tokens, documents, prepare
from brolly.train.recipe import read_recipe
from tests.train.tiny import SEPARATOR, TEMPLATE, stories, story, write_recipe


def packed(recipe_path: Path) -> tuple[Tokens, Tokenizer]:
    recipe = read_recipe(recipe_path)
    folder = prepare(recipe)
    return Tokens(recipe, folder), Tokenizer.from_file(str(folder / "tokenizer.json"))


def split(ids: torch.Tensor, tokenizer: Tokenizer) -> list[str]:
    """Documents of a row of ids, parted at id 0; what follows the last 0 must be nothing."""
    parts: list[list[int]] = [[]]
    for index in ids.tolist():
        if index == 0:
            parts.append([])
        else:
            parts[-1].append(index)
    assert parts.pop() == []
    return [tokenizer.decode(part, skip_special_tokens=False) for part in parts]


def test_every_document_is_packed_once_ended_and_on_one_side(tmp_path: Path) -> None:
    tokens, tokenizer = packed(write_recipe(tmp_path, data_held_out=0.3))
    train, held = (split(side["text"], tokenizer) for side in (tokens.train, tokens.held))
    assert sorted(train + held) == sorted(story(i) for i in range(80))
    assert train == [story(i) for i in range(80) if story(i) in train]  # in the order of the file
    assert not set(train) & set(held)
    assert 8 <= len(held) <= 40


def test_a_document_that_comes_twice_is_on_the_same_side_both_times(tmp_path: Path) -> None:
    tokens, tokenizer = packed(write_recipe(tmp_path, stories(40) + SEPARATOR + "\n" + stories(40), data_held_out=0.3))
    train, held = (split(side["text"], tokenizer) for side in (tokens.train, tokens.held))
    assert len(train + held) == 80 and not set(train) & set(held)


def test_a_batch_is_a_window_of_the_text_with_targets_one_on(tmp_path: Path) -> None:
    tokens, _ = packed(write_recipe(tmp_path))
    whole = tokens.train["text"].tolist()
    for step in range(5):
        inputs, targets = tokens.batch(step, range(8))
        assert inputs.shape == targets.shape == (8, 32)
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        for row, last in zip(inputs.tolist(), targets[:, -1].tolist(), strict=True):
            window = [*row, last]
            assert any(whole[i : i + 33] == window for i in range(len(whole) - 32))


def test_a_row_depends_on_seed_step_and_row_alone(tmp_path: Path) -> None:
    tokens, _ = packed(write_recipe(tmp_path / "a"))
    together = tokens.batch(7, range(8))[0]
    assert torch.equal(torch.cat([tokens.batch(7, [r])[0] for r in range(8)]), together)
    assert not torch.equal(tokens.batch(8, range(8))[0], together)
    other, _ = packed(write_recipe(tmp_path / "b", train_seed=1))
    assert not torch.equal(other.batch(7, range(8))[0], together)


def test_the_first_and_the_last_token_are_drawn(tmp_path: Path) -> None:
    tokens, _ = packed(write_recipe(tmp_path, stories(4), data_held_out=0))
    n = len(tokens.train["text"])
    tokens.train["text"] = torch.arange(n)
    drawn = torch.cat([t for step in range(200) for pair in [tokens.batch(step, range(8))] for t in pair]).unique()
    assert drawn.tolist() == list(range(n))


def test_a_text_shorter_than_the_context_is_repeated(tmp_path: Path) -> None:
    tokens, _ = packed(write_recipe(tmp_path, "Hm.", data_held_out=0))
    whole = tokens.train["text"].tolist()
    inputs, targets = tokens.batch(0, [0])
    assert [*inputs[0].tolist(), int(targets[0, -1])] == (whole * 33)[:33]


def test_stages_draw_by_their_weights(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, data_sources={"text": "text.txt", "more": "more.txt"}, data_held_out=0)
    (tmp_path / "more.txt").write_text(stories(80, start=80))
    stage = "[[stage]]\nuntil = {}\nmix = {{ text = {}, more = {} }}\n"
    recipe.write_text(recipe.read_text() + stage.format(0.5, 1, 0) + stage.format(1.0, 0.25, 0.75))
    tokens, _ = packed(recipe)
    tokens.train = {"text": torch.zeros(100), "more": torch.ones(100)}
    first = torch.cat([tokens.batch(s, range(8))[0][:, 0] for s in range(10)]).float()
    second = torch.cat([tokens.batch(s, range(100))[0][:, 0] for s in range(10, 20)]).float()
    assert first.max() == 0
    assert 0.7 < second.mean() < 0.8


def rows(*documents: object) -> bytes:
    return "".join(json.dumps(d) + "\n\n" for d in documents).encode()


TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
FORMATS = {
    "a.txt": f"One\nline\n{SEPARATOR}\nTwo ü\n{SEPARATOR}\n".encode(),
    "b.txt": f"One\r\nline\r\n{SEPARATOR}\r\nTwo ü".encode(),
    "c.jsonl": rows({"text": "One\nline"}, {"text": "Two ü", "id": 7}),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_each_format_gives_the_same_documents(name: str, suffix: str, pack, tmp_path: Path) -> None:
    path = tmp_path / (name + suffix)
    path.write_bytes(pack(FORMATS[name]))
    assert list(documents(path)) == ["One\nline", "Two ü"]


def test_conversations_are_packed_through_the_chat_template(tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path, data_sources={"chat": "chat.jsonl"}, data_held_out=0, tokenizer_chat_template=TEMPLATE,
        tokenizer_special=["<|end|>", "<|user|>", "<|assistant|>"],
    )  # fmt: skip
    (tmp_path / "chat.jsonl").write_bytes(rows({"messages": TALK}, {"prompt": "Hi", "completion": "Hello"}))
    tokens, tokenizer = packed(recipe)
    ids = tokens.train["chat"].tolist()
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|user|>Hi<|end|><|assistant|>Hello<|end|>" * 2
    assert ids.count(0) == 4 and ids.count(1) == 2 and ids.count(2) == 2


def test_empty_documents_are_left_out(tmp_path: Path) -> None:
    tokens, tokenizer = packed(
        write_recipe(tmp_path, f"{SEPARATOR}\nOne\n{SEPARATOR}\n \n{SEPARATOR}\nTwo", data_held_out=0)
    )
    assert split(tokens.train["text"], tokenizer) == ["One", "Two"]


def test_the_bytes_of_the_ids_are_the_bytes_of_the_text(tmp_path: Path) -> None:
    tokens, tokenizer = packed(write_recipe(tmp_path))
    text = "Öl “and” 水, twice.<|end|>"
    assert tokens.n_bytes[tokenizer.encode(text).ids].sum() == len(text.removesuffix("<|end|>").encode())


BROKEN = {
    "latin.txt": (b"caf\xe9", "cannot be read as text"),
    "rows.jsonl": (b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
    "other.jsonl": (b'{"story": "a"}\n', "has neither 'text', 'messages' nor 'prompt'"),
    "cut.txt.gz": (gzip.compress(stories(80).encode())[:-20], "cannot be read as text"),
    "bad.txt.gz": (gzip.compress(stories(80).encode())[:40] + b"\xff" * 400, "cannot be read as text"),
    "no.txt.gz": (b"plain text", "cannot be read as text"),
    "cut.txt.xz": (lzma.compress(stories(80).encode())[:-20], "cannot be read as text"),
    "no.txt.xz": (b"plain text", "cannot be read as text"),
    "empty.txt": (b"", "has 0 tokens to train on"),
    "talk.jsonl": (rows({"messages": TALK}), "holds conversations"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_text_is_refused_by_name(name: str, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, data_sources={"broken": name})
    (tmp_path / name).write_bytes(BROKEN[name][0])
    with pytest.raises(RecipeError, match=re.escape(BROKEN[name][1])):
        packed(recipe)


def test_preparing_again_reads_what_was_prepared_and_other_text_gets_another_folder(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    folder = prepare(read_recipe(recipe))
    made = (folder / "text.train").stat().st_mtime_ns
    assert prepare(read_recipe(recipe)) == folder and (folder / "text.train").stat().st_mtime_ns == made
    (tmp_path / "text.txt").write_text(stories(81))
    assert prepare(read_recipe(recipe)) != folder
