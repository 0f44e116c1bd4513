"""LoRA of encoders and Whisper: learnt as peft learns it, written so that peft loads it, and applied by us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from brolly import load
from brolly.card import Recognised
from brolly.errors import CheckpointError
from brolly.layers.transformer import Spans
from brolly.train.tuning.layout import write_adapter
from brolly.train.tuning.lora import LoraLinear, put_in
from brolly.verbs import Lora
from tests.families import text_folders
from tests.families.test_vision import TEXTS, clip, expected, pictures
from tests.families.test_whisper import whisper

T = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")


def adapted(folder: Path, out: Path, lora: Lora = Lora(rank=3)) -> tuple[Any, Any]:  # noqa: B008
    """A model, and itself with a LoRA of random numbers in training; the LoRA is in `out`."""
    base, student = load(folder, dtype="float32"), load(folder, fused=False, dtype="float32")
    torch.manual_seed(1)
    for layer in put_in(student.network, lora, student.card.recognised).values():
        nn.init.normal_(layer.lora_B, std=0.2)
        if layer.magnitude is not None:
            layer.magnitude.data *= 1.1
    write_adapter(out, recognised(student), str(folder), lora, student.network, "contrastive")
    return base, student


def recognised(model: Any) -> Recognised:
    found: Recognised = model.card.recognised
    return found


def close(mine: Tensor, theirs: Tensor, within: float = 1e-4) -> None:
    assert (mine - theirs).abs().max() < within


@pytest.mark.parametrize("lora", [Lora(rank=3), Lora(rank=3, dora=True)])
def test_clip_is_tuned_and_applied_as_peft_does(tmp_path: Path, lora: Lora) -> None:
    reference = clip()
    reference.save_pretrained(tmp_path / "base")
    base, student = adapted(tmp_path / "base", tmp_path / "lora", lora)
    theirs = expected(peft.PeftModel.from_pretrained(reference, str(tmp_path / "lora")).base_model.model)
    tuned = base.with_adapter(tmp_path / "lora")
    ids, spans = torch.tensor([i for text in TEXTS for i in text]), Spans(list(map(len, TEXTS)))
    with torch.inference_mode():
        for network in (student.network, tuned.network):
            close(network.images(pictures()), theirs["images"])
            close(network.texts(ids, spans), theirs["texts"])
        before = base.network.images(pictures())
    assert (before - theirs["images"]).abs().max() > 1e-2
    shared = [
        n for n, p in tuned.network.named_parameters() if p.data_ptr() == base.network.get_parameter(n).data_ptr()
    ]
    assert "vision_model.embeddings.patch_embedding.weight" in shared and "visual_projection.weight" not in shared
    assert base.with_adapter(tmp_path / "lora").network is not None and tuned.card.recognised is not base.card


def test_bert_is_tuned_and_applied_as_peft_does(tmp_path: Path) -> None:
    folder = text_folders.bert(tmp_path / "base")
    base, student = adapted(folder, tmp_path / "lora")
    reference = peft.PeftModel.from_pretrained(T.BertModel.from_pretrained(folder), str(tmp_path / "lora")).eval()
    tuned = base.with_adapter(tmp_path / "lora")
    ids = torch.tensor([6, 7, 8, 9])
    with torch.inference_mode():
        theirs = reference(ids[None]).last_hidden_state[0]
        for network in (student.network, tuned.network):
            close(network(ids, Spans([4])), theirs)
    assert not np.allclose(base.embed("the dog").vectors, tuned.embed("the dog").vectors)


def test_whisper_is_tuned_and_applied_as_peft_does(tmp_path: Path) -> None:
    reference = whisper()
    reference.save_pretrained(tmp_path / "base")
    base, student = adapted(tmp_path / "base", tmp_path / "lora")
    theirs = peft.PeftModel.from_pretrained(reference, str(tmp_path / "lora")).eval()
    mel, ids = torch.randn(1, 80, 80), torch.tensor([[3, 9, 8, 7]])
    from brolly.engine.cache import Causal

    with torch.inference_mode():
        told = theirs(input_features=mel, decoder_input_ids=ids).logits
        for network in (student.network, base.with_adapter(tmp_path / "lora").network):
            cross = network.cross(network.encode(mel))
            hidden = network.decode(ids, torch.arange(4)[None], Causal(network.config), cross)
            close(network.logits(hidden), told)


def test_a_lora_step_equals_pefts(tmp_path: Path) -> None:
    """The loss and every gradient of A and B, by CLIP's own loss."""
    reference = clip()
    reference.save_pretrained(tmp_path / "base")
    _, student = adapted(tmp_path / "base", tmp_path / "lora")
    theirs = peft.PeftModel.from_pretrained(reference, str(tmp_path / "lora"), is_trainable=True).train()
    texts = [TEXTS[0], TEXTS[2], TEXTS[0][:3] + TEXTS[0][-1:]]
    longest = max(map(len, texts))
    filled = torch.tensor([[*text, *text[-1:] * (longest - len(text))] for text in texts])
    loss = theirs(input_ids=filled, pixel_values=pictures(), return_loss=True).loss
    loss.backward()
    from brolly.train.tuning.objectives.contrastive import Captions, Shown
    from tests.train.tuning.references import options

    objective = Captions(student, options())
    drawn = []
    for i, (text, pixels) in enumerate(zip(texts, pictures(), strict=True)):
        objective.album.kept[Path(f"{i}.png")] = pixels.numpy()
        drawn.append(Shown(Path(f"{i}.png"), 4, tuple(text)))
    mine = objective.backward([drawn], 3)
    assert abs(mine.item() - loss.item()) < 1e-5
    names = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    layers = [(n, m) for n, m in student.network.named_modules() if isinstance(m, LoraLinear)]
    assert len(names) == 2 * len(layers)
    for name, layer in layers:
        for part, parameter in (("A", layer.lora_A), ("B", layer.lora_B)):
            told = names[f"base_model.model.{name}.lora_{part}.default.weight"]
            assert (parameter.grad - told).abs().max() / told.abs().max().clamp(min=1e-3) < 1e-4, name


def test_an_adapter_of_other_numbers_is_told(tmp_path: Path) -> None:
    clip().save_pretrained(tmp_path / "base")
    base, _ = adapted(tmp_path / "base", tmp_path / "lora")
    other = text_folders.bert(tmp_path / "other")
    with pytest.raises(CheckpointError, match="no linear layer within the blocks"):
        load(other).with_adapter(tmp_path / "lora")
