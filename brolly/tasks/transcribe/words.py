"""A time and a probability for each word, by where the decoder's attention looked while it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch

from brolly.engine.listen import Heard
from brolly.tasks.transcribe.align import first_places, sharpened
from brolly.tasks.transcribe.attempts import Ear
from brolly.tasks.transcribe.window import PER_STEP, Draft, seconds
from brolly.verbs import Word

OPENING = "\"'“¿([{-"  # belongs to the word behind it
CLOSING = "\"'.。,，!！?？:：”)]}、"  # belongs to the word before it
SENTENCE_ENDS = ".。!！?？"
PLACES = 50  # a second
LONGEST = 0.7  # seconds that a usual word takes at most


@dataclass
class Spoken:
    """One word of a window: times in seconds of the window, how many tokens it has."""

    text: str
    n_tokens: int
    start: float
    end: float
    probability: float

    @property
    def length(self) -> float:
        return self.end - self.start


def add_words(
    ear: Ear, heard: Heard, windows: Sequence[list[Draft]], starts: Sequence[int], n_frames: Sequence[int],
    language: str, spoken_until: Sequence[float], *, translate: bool = False,
) -> None:  # fmt: skip
    """Give the drafts of windows, which begin at frames `starts` and have `n_frames` of sound, their words, and times
    by their words. `spoken_until` is when the last word before each window ended."""
    texts = [[i for d in drafts for i in d.tokens if i < ear.tokens.eot] for drafts in windows]
    aligned = spoken(ear, heard, texts, n_frames, language, translate=translate)
    for drafts, words, start, until in zip(windows, aligned, starts, spoken_until, strict=True):
        usual = shorten(words)
        attach(words)
        share(drafts, words, seconds(start), usual, until, ear.tokens.eot)


@torch.inference_mode()
def spoken(
    ear: Ear, heard: Heard, texts: Sequence[list[int]], n_frames: Sequence[int], language: str, *,
    translate: bool = False,
) -> list[list[Spoken]]:  # fmt: skip
    """The words of each window's text, as they are spoken."""
    tokens = ear.tokens
    begin = [*tokens.sot_sequence(language, translate=translate), tokens.no_timestamps]
    rows = [[*begin, *text, tokens.eot] for text in texts]
    if not any(texts):
        return [[] for _ in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[tokens.eot] * (longest - len(row))] for row in rows])
    hidden, scores = ear.listener.align(heard, ids, ear.heads)
    found: list[list[Spoken]] = []
    for i, text in enumerate(texts):
        if not text:
            found.append([])
            continue
        end = len(begin) + len(text)  # of the text, where its last token is looked for too
        likeness = sharpened(scores[i, :, : end + 1, : max(n_frames[i] // PER_STEP, 1)])
        times = (first_places(likeness[len(begin) - 1 : end]) / PLACES).tolist()
        shares = ear.listener.logits(hidden[i, len(begin) - 1 : end - 1])[:, : tokens.eot].softmax(-1)
        probabilities = shares[torch.arange(len(text)), torch.tensor(text)].tolist()
        words = tokens.words([*text, tokens.eot], language)
        edges = [0, *accumulate(len(its) for _, its in words[:-1])]
        found.append([
            Spoken(word, b - a, times[a], times[b], float(np.mean(probabilities[a:b])))
            for (word, _), (a, b) in zip(words, pairwise(edges), strict=False)
        ])  # fmt: skip
    return found


def shorten(words: list[Spoken]) -> float:
    """Cut words that last too long beside the end of a sentence, where a pause was taken for speech; how long a usual
    word takes."""
    lengths = [w.length for w in words if w.length]
    usual = min(LONGEST, float(np.median(lengths))) if lengths else 0.0
    for before, word in pairwise(words):
        if word.length > 2 * usual and lengths:
            if word.text in SENTENCE_ENDS:
                word.end = word.start + 2 * usual
            elif before.text in SENTENCE_ENDS:
                word.start = word.end - 2 * usual
    return usual


def attach(words: list[Spoken]) -> None:
    """Join punctuation to the words that it belongs to; its own words become empty."""
    if len(words) < 2:
        return
    behind = words[-1]
    for word in reversed(words[:-1]):
        if word.text.startswith(" ") and word.text.strip() in OPENING:
            behind.text, behind.n_tokens = word.text + behind.text, word.n_tokens + behind.n_tokens
            word.text, word.n_tokens = "", 0
        else:
            behind = word
    before = words[0]
    for word in words[1:]:
        if not before.text.endswith(" ") and word.text in CLOSING:
            before.text, before.n_tokens = before.text + word.text, before.n_tokens + word.n_tokens
            word.text, word.n_tokens = "", 0
        else:
            before = word


def share(drafts: list[Draft], words: list[Spoken], offset: float, usual: float, until: float, eot: int) -> None:
    """Give each draft its words, and words and drafts times that agree: `until` is when the last word before ended."""
    left = iter(words)
    for draft in drafts:
        n_tokens, mine = sum(i < eot for i in draft.tokens), []
        while n_tokens > 0 and (word := next(left, None)):
            n_tokens -= word.n_tokens
            if word.text:
                start, end = round(offset + word.start, 2), round(offset + word.end, 2)
                mine.append(Spoken(word.text, word.n_tokens, start, end, word.probability))
        if mine:
            settle(draft, mine, usual, until)
            until = draft.end
        draft.words = [Word(w.start, w.end, w.text, w.probability) for w in mine]


def settle(draft: Draft, words: list[Spoken], usual: float, until: float) -> None:
    """A draft begins and ends with its words, unless these last too long: then the draft knows better."""
    first, last, most = words[0], words[-1], 2 * usual
    second = words[1] if len(words) > 1 else None
    if first.end - until > 2 * most and (
        first.length > most or (second is not None and second.end - first.start > 2 * most)
    ):  # the first words after a pause swallowed it
        if second is not None and second.length > most:
            first.end = second.start = max(second.end / 2, second.end - most)
        first.start = max(0, first.end - most)
    if draft.start < first.end and draft.start - 0.5 > first.start:
        first.start = max(0, min(first.end - usual, draft.start))
    else:
        draft.start = first.start
    if draft.end > last.start and draft.end + 0.5 < last.end:
        last.end = max(last.start + usual, draft.end)
    else:
        draft.end = last.end
