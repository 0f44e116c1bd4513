"""Encoders of texts in every layout, against transformers and sentence-transformers on the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from brolly.identity import examine
from brolly.layers.transformer import Spans
from tests.check_family import loaded
from tests.families.test_language import noisy

T = pytest.importorskip("transformers")

SMALL = dict(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
LONG = SMALL | dict(max_position_embeddings=40)
TEXTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], [9, 2], [11, 12, 13, 14], [3, 4, 3, 4]]
NETWORKS = {
    "BERT": ("Bert", LONG),
    "RoBERTa": ("Roberta", LONG | dict(pad_token_id=1)),
    "XLM-RoBERTa": ("XLMRoberta", LONG | dict(type_vocab_size=1)),
    "CamemBERT": ("Camembert", LONG | dict(type_vocab_size=1)),
    "MPNet": ("MPNet", LONG),
    "DistilBERT": (
        "DistilBert", dict(vocab_size=99, dim=32, hidden_dim=48, n_layers=3, n_heads=4, max_position_embeddings=40)
    ),
    "ModernBERT": ("ModernBert", LONG | dict(local_attention=8, pad_token_id=0)),
    "Nomic Embed": ("NomicBert", LONG),
    "GTE": ("Gte", LONG),
}  # fmt: skip


def reference(family: str, kind: str = "Model", **changes):
    """transformers' network of a family, every parameter moved."""
    name, config = NETWORKS[family]
    torch.manual_seed(0)
    config = getattr(T, f"{name}Config")(**(config | changes))
    return noisy(getattr(T, f"{name}{kind}")(config))


def row(texts: list[list[int]]) -> tuple[torch.Tensor, Spans]:
    return torch.tensor([i for text in texts for i in text]), Spans([len(text) for text in texts])


def hidden(model, texts: list[list[int]] = TEXTS) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([text])).last_hidden_state[0] for text in texts])


def check_texts(folder: Path, family: str, expected: torch.Tensor):
    """The folder is one of this family, says that it embeds, and its hidden states are these. Returns the network."""
    network = loaded(folder, family)[1]
    told = examine(folder)
    assert (told.kind.family, told.verbs) == (family, ("embed",)), (told.kind, told.verbs_why)
    with torch.inference_mode():
        assert (network(*row(TEXTS)) - expected).abs().max() < 1e-4
    return network


def rewritten(folder: Path, change) -> None:
    """The folder's tensors under other names: `change(name)` gives the new one, or None to leave it out."""
    tensors = load_file(folder / "model.safetensors")
    renamed = {new: tensor for name, tensor in tensors.items() if (new := change(name))}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("family", NETWORKS)
def test_network_equals_transformers(tmp_path: Path, family: str) -> None:
    model = reference(family)
    model.save_pretrained(tmp_path)
    check_texts(tmp_path, family, hidden(model))


@pytest.mark.parametrize("family", NETWORKS)
def test_masked_language_model_embeds_without_its_head(tmp_path: Path, family: str) -> None:
    model = reference(family, "ForMaskedLM")
    model.save_pretrained(tmp_path)
    check_texts(tmp_path, family, hidden(model.base_model))


@pytest.mark.parametrize("family", NETWORKS)
def test_judge_of_pairs_equals_transformers(tmp_path: Path, family: str) -> None:
    model = reference(family, "ForSequenceClassification", num_labels=1)
    model.save_pretrained(tmp_path)
    network = loaded(tmp_path, family)[1]
    assert examine(tmp_path).verbs == ("rerank",)
    types = [[0] * 3 + [1] * (len(text) - 3) if len(text) > 3 else [0] * len(text) for text in TEXTS]
    named = network.config.n_types > 1
    with torch.inference_mode():
        more = [dict(token_type_ids=torch.tensor([t])) if named else {} for t in types]
        expected = torch.cat([model(torch.tensor([i]), **m).logits for i, m in zip(TEXTS, more, strict=True)])
        ids, spans = row(TEXTS)
        found = network.scores(ids, spans, torch.tensor([t for text in types for t in text]) if named else None)
    assert (found - expected).abs().max() < 1e-4
