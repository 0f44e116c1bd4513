"""Whisper's tuning equals transformers' in float32: the loss, every gradient, and a LoRA's."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brolly import load
from brolly.rows import RowFault, Spoken
from brolly.train.tuning.objectives.speech import Speech
from tests.families.test_whisper import whisper
from tests.train.tuning.references import check_gradients, examples, gradients, options, rows_of, trainable

T = pytest.importorskip("transformers")
pytest.importorskip("av")


def test_speech_equals_transformers(tmp_path: Path) -> None:
    reference = whisper()
    reference.save_pretrained(tmp_path)
    model = trainable(load(tmp_path, fused=False, dtype="float32"))
    objective = object.__new__(Speech)  # without a vocabulary, which this folder has none of
    objective.network, objective.config = model.network, model.network.config
    mel, ids = torch.randn(2, 80, 80), torch.randint(4, 200, (2, 9))
    wanted = ids.roll(-1, 1)
    wanted[:, :3] = wanted[:, -1] = wanted[1, 6:] = -100  # a prompt, and a shorter row
    theirs = reference.train()(input_features=mel, decoder_input_ids=ids, labels=wanted).loss
    theirs.backward()
    loss = objective.of(mel, ids, wanted).sum() / (wanted >= 0).sum()
    loss.backward()
    assert abs(loss.item() - theirs.item()) < 1e-5
    check_gradients(gradients(model), reference, 1e-4)


def sound(path: Path, seconds: float, rate: int = 16_000) -> Path:
    samples = np.sin(np.arange(int(rate * seconds)) / 20) * 8000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def ear() -> Any:
    return load("mini-whisper", fused=False, dtype="float32")


def test_a_row_is_a_prompt_that_is_read_and_a_text_that_is_learnt(ear: Any, tmp_path: Path) -> None:
    objective = Speech(ear, options())
    (one,) = examples(objective, [Spoken(sound(tmp_path / "a.wav", 1.5), "Good night.")])
    tokens = ear.ear.tokens
    assert one.ids[:4] == (*tokens.sot_sequence("en"), tokens.no_timestamps) and one.n_prompt == 4
    assert tokens.decode(one.ids[4:-1]) == " Good night." and one.ids[-1] == tokens.eot
    assert objective.weight(one) == len(one.ids) - 4
    assert objective.frames(one.sound).shape == (80, 150)
    found = objective.measure([one, one])
    assert found["loss"][1] == 2 * objective.weight(one) and found["loss"][0] > 0


def test_frames_are_those_that_are_heard(ear: Any, tmp_path: Path) -> None:
    from brolly.media.audio import open_audio
    from brolly.tasks.transcribe.frames import frames_of

    path = sound(tmp_path / "a.wav", 2.4)
    heard, n_frames = frames_of(open_audio(path), 80, exact=True).window(0)
    mine = Speech(ear, options()).frames(path)
    assert mine.shape[1] == n_frames and np.allclose(mine, heard[:, :n_frames], atol=1e-6)


@pytest.mark.parametrize(
    ("seconds", "text", "language", "told"),
    [(31.0, "Hello.", None, "31.0 s, and Whisper hears 30 s"), (1.0, "word " * 500, None, "the model writes 448"),
     (1.0, "Hello.", "zz", "zz"), (0.001, "Hello.", None, "holds no sound")],
)  # fmt: skip
def test_what_cannot_be_heard_is_a_bad_row(
    ear: Any, tmp_path: Path, seconds: float, text: str, language: str | None, told: str
) -> None:
    spoken = Spoken(sound(tmp_path / "a.wav", seconds), text, language)
    with pytest.raises(RowFault, match=told) as caught:
        examples(Speech(ear, options()), [spoken])
    assert caught.value.where == rows_of([spoken])[0].where


def test_parts_add_up_and_a_frozen_ear_costs_no_gradient(ear: Any, tmp_path: Path) -> None:
    objective = Speech(ear, options())
    drawn = examples(objective, [Spoken(sound(tmp_path / f"{i}.wav", 1 + i), "word " * (i + 1)) for i in range(2)])
    ear.network.requires_grad_(False)
    ear.network.decoder.requires_grad_(True)
    total, found = sum(map(objective.weight, drawn)), []
    for parts in ([drawn], [[one] for one in drawn]):
        ear.network.zero_grad()
        loss = objective.backward(parts, total)
        found.append((loss.item(), ear.network.decoder.layers[0].fc1.weight.grad.float().clone()))
    assert abs(found[0][0] - found[1][0]) < 1e-5
    assert (found[0][1] - found[1][1]).norm() / found[0][1].norm() < 1e-4
    assert all(p.grad is None for p in ear.network.encoder.parameters())
