"""Text to tokens: documents are read, a tokenizer is learnt, and each source becomes one memory-mapped file of ids.

Which tokens a step sees is a function of the seed and the step alone, so a resumed run needs no position.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import lzma
import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brolly.errors import RecipeError
from brolly.train.recipe import Recipe, Words

SEPARATOR = "<|endoftext|>"


def documents(path: Path) -> Iterator[str | list[dict[str, str]]]:
    """The documents of a .txt (parted by lines of <|endoftext|>) or .jsonl file, plain, .gz or .xz."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            if ".jsonl" in path.suffixes:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _row(line, f"{path}, line {number}")
                return
            lines: list[str] = []
            for line in file:
                if line.strip() == SEPARATOR:
                    yield "".join(lines).strip()
                    lines = []
                else:
                    lines.append(line)
            if lines:
                yield "".join(lines).strip()
    except (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error) as error:
        raise RecipeError(f"{path} cannot be read as text ({str(error)[:100]}).") from None


def _row(line: str, where: str) -> str | list[dict[str, str]]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise RecipeError(f"{where} is not JSON ({str(error)[:80]}).") from None
    if isinstance(row, dict) and isinstance(row.get("text"), str):
        return row["text"]
    if isinstance(row, dict) and isinstance(row.get("messages"), list):
        return row["messages"]
    if isinstance(row, dict) and isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
    raise RecipeError(f"{where} has neither 'text', 'messages' nor 'prompt' and 'completion'.")


def prepare(recipe: Recipe) -> Path:
    """The tokenizer and the tokens of a recipe, made once and kept under a hash of all that they depend on."""
    seal = hashlib.sha256(repr((recipe.tokenizer, recipe.held_out)).encode())
    for name, path in sorted(recipe.sources.items()):
        seal.update(name.encode())
        with path.open("rb") as file:
            seal.update(hashlib.file_digest(file, "sha256").digest())
    folder = recipe.out / "data" / seal.hexdigest()[:16]
    if (folder / "done").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = learn(recipe)
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = "i" if recipe.tokenizer.vocab_size > 2**16 else "H"
    for name in recipe.sources:
        with (folder / f"{name}.train").open("wb") as train, (folder / f"{name}.held").open("wb") as held:
            rest = texts(recipe, name)
            while part := list(itertools.islice(rest, 256)):
                for text, encoded in zip(part, tokenizer.encode_batch(part), strict=True):
                    ids = array(kind, encoded.ids).tobytes()
                    (held if held_out(text, recipe.held_out) else train).write(ids)
            for written in (train, held):
                written.flush()
                os.fsync(written.fileno())
    (folder / "done").write_text("")
    return folder


def held_out(text: str, share: float) -> bool:
    """Whether a document is kept for evaluation: by its own hash, so that order and neighbours do not matter."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") < share * 2**64


def texts(recipe: Recipe, name: str) -> Iterator[str]:
    """A source's documents as the model will see them: the first special token ends them, or the chat template does."""
    from brolly.media.text import ChatTemplate

    template = ChatTemplate(recipe.tokenizer.chat_template, {}) if recipe.tokenizer.chat_template else None
    for document in documents(recipe.sources[name]):
        if not document:
            continue
        if isinstance(document, str):
            yield document + recipe.tokenizer.special[0]
        elif template:
            yield template.render(document, add_generation_prompt=False)
        else:
            raise RecipeError(
                f"{recipe.path}: source {name!r} holds conversations, and [tokenizer] has no chat_template."
            )


def learn(recipe: Recipe) -> Any:
    """Byte-level BPE over the sources as they are; special tokens first, and never learnt from."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.tokenizer.vocab_size,
        special_tokens=list(recipe.tokenizer.special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def bare() -> Iterator[str]:
        for name in recipe.sources:
            for text in texts(recipe, name):
                for special in recipe.tokenizer.special:
                    text = text.replace(special, "")
                yield text

    tokenizer.train_from_iterator(bare(), trainer)
    return tokenizer


def bytes_of_each(tokenizer: Path, words: Words) -> Tensor:
    """Bytes of text that each id (V,) stands for: a byte-level token has a character a byte, a special token none."""
    vocabulary: dict[str, int] = json.loads(tokenizer.read_text("utf-8"))["model"]["vocab"]
    out = torch.zeros(max(words.vocab_size, *(i + 1 for i in vocabulary.values())), dtype=torch.int64)
    for token, index in vocabulary.items():
        out[index] = 0 if token in words.special else len(token)
    return out


class Tokens:
    """The ids of every source, mapped; batches by step."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe = recipe
        dtype = torch.int32 if recipe.tokenizer.vocab_size > 2**16 else torch.uint16
        self.train = {name: self._mapped(folder / f"{name}.train", dtype) for name in recipe.sources}
        self.held = {name: self._mapped(folder / f"{name}.held", dtype) for name in recipe.sources}
        self.n_bytes = bytes_of_each(folder / "tokenizer.json", recipe.tokenizer)
        for name, ids in self.train.items():
            if len(ids) < 2:
                raise RecipeError(
                    f"{recipe.path}: source {name!r} has {len(ids)} tokens to train on; give it more text."
                )

    @staticmethod
    def _mapped(path: Path, dtype: torch.dtype) -> Tensor:
        n = os.path.getsize(path) // dtype.itemsize
        return torch.from_file(str(path), shared=False, size=n, dtype=dtype) if n else torch.empty(0, dtype=dtype)

    def batch(self, step: int, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Inputs and targets (len(rows), context) of some rows of a step's batch."""
        inputs, length = [], self.recipe.model.context
        mix = self._mix(step)
        for row in rows:
            draw = torch.Generator().manual_seed((self.recipe.train.seed * 1_000_003 + step) * 4096 + row)
            source = list(mix)[
                int(torch.multinomial(torch.tensor(list(mix.values()), dtype=torch.float32), 1, generator=draw))
            ]
            ids = self.train[source]
            start = int(torch.randint(max(len(ids) - length, 1), (1,), generator=draw))
            window = ids[start : start + length + 1].long()
            if len(window) <= length:
                window = window.repeat(length // len(window) + 1)[: length + 1]
            inputs.append(window)
        both = torch.stack(inputs)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def _mix(self, step: int) -> dict[str, float]:
        share = step / self.recipe.train.steps
        stage = next((s for s in self.recipe.stages if share < s.until), self.recipe.stages[-1])
        return {name: weight for name, weight in stage.mix.items() if weight > 0}
