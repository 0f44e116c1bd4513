"""Contrast equals transformers' and sentence-transformers' in float32: losses, gradients, LoRA; and cached = plain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brolly import load
from brolly.rows import Captioned, Labelled, Pair
from brolly.train.tuning.objectives.contrastive import Answers, Captions
from tests.families import text_folders
from tests.families.test_vision import clip, siglip
from tests.run.seeing import END, START, write_tokenizer
from tests.train.tuning.references import check_gradients, examples, gradients, options, trainable

T = pytest.importorskip("transformers")
ST = pytest.importorskip("sentence_transformers")
Image = pytest.importorskip("PIL.Image")

PAIRS = [
    Pair("the dog", "a cat!", ("dogging", "a a a")),
    Pair("cat", "the cat-dog?", ("bcd", "the")),
    Pair("who: é", "nobody", ("x", "yz, yz")),
]


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    folder = text_folders.bert(tmp_path, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return text_folders.modules(
        folder,
        ("", "sentence_transformers.models.Transformer", None),
        ("1_Pooling", "sentence_transformers.models.Pooling",
         {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}),
        ("2_Normalize", "sentence_transformers.models.Normalize", None),
    )  # fmt: skip


def plain(folder: Path) -> Any:
    return load(folder, fused=False, dtype="float32")


@pytest.mark.parametrize("cached", [False, True])
def test_answers_equal_multiple_negatives_ranking(embedder: Path, cached: bool) -> None:

    from sentence_transformers.sentence_transformer import losses

    reference = ST.SentenceTransformer(str(embedder), device="cpu")
    kind = losses.CachedMultipleNegativesRankingLoss if cached else losses.MultipleNegativesRankingLoss
    loss = kind(reference, **({"mini_batch_size": 2} if cached else {}))
    columns = [[p.query for p in PAIRS], [p.positive for p in PAIRS], *zip(*(p.negatives for p in PAIRS), strict=True)]
    reference.train()
    theirs = loss([reference.preprocess(list(column)) for column in columns], None)
    theirs.backward()
    model = trainable(plain(embedder))
    objective = Answers(model, options(part=8 if cached else None))
    mine = objective.backward([examples(objective, PAIRS)], 3)
    assert abs(mine.item() - theirs.item()) < 1e-5
    check_gradients(gradients(model), reference[0].auto_model, 1e-4)


def test_cached_equals_plain(embedder: Path) -> None:
    found = []
    for part in (None, 1):
        model = trainable(plain(embedder))
        objective = Answers(model, options(part=part))
        found.append((float(objective.backward([examples(objective, PAIRS)], 3)), gradients(model)))
    (plain_loss, one), (cached_loss, two) = found
    assert abs(plain_loss - cached_loss) < 1e-6
    apart = torch.cat([(one[name] - two[name]).flatten() for name in one]).norm()
    length = torch.cat([g.flatten() for g in one.values()]).norm()
    assert length > 1e-2 and apart / length < 1e-6


def test_cached_drops_the_same_numbers_twice(embedder: Path) -> None:
    from brolly.train.tuning.objectives.sides import Side, backward

    weight = torch.ones(3, requires_grad=True)
    seen: list[torch.Tensor] = []

    def encode(items: Any) -> torch.Tensor:
        kept = torch.nn.functional.dropout(torch.ones(len(items), 3), 0.5)
        seen.append(kept)
        return kept * weight

    backward([Side([0, 1, 2, 3], [1] * 4, encode)], lambda vectors: (vectors[0] ** 2).sum(), 2)
    assert torch.equal(torch.stack(seen[:2]), torch.stack(seen[2:]))
    assert torch.equal(weight.grad, 2 * torch.cat(seen[:2]).square().sum(0))


def test_what_is_right_is_never_held_against_a_query(embedder: Path) -> None:
    model = trainable(plain(embedder))
    objective = Answers(model, options())
    twice = [Pair("dog", "cat"), Pair("dog", "the", ("cat",)), Pair("x", "cat"), Pair("x", "b", (), ("the",))]
    step = objective.step(examples(objective, twice))
    assert len(step.texts.items) == 5  # dog, x, cat, the, b
    assert step.own.tolist() == [0, 1, 0, 2]
    assert step.also.tolist() == [
        [False, True, False], [True, False, False], [False, True, True], [True, True, False],
    ]  # fmt: skip


def test_roles_stand_before_what_is_read(embedder: Path) -> None:
    text_folders.write(
        embedder / "config_sentence_transformers.json", {"prompts": {"query": "cat: ", "document": "x "}}
    )
    model = plain(embedder)
    (one,) = examples(Answers(model, options()), [Pair("a", "b")])
    assert list(one.query) == model.tokenizer.encode("cat: a") and list(one.positive) == model.tokenizer.encode("x b")


def two_towers(folder: Path, kind: str) -> Any:
    """A transformers' CLIP or SigLIP, and its folder with a tokenizer and settings."""
    vocabulary = write_tokenizer(folder)
    ends = dict(eos_token_id=vocabulary[END], bos_token_id=vocabulary[START], pad_token_id=vocabulary[END])
    sizes = ends | dict(vocab_size=len(vocabulary))
    model = clip(text=sizes) if kind == "clip" else siglip(vocab_size=len(vocabulary))
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("part", [None, 1])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_captions_equal_transformers(tmp_path: Path, kind: str, part: int | None) -> None:
    reference = two_towers(tmp_path, kind)
    model = trainable(plain(tmp_path))
    rng = np.random.default_rng(0)
    pixels = rng.standard_normal((4, 3, 32, 32), np.float32)
    objective = Captions(model, options(part=part))
    values = []
    for i, one in enumerate(pixels):
        objective.album.kept[Path(f"{i}.png")] = one
        values.append(Captioned(Path(f"{i}.png"), ("red", "green", "a blue", "a photo")[i]))
    drawn = examples(objective, values)
    longest = max(len(one.caption) for one in drawn)
    ids = torch.tensor([[*one.caption, *[one.caption[-1]] * (longest - len(one.caption))] for one in drawn])
    theirs = reference.train()(input_ids=ids, pixel_values=torch.from_numpy(pixels), return_loss=True).loss
    theirs.backward()
    mine = objective.backward([drawn], 4)
    assert abs(mine.item() - theirs.item()) < 1e-5
    check_gradients(gradients(model), reference, 1e-4)


def squared(vectors: Any) -> torch.Tensor:
    return (vectors[0] @ vectors[1].t()).square().sum() * SCALED


SCALED = torch.nn.Parameter(torch.tensor(0.5))


def two_sides() -> tuple[Any, list[Any]]:
    from brolly.train.tuning.objectives.sides import Side

    torch.manual_seed(3)
    layers = [torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)]
    inputs = [torch.randn(5, 4), torch.randn(3, 4)]
    return layers, [
        Side(list(range(len(x))), [1] * len(x), lambda items, f=f, x=x: f(x[list(items)]))
        for f, x in zip(layers, inputs, strict=True)
    ]


def one_of_two(rank: int, folder: str, queue: Any) -> None:
    from brolly.train.tuning.objectives.sides import backward

    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    layers, sides = two_sides()
    loss = backward(sides, squared, 2)
    grads = [p.grad.clone() for f in layers for p in f.parameters()]
    queue.put((float(loss), [g.tolist() for g in grads], 0.0 if SCALED.grad is None else float(SCALED.grad)))
    torch.distributed.destroy_process_group()


def test_two_processes_add_up_to_one(tmp_path: Path) -> None:
    """Each computes some of the vectors; the contrast is among all of them."""
    from multiprocessing import get_context

    from brolly.train.tuning.objectives.sides import backward

    context = get_context("fork")
    queue: Any = context.Queue()
    every = [context.Process(target=one_of_two, args=(rank, str(tmp_path), queue)) for rank in range(2)]
    for process in every:
        process.start()
    found = [queue.get(timeout=60) for _ in every]
    for process in every:
        process.join(60)
    layers, sides = two_sides()
    SCALED.grad = None
    loss = backward(sides, squared, 100)
    assert abs(sum(one[0] for one in found) - loss.item()) < 1e-4
    assert abs(sum(one[2] for one in found) - SCALED.grad.item()) < 1e-4
    for i, parameter in enumerate(p for f in layers for p in f.parameters()):
        total = torch.tensor(found[0][1][i]) + torch.tensor(found[1][1][i])
        assert (total - parameter.grad).abs().max() < 1e-4


def test_a_labels_pictures_are_no_negatives_of_its_caption(tmp_path: Path) -> None:
    two_towers(tmp_path, "clip")
    model = plain(tmp_path)
    objective = Captions(model, options())
    for i in range(3):
        objective.album.kept[Path(f"{i}.png")] = np.full((3, 32, 32), i, np.float32)
    drawn = examples(objective, [Labelled(Path("0.png"), "red"), Labelled(Path("1.png"), "red"),
                                 Labelled(Path("2.png"), "sea_blue")])  # fmt: skip
    assert list(drawn[2].caption) == model.tokenizer.encode("a photo of a sea blue.") and len(objective.labels) == 2
    logits = torch.tensor([[2.0, -1.0], [0.5, 1.5], [0.0, 3.0]], dtype=torch.float64)
    _, seen, said = objective.sides(drawn)
    by_picture = -logits.log_softmax(1)[[0, 1, 2], [0, 0, 1]].sum()
    columns = logits.t()
    own = [columns[0, [0, 2]].log_softmax(0)[0], columns[0, [1, 2]].log_softmax(0)[0], columns[1].log_softmax(0)[2]]
    expected = (by_picture - sum(own)) / 2
    assert abs(objective.loss(logits, seen, said).item() - expected.item()) < 1e-6
    assert objective.measure(drawn)["accuracy"][1] == 3
