"""Blocks computed twice give the same gradients, bit for bit, and keep less."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from brolly.layers.transformer import Spans
from brolly.loader import load
from brolly.train.tuning.examples import Tokens
from brolly.train.tuning.lora import put_in
from brolly.train.tuning.objectives.next_token import NextToken
from brolly.train.tuning.objectives.speech import Speech
from brolly.train.tuning.quick import quicken
from brolly.train.tuning.recompute import blocks_of, recompute
from brolly.verbs import Lora, TuneOptions
from tests.families import text_folders
from tests.families.test_vision import clip
from tests.families.test_whisper import whisper
from tests.train.tuning.bases import WRITE

T = pytest.importorskip("transformers")
IDS = [5, 17, 260, 3, 99, 41, 7, 8, 12]


def next_token(model: Any) -> Callable[[], Tensor]:
    objective = NextToken(model, TuneOptions())
    examples = [Tokens(ids, [False, *[True] * (len(ids) - 1)]) for ids in (IDS, IDS[3:])]
    return lambda: objective.losses(examples).sum()


def speech(model: Any) -> Callable[[], Tensor]:
    objective = object.__new__(Speech)
    objective.network, objective.config = model.network, model.network.config
    mel, ids = torch.randn(2, 80, 80), torch.randint(4, 200, (2, 9))
    return lambda: objective.of(mel, ids, ids.roll(-1, 1)).sum()


def seen(model: Any) -> Callable[[], Tensor]:
    side = model.network.config.vision.image_size
    pictures, ids = torch.randn(2, 3, side, side), torch.tensor([1, 2, 3, 4, 5])

    def loss() -> Tensor:
        found: Tensor = model.network.logits(
            model.network.images(pictures), model.network.texts(ids, Spans([2, 3], ids.device))
        )
        return found.square().sum()

    return loss


def read(model: Any) -> Callable[[], Tensor]:
    ids = torch.tensor([1, 2, 3, 4, 5])
    return lambda: model.network.texts(ids, Spans([2, 3], ids.device)).square().sum()


def write_whisper(folder: Path) -> None:
    whisper().save_pretrained(folder)


KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[Any], Callable[[], Tensor]]]] = {
    "llama": (WRITE["llama"], next_token),
    "gpt2": (WRITE["gpt2"], next_token),
    "whisper": (write_whisper, speech),
    "clip": (lambda folder: clip().save_pretrained(folder), seen),
    "bert": (text_folders.bert, read),
}


def kept(loss: Callable[[], Tensor], network: Any) -> tuple[list[Tensor], int]:
    """The gradients, and the bytes that the forward keeps for them."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = loss()
    found.backward()
    grads = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad()
    return grads, sum(saved.values())


@pytest.mark.parametrize("lora", [None, Lora(rank=4, dropout=0.2)], ids=["full", "LoRA"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_same_bits(kind: str, lora: Lora | None, tmp_path: Path) -> None:
    write, ask = KINDS[kind]
    write(tmp_path)
    model = load(tmp_path, device="cpu", dtype="float32", fused=False)
    if lora:
        put_in(model.network, lora)
        for name, parameter in model.network.named_parameters():
            if name.endswith("lora_B"):
                torch.nn.init.normal_(parameter, std=0.1)
    else:
        model.network.requires_grad_(True)
    model.network.train()
    loss = ask(model)
    expected, before = kept(loss, model.network)
    assert recompute(model.network) == len(blocks_of(model.network)) > 1
    found, after = kept(loss, model.network)
    assert len(found) == len(expected) > 8 and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert after < before
    recompute(model.network, wanted=False)
    again, whole = kept(loss, model.network)
    assert whole == before and all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def test_quick_blocks_have_a_way_of_their_own(tmp_path: Path) -> None:
    WRITE["llama"](tmp_path)
    model = load(tmp_path, device="cpu", dtype="float32", fused=False)
    put_in(model.network, Lora(rank=4))
    quicken(model.network)
    loss = next_token(model)
    expected, before = kept(loss, model.network)
    recompute(model.network)
    found, after = kept(loss, model.network)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)) and after < before
