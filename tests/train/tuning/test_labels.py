"""Classifiers on encoders: what is learnt equals transformers' in float32, loads there, with peft, and here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from brolly import load
from brolly.cli import main
from brolly.errors import RecipeError
from brolly.rows import Labelled, RowFault, open_rows
from brolly.train.tuning import tune
from brolly.train.tuning.merge import merge
from brolly.train.tuning.objectives.labels import Labels
from brolly.verbs import Lora
from tests.families.test_vision import dino
from tests.families.text_folders import bert, modules
from tests.train.tuning.references import check_gradients, examples, gradients, options, rows_of, trainable

T = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")
peft = pytest.importorskip("peft")

TEXTS = [("the dog", "good"), ("a cat!", "bad"), ("dogging the cat", "good"), ("b c d", "bad")]
QUICK: dict[str, Any] = dict(steps=6, batch=4, lr=0.01, dtype="float32", held_out=0.0)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in TEXTS * 4))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i in range(8):
        name, shade = ("dark", 30) if i % 2 else ("light", 220)
        (tmp_path / "pictures" / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (shade + i, shade, shade)).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def eye(folder: Path) -> Path:
    """A small DINOv2, and how its pictures are prepared."""
    dino("Model", False).save_pretrained(folder)
    seen = dict(
        image_processor_type="BitImageProcessor", size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    (folder / "preprocessor_config.json").write_text(json.dumps(seen))
    return folder


def test_a_text_classifier_equals_transformers(tmp_path: Path) -> None:
    folder = bert(tmp_path, "BertForSequenceClassification", num_labels=2, id2label={0: "bad", 1: "good"},
                  hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)  # fmt: skip
    reference = T.BertForSequenceClassification.from_pretrained(folder).train()
    model = trainable(load(folder, fused=False, dtype="float32"))
    objective = Labels(model, options())
    values = [Labelled(*row) for row in TEXTS]
    objective.look(Listed(values), range(4))
    drawn = examples(objective, values)
    longest = max(one.size for one in drawn)
    ids = torch.tensor([[*one.given, *[0] * (longest - one.size)] for one in drawn])
    seen = torch.tensor([[1] * one.size + [0] * (longest - one.size) for one in drawn])
    theirs = reference(ids, attention_mask=seen, labels=torch.tensor([one.label for one in drawn])).loss
    theirs.backward()
    mine = objective.backward([drawn[:1], drawn[1:]], 4)
    assert abs(mine.item() - theirs.item()) < 1e-5
    check_gradients(gradients(model), reference, 1e-4)


class Listed(list[Any]):
    """Values as rows."""

    source = "a list"

    def only(self, numbers: Any) -> Any:
        return (rows_of(self)[i] for i in numbers)


@pytest.mark.parametrize("sentences", [False, True])
def test_a_new_head_on_a_bert_is_read_by_peft_and_by_us(tmp_path: Path, texts: Path, sentences: bool) -> None:
    folder = bert(tmp_path / "base")
    if sentences:
        modules(folder, ("", "sentence_transformers.models.Transformer", None),
                ("1_Pooling", "sentence_transformers.models.Pooling",
                 {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}))  # fmt: skip
    out = tune(folder, texts, out=tmp_path / "lora", lora=Lora(rank=2), **QUICK)
    said = json.loads((out.path / "adapter_config.json").read_text())
    assert said["modules_to_save"] == ["pooler", "classifier"] and said["task_type"] == "SEQ_CLS"
    model = load(folder, dtype="float32").with_adapter(out)
    assert model.card.recognised.tasks == ("classify",)
    reference = T.BertForSequenceClassification.from_pretrained(folder, num_labels=2)
    theirs = peft.PeftModel.from_pretrained(reference, str(out.path)).eval()
    for text, _ in TEXTS:
        with torch.inference_mode():
            logits = theirs(torch.tensor([model.tokenizer.encode(text)])).logits[0]
        found = model.classify(text)
        assert found.labels[0] == ("bad", "good")[int(logits.argmax())]
        assert abs(found.logits[0] - float(logits.max())) < 1e-4
    whole = load(merge(folder, out, out=tmp_path / "merged"), dtype="float32")
    assert abs(whole.classify("the dog").logits[0] - model.classify("the dog").logits[0]) < 1e-5


def test_a_whole_text_classifier_is_read_by_transformers_and_by_us(tmp_path: Path, texts: Path) -> None:
    out = tune(bert(tmp_path / "base"), texts, out=tmp_path / "full", lora=None, **QUICK | {"lr": 1e-3})
    reference, told = T.BertForSequenceClassification.from_pretrained(out.path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert reference.config.id2label == {0: "bad", 1: "good"}
    model = load(out.path)
    for text, _ in TEXTS:
        with torch.inference_mode():
            logits = reference.eval()(torch.tensor([model.tokenizer.encode(text)])).logits[0]
        assert abs(model.classify(text).logits[0] - float(logits.max())) < 1e-4


def test_an_eye_learns_labels(tmp_path: Path, images: Path) -> None:
    base = eye(tmp_path / "base")
    lora = tune(base, images, out=tmp_path / "lora", lora=Lora(rank=2), **QUICK | {"steps": 20})
    full = tune(base, images, out=tmp_path / "full", lora=None, **QUICK | {"lr": 1e-3})
    reference = T.Dinov2ForImageClassification.from_pretrained(full.path)
    assert reference.config.id2label == {0: "dark", 1: "light"}
    files = sorted(images.rglob("*.png"))
    tuned = load(base, dtype="float32").with_adapter(lora)
    assert [one.label for one in tuned.classify(files)] == [path.parent.name for path in files]
    model = load(full.path)
    pixels = torch.from_numpy(model.preprocess(Image.open(files[0]), "a"))[None]
    with torch.inference_mode():
        theirs = reference.eval()(pixels).logits[0]
    assert abs(model.classify(files[0]).logits[0] - float(theirs.max())) < 1e-3


def test_an_eye_takes_its_adapter_on_the_command_line(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = eye(tmp_path / "base")
    assert main(["tune", str(base), str(images), "-o", str(tmp_path / "lora"), "--steps", "2", "--yes"]) == 0
    capsys.readouterr()
    file = str(next(images.rglob("*.png")))
    assert main(["classify", str(base), file, "--adapter", str(tmp_path / "lora"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["label"] for row in said["data"][0]["labels"]} == {"dark", "light"}


def test_labels_that_cannot_be_learnt_are_told(tmp_path: Path, texts: Path) -> None:
    model = load(bert(tmp_path / "base"), fused=False)
    one = tmp_path / "one.jsonl"
    one.write_text('{"text": "a", "label": "same"}\n' * 3)
    with pytest.raises(RecipeError, match="1 labels; expected 2"):
        Labels(model, options()).look(open_rows(one), range(3))
    objective = Labels(model, options())
    objective.look(open_rows(texts), range(4))
    with pytest.raises(RowFault, match="none of those that are learnt"):
        examples(objective, [Labelled("a", "new")])
    with pytest.raises(RowFault, match="without a text"):
        examples(objective, [Labelled(b"x", "good")])
