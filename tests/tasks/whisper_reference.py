"""A small random Whisper whose rules fire, in openai-whisper's code and in ours, and how their transcripts compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import whisper
from whisper.model import ModelDimensions
from whisper.model import Whisper as Reference

import brolly
from brolly.media.audio import open_audio
from brolly.model import Model
from brolly.verbs import Transcript
from tests.media.audio.sounds import JFK

DIM, N_LAYERS, N_HEADS = 64, 2, 2
ENGLISH, MULTILINGUAL, V3 = 51864, 51865, 51866


def reference(seed: int, *, times: float = 2.0, ends: float = 2.4, n_vocab: int = MULTILINGUAL) -> Any:
    """openai-whisper's network with noise in every parameter; a direction that the last norm prefers makes times and
    the end of a text likely, more so the larger `times` and `ends`."""
    torch.manual_seed(seed)
    n_mels = 128 if n_vocab == V3 else 80
    sizes = (1500, DIM, N_HEADS, N_LAYERS, n_vocab, 448, DIM, N_HEADS, N_LAYERS)
    network = Reference(ModelDimensions(n_mels, *sizes)).eval()
    liked = torch.nn.functional.normalize(torch.randn(DIM), dim=0)
    first_time = n_vocab - 1501
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        words = network.decoder.token_embedding.weight
        words.normal_(0, 0.5)
        network.decoder.positional_embedding.normal_(0, 0.5)
        words[first_time:] += times * liked
        words[50257 if n_vocab > ENGLISH else 50256] += ends * liked
        network.decoder.ln.bias.add_(3 * liked)
    return network


def ours(network: Any, folder: Path) -> Model:
    """The same weights, by way of OpenAI's file."""
    path = folder / "model.pt"
    torch.save({"dims": vars(network.dims), "model_state_dict": network.state_dict()}, path)
    return brolly.load(path, device="cpu", dtype="float32")


def sound(seconds: float = 40.0) -> Any:
    """Speech, a pause, quiet speech, speech backwards, noise, and loud speech."""
    speech = open_audio(JFK).samples()
    noise = np.random.default_rng(0).standard_normal(160_000).astype(np.float32) * 0.05
    pause = np.zeros(70_000, np.float32)
    whole = np.concatenate([speech, pause, speech * 0.2, speech[::-1], noise, speech * 2, pause, *[speech] * 4])
    return whole[: int(seconds * 16_000)]


def transcribed(network: Any, samples: Any, options: dict[str, Any]) -> dict[str, Any]:
    """openai-whisper's transcript with our options."""
    given = dict(options)
    names = {"words": "word_timestamps", "prompt": "initial_prompt", "carry_prompt": "carry_initial_prompt"}
    given = {names.get(name, name): value for name, value in given.items()}
    given["task"] = "translate" if given.pop("translate", False) else "transcribe"
    if given.get("beam_size") == 1:
        del given["beam_size"]
    torch.manual_seed(given.pop("seed", 0))
    return whisper.transcribe(network, samples, fp16=False, **given)


def assert_same(found: Transcript, expected: dict[str, Any]) -> None:
    """Text, tokens, times, scores and words; segments that say nothing are not handed on by us."""
    assert (found.text, found.language) == (expected["text"], expected["language"])
    rows = [row for row in expected["segments"] if row["text"]]
    assert [s.tokens for s in found.segments] == [tuple(row["tokens"]) for row in rows]
    for s, row in zip(found.segments, rows, strict=True):
        assert (s.start, s.end, s.text) == (row["start"], row["end"], row["text"])
        assert s.temperature == row["temperature"]
        scores = (s.avg_logprob, s.compression_ratio, s.no_speech_prob)
        wanted = (row["avg_logprob"], row["compression_ratio"], row["no_speech_prob"])
        np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-6)
        words = row.get("words", ())
        assert [(w.word, w.start, w.end) for w in s.words or ()] == [(w["word"], w["start"], w["end"]) for w in words]
        shares = [w.probability for w in s.words or ()], [w["probability"] for w in words]
        np.testing.assert_allclose(*shares, rtol=1e-3, atol=1e-6)
