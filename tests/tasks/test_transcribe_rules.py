"""The parts of transcribing, each against plain code or by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from brolly.media.audio.mel import log_mel, loudest
from brolly.tasks.transcribe.align import first_places, median
from brolly.tasks.transcribe.attempts import compression_ratio
from brolly.tasks.transcribe.beams import Beams, Candidate, Samples, best, write
from brolly.tasks.transcribe.context import Context
from brolly.tasks.transcribe.frames import Frames
from brolly.tasks.transcribe.rules import Rules
from brolly.tasks.transcribe.window import cut
from brolly.tasks.transcribe.words import Spoken, attach
from brolly.verbs import TranscribeOptions

EOT, SOT, NO_TIMES, BEGIN, SIZE = 10, 11, 13, 14, 30  # tokens 0 … 9 are words, 14 … 29 are times


class Tokens:
    """A vocabulary of thirty."""

    eot, sot, sot_prev, no_timestamps, timestamp_begin = EOT, SOT, 12, NO_TIMES, BEGIN
    suppressed, suppressed_first = (9, SOT, 12), (8, EOT)

    def sot_sequence(self, language: str, translate: bool) -> tuple[int, ...]:
        return (SOT,)

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]


def rules(**given: Any) -> Rules:
    tokens: Any = Tokens()
    return Rules(tokens, torch.device("cpu"), first_time=3, **given)


def allowed(written: Sequence[int], logits: Tensor | None = None, **given: Any) -> set[int]:
    logits = torch.zeros(1, SIZE) if logits is None else logits.clone()
    logits[0, :BEGIN] += 5  # a word is likelier than all times together
    rules(**given).apply(logits, torch.tensor([list(written)], dtype=torch.long))
    return {i for i in range(SIZE) if logits[0, i] > -torch.inf}


def test_times_open_and_close_segments_and_never_go_back() -> None:
    words = set(range(9))
    assert allowed([]) == set(range(BEGIN, BEGIN + 4))
    assert allowed([BEGIN + 2]) == words | {EOT}
    assert allowed([BEGIN + 2, 1]) == words | {EOT} | set(range(BEGIN + 3, SIZE))
    assert allowed([BEGIN + 2, 1, BEGIN + 5]) == {EOT} | set(range(BEGIN + 5, SIZE))
    assert allowed([BEGIN + 2, 1, BEGIN + 5, BEGIN + 5]) == words | {EOT}


def test_all_times_together_outweigh_single_words() -> None:
    logits = torch.zeros(1, SIZE)
    logits[0, :BEGIN] = -5 + 1.0
    assert allowed([BEGIN, 1], logits) == set(range(BEGIN + 1, SIZE))


def test_phrases_are_written_once_where_asked() -> None:
    written = [BEGIN, 1, 2, 3, 4, 1, 2]
    assert 3 in allowed(written)
    assert 3 not in allowed(written, repeats=3)
    assert 3 in allowed(written, repeats=4)
    assert EOT in allowed([BEGIN, 1, EOT, 1], repeats=2)


class Paper:
    """Writing whose next logits are a fixed table's: (last token) → logits."""

    def __init__(self, table: Tensor, n_windows: int, last: Tensor | None = None) -> None:
        self.table, self.last = table, torch.full((n_windows,), SOT) if last is None else last

    @property
    def n_rows(self) -> int:
        return len(self.last)

    def prompt_logits(self) -> Tensor:
        return self.table[self.last].clone()

    def fork(self, rows: int) -> Paper:
        return Paper(self.table, 0, self.last.repeat_interleave(rows))

    def reorder(self, rows: Sequence[int]) -> None:
        self.last = self.last[list(rows)]

    def keep(self, windows: Sequence[int]) -> None: ...

    def step(self, tokens: Tensor) -> Tensor:
        self.last = tokens
        return self.table[tokens].clone()


class Free(Rules):
    """No rules."""

    def __init__(self) -> None: ...
    def apply(self, logits: Tensor, written: Tensor) -> None: ...


def likeliest(table: Tensor, most: int) -> tuple[list[int], float]:
    """Every text to its end, by brute force."""
    shares = table.log_softmax(1)
    found: list[tuple[list[int], float]] = []

    def go(text: list[int], score: float) -> None:
        for token in range(SIZE):
            total = score + float(shares[text[-1] if text else SOT, token])
            if token == EOT:
                found.append((text, total))
            elif len(text) + 1 < most and token < 5:
                go([*text, token], total)

    go([], 0.0)
    return max(found, key=lambda one: one[1])


def test_wide_beams_find_the_likeliest_text() -> None:
    torch.manual_seed(0)
    table = torch.randn(SIZE, SIZE) * 2
    table[:, 5:] = -60
    table[:, EOT] = -1.0
    text, score = likeliest(table, 4)
    paper: Any = Paper(table, 2)
    for texts in write(paper, Beams(25, 2, EOT, patience=3.0), Free(), 4):
        found = max((one for one in texts if len(one.tokens) < 4), key=lambda one: one.score)
        assert found.tokens == text and found.score == pytest.approx(score, abs=1e-4)


def test_samples_are_scored_up_to_their_end() -> None:
    torch.manual_seed(0)
    table = torch.randn(SIZE, SIZE)
    shares = table.log_softmax(1)
    generator = torch.Generator().manual_seed(0)
    paper: Any = Paper(table, 3)
    for texts in write(paper, Samples(4, 3, EOT, 0.7, generator), Free(), 12):
        assert len(texts) == 4
        for one in texts:
            path = [SOT, *one.tokens, EOT][:13]
            total = sum(float(shares[a, b]) for a, b in zip(path, path[1:], strict=False))
            assert one.score == pytest.approx(total, abs=1e-4)


def test_a_length_penalty_changes_the_choice() -> None:
    short, long = Candidate([1], -1.0), Candidate([1] * 10, -5.0)
    assert best([short, long], None) is long
    assert best([short, long], 0.2) is short


def test_what_follows_the_last_pair_belongs_to_the_next_window_unless_a_window_stands_alone() -> None:
    tokens: Any = Tokens()
    ids = [BEGIN, 1, BEGIN + 5, BEGIN + 6, 2, 3]
    found = cut(ids, 100, 3000, tokens)
    assert [(d.start, d.end, d.tokens) for d in found.drafts] == [(1.0, 1.1, ids[:3])]
    assert (found.n_frames, found.closed) == (10, False)
    alone = cut(ids, 100, 3000, tokens, alone=True).drafts
    assert [(d.start, d.end, d.tokens) for d in alone[1:]] == [(1.12, 31.0, ids[3:])]
    assert cut([*ids, BEGIN + 9], 100, 700, tokens).n_frames == 700


def test_context_is_cut_and_dropped_after_a_hot_window() -> None:
    tokens: Any = Tokens()
    context = Context(tokens, "en", TranscribeOptions(prompt="1 2", hotwords="7"), 4)
    assert context.prompt() == [12, 7, 1, 2, SOT]
    context.add([3, 4], 0.0)
    assert context.prompt() == [12, 7, 2, 3, 4, SOT]
    context.add([5], 0.8)
    assert context.prompt() == [12, 7, SOT]
    assert Context(tokens, "en", TranscribeOptions(), 4).prompt() == [SOT]


def test_punctuation_joins_its_word() -> None:
    words = [Spoken(text, 1, i, i + 1, 1.0) for i, text in enumerate([" (", "Ask", " not", ",", " what", "."])]
    attach(words)
    assert [w.text for w in words if w.text] == [" (Ask", " not,", " what."]
    assert sum(w.n_tokens for w in words) == 6


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (9, 1), (6, 40), (40, 6)])
@pytest.mark.parametrize("kind", ["any", "ties", "flat"])
def test_the_warped_path_is_openais(n: int, m: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timing = pytest.importorskip("whisper.timing", reason="openai-whisper, the reference, is not installed")
    x = torch.randn(n, m, generator=torch.Generator().manual_seed(n))
    x = {"any": x, "ties": x.round(), "flat": x * 0}[kind]
    monkeypatch.setattr(timing, "backtrace", timing.backtrace.py_func)  # as it is written, not compiled
    rows, places = timing.dtw_cpu.py_func(np.asarray(-x.double()))
    jumps = np.pad(np.diff(rows), (1, 0), constant_values=1).astype(bool)
    assert first_places(x).tolist() == places[jumps].tolist()


@pytest.mark.parametrize("n", [1, 3, 4, 7, 50])
def test_the_median_of_seven_is_that_of_sorting(n: int) -> None:
    x = torch.randn(2, 3, n, generator=torch.Generator().manual_seed(n))
    expected = x
    if n > 3:
        padded = torch.nn.functional.pad(x, (3, 3), mode="reflect")
        expected = padded.unfold(-1, 7, 1).sort().values[..., 3]
    assert torch.equal(median(x), expected)


def test_frames_of_pieces_are_read_from_any_place_and_forgotten_behind_it() -> None:
    samples = np.random.default_rng(0).standard_normal(16_000 * 70).astype(np.float32)
    whole = log_mel(samples, 80, padding=480_000)
    frames = Frames(np.array_split(samples, 13), 80, loudest([samples]))
    for start in (0, 1234, 1300, 5000):
        window, n_frames = frames.window(start)
        assert n_frames == min(3000, 7000 - start)
        np.testing.assert_allclose(window[:, :n_frames], whole[:, start : start + n_frames], atol=1e-6)
        assert not window[:, n_frames:].any()
    assert frames.window(7000)[1] == 0 and frames.length == 7000


def test_a_text_that_repeats_itself_packs_well() -> None:
    assert compression_ratio("") == 0
    assert compression_ratio("ha " * 100) > 10 > 1.5 > compression_ratio("Ask not what your country can do for you.")
