"""Text to tokens on disk, and tokens on disk to batches. A batch is a function of the step alone, so nothing is lost.

A token file: 8 bytes of magic, a 4-byte length, a JSON header, the documents' first places (int64), then the tokens.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from brolly.errors import RecipeError
from brolly.train.recipe import Recipe, Source, TokenizerRecipe

MAGIC = b"BRLTOK01"
START, END, USER, ASSISTANT = SPECIAL = ("<|start|>", "<|end|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)  # fmt: skip
_LONGEST_LINE = 1 << 26


def documents(source: Source, folder: Path) -> Iterator[str | list[dict[str, str]]]:
    """Each document of a source: a text, or a chat's messages."""
    path = folder / source.path
    opened: IO[str]
    try:
        match path.suffix:
            case ".xz":
                opened = lzma.open(path, "rt", encoding="utf-8")
            case ".gz":
                opened = gzip.open(path, "rt", encoding="utf-8")
            case _:
                opened = open(path, encoding="utf-8")
        with opened as file:
            if ".jsonl" in path.suffixes:
                yield from _records(file, path)
            else:
                yield from _texts(file)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; source '{source.name}' names it") from None
    except (OSError, UnicodeDecodeError, EOFError, lzma.LZMAError) as error:
        raise RecipeError(f"{path}: cannot be read as text ({error})") from None


def _records(file: IO[str], path: Path) -> Iterator[str | list[dict[str, str]]]:
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            document = record["messages"] if "messages" in record else record["text"]
            if isinstance(document, list):
                document = [{"role": str(m["role"]), "content": str(m["content"])} for m in document]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise RecipeError(f'{path}, line {number}: expected {{"text": …}} or {{"messages": […]}}') from None
        if isinstance(document, str | list):
            yield document


def _texts(file: IO[str]) -> Iterator[str]:
    lines: list[str] = []
    for line in file:
        if line.strip() == "<|endoftext|>":
            yield "".join(lines).strip()
            lines = []
        else:
            lines.append(line)
    if rest := "".join(lines).strip():
        yield rest


def held_out(document: str | list[dict[str, str]], share: float) -> bool:
    """Whether a document belongs to the validation part: decided by its own text alone."""
    digest = hashlib.sha256(json.dumps(document).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def learn_tokenizer(recipe: TokenizerRecipe, sources: Sequence[Source], folder: Path) -> Any:
    """A byte-level BPE `tokenizers.Tokenizer` learned from the training documents."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    def texts() -> Iterator[str]:
        for source in sources:
            if recipe.sources and source.name not in recipe.sources:
                continue
            for document in documents(source, folder):
                if not held_out(document, source.validation):
                    yield document if isinstance(document, str) else "\n".join(m["content"] for m in document)

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocab_size, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts(), trainer)
    first = [(START, tokenizer.token_to_id(START))]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A", special_tokens=first)
    return tokenizer


def encode(tokenizer: Any, document: str | list[dict[str, str]]) -> list[int]:
    """Start, text, end; a chat's turns each begin with their role and end with the end token."""
    start, end, user, assistant = (tokenizer.token_to_id(token) for token in SPECIAL)
    if isinstance(document, str):
        return [start, *tokenizer.encode(document, add_special_tokens=False).ids, end]
    ids = [start]
    for message in document:
        role = {"user": user, "assistant": assistant}.get(message["role"])
        if role is None:
            raise RecipeError(f"a chat's role is '{message['role']}'; expected 'user' or 'assistant'")
        ids += [role, *tokenizer.encode(message["content"], add_special_tokens=False).ids, end]
    return ids


def byte_lengths(tokenizer: Any) -> np.ndarray:
    """How many bytes of text each token stands for; special tokens stand for none."""
    lengths = [len(tokenizer.id_to_token(i)) for i in range(tokenizer.get_vocab_size())]
    lengths[: len(SPECIAL)] = [0] * len(SPECIAL)
    return np.array(lengths)


@dataclass(frozen=True)
class Tokens:
    """One token file, mapped: the stream and where its documents begin."""

    path: Path
    sha256: str
    starts: np.ndarray
    stream: np.ndarray

    def window(self, at: int, length: int) -> np.ndarray:
        """`length` tokens from place `at`, or from the next document's start if one is near; wraps at the end."""
        at %= len(self.stream)
        next_start = np.searchsorted(self.starts, at)
        if next_start < len(self.starts) and self.starts[next_start] - at < length:
            at = int(self.starts[next_start])
        piece = self.stream[at : at + length]
        return piece if len(piece) == length else np.resize(np.concatenate((piece, self.stream)), length)


def write_tokens(path: Path, documents: Iterator[list[int]], vocab_size: int, origin: str) -> None:
    """Pack documents into a token file; it appears whole or not at all."""
    kind = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
    digest, starts, count = hashlib.sha256(), [], 0
    body, whole = path.with_suffix(".body"), path.with_suffix(".part")
    with open(body, "wb") as file:
        for ids in documents:
            starts.append(count)
            count += len(ids)
            data = np.array(ids, kind).tobytes()
            digest.update(data)
            file.write(data)
    header = {"dtype": kind.str, "tokens": count, "documents": len(starts), "sha256": digest.hexdigest(), "origin": origin}
    text = json.dumps(header).encode()
    text += b" " * (-(len(MAGIC) + 4 + len(text)) % 64)
    with open(whole, "wb") as file, open(body, "rb") as tokens:
        file.write(MAGIC + len(text).to_bytes(4, "little") + text + np.array(starts, "<i8").tobytes())
        while block := tokens.read(1 << 22):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    body.unlink()
    os.replace(whole, path)


def open_tokens(path: Path) -> Tokens:
    """Map a token file after checking that its length is what its header says."""
    try:
        with open(path, "rb") as file:
            if file.read(8) != MAGIC:
                raise ValueError("it does not begin as a token file does")
            size = int.from_bytes(file.read(4), "little")
            header = json.loads(file.read(min(size, 1 << 16)))
        kind, n_documents, n_tokens = np.dtype(header["dtype"]), int(header["documents"]), int(header["tokens"])
        at, whole = 12 + size, path.stat().st_size
        if kind.str not in ("<u2", "<u4") or whole != at + 8 * n_documents + kind.itemsize * n_tokens or n_tokens < 2:
            raise ValueError(f"{whole} bytes do not hold {n_documents} documents of {n_tokens} tokens")
        starts = np.memmap(path, "<i8", "r", at, (n_documents,))
        stream = np.memmap(path, kind, "r", at + 8 * n_documents, (n_tokens,))
        return Tokens(path, str(header["sha256"]), starts, stream)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path}: not a whole token file ({error}); delete it, and it is made again") from None


def prepare(recipe: Recipe, folder: Path, out: Path) -> tuple[Any, dict[str, Tokens], dict[str, Tokens]]:
    """The tokenizer, and each source's training and validation tokens; made once, then found again."""
    from tokenizers import Tokenizer

    out.mkdir(parents=True, exist_ok=True)
    saved = out / "tokenizer.json"
    if not saved.exists():
        made = learn_tokenizer(recipe.tokenizer, recipe.sources, folder)
        made.save(str(out / "tokenizer.part"))
        os.replace(out / "tokenizer.part", saved)
    tokenizer = Tokenizer.from_file(str(saved))
    if tokenizer.get_vocab_size() > recipe.tokenizer.vocab_size:
        raise RecipeError(f"{saved} has {tokenizer.get_vocab_size()} tokens; expected {recipe.tokenizer.vocab_size}: delete it")
    tokenizer.encode_special_tokens = True  # special tokens spelled out in a text are text
    parts: tuple[dict[str, Tokens], dict[str, Tokens]] = ({}, {})
    spelling = hashlib.sha256(saved.read_bytes()).hexdigest()
    for source in recipe.sources:
        try:
            origin = hashlib.sha256((folder / source.path).read_bytes() + spelling.encode()).hexdigest()
        except OSError:
            raise RecipeError(f"{folder / source.path}: cannot be read; source '{source.name}' names it") from None
        for valid, part in enumerate(parts):
            path = out / "tokens" / f"{source.name}-{('train', 'valid')[valid]}-{source.validation}-{origin[:12]}.bin"
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                chosen = (d for d in documents(source, folder) if held_out(d, source.validation) == bool(valid))
                write_tokens(path, (encode(tokenizer, d) for d in chosen), tokenizer.get_vocab_size(), origin)
            if not valid or source.validation:
                try:
                    part[source.name] = open_tokens(path)
                except RecipeError:
                    if not valid:
                        raise
    return tokenizer, *parts


class Batches:
    """Every sequence of the run, by its number: which source, and where in it. Sources repeat epoch by epoch, reshuffled."""

    def __init__(self, recipe: Recipe, tokens: dict[str, Tokens]) -> None:
        self._length, self._seed = recipe.training.context + 1, recipe.seed
        self._per_step = recipe.training.batch * recipe.training.accumulate
        self._tokens = tokens
        self._choices: list[tuple[str, int]] = []
        counts = dict.fromkeys(tokens, 0)
        for number, stage in enumerate(recipe.stages):
            names = sorted(stage.mix)
            edges = np.cumsum([stage.mix[n] for n in names]) / sum(stage.mix.values())
            draws = np.random.default_rng([recipe.seed, number]).random(stage.steps * self._per_step)
            for i in np.searchsorted(edges[:-1], draws, side="right"):
                name = names[i]
                self._choices.append((name, counts[name]))
                counts[name] += 1

    def __call__(self, step: int, first: int, count: int) -> np.ndarray:
        """Sequences `first` … `first + count` of one step: (count, context + 1) int64."""
        chosen = self._choices[step * self._per_step + first :][:count]
        return np.stack([self._sequence(name, number) for name, number in chosen]).astype(np.int64)

    def _sequence(self, name: str, number: int) -> np.ndarray:
        tokens, stride = self._tokens[name], self._length - 1
        n_windows = max(1, len(tokens.stream) // stride)
        epoch, index = divmod(number, n_windows)
        order = np.random.default_rng([self._seed, epoch, *name.encode()])
        offset = int(order.integers(stride))
        return tokens.window(int(order.permutation(n_windows)[index]) * stride + offset, self._length)
