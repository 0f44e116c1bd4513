"""Finding, seeing and hearing are measured as sentence-transformers, scikit-learn and jiwer measure them."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import brolly
from brolly.errors import MediaError, OptionError
from brolly.measure import evaluate
from brolly.measure.intervals import measured
from brolly.measure.perception import Hearing
from brolly.measure.retrieval import Captioning, Finding, Reranking, ranks
from brolly.rows import open_rows
from brolly.tasks.embed import similarities
from brolly.verbs import Classification, Embedding, Ranked

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
RANDOM = np.random.default_rng(11)


class Space:
    """Embeds each input as a random vector of its own, the same every time."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.known: dict[str, Any] = {}
        self.broken = broken

    def vector(self, one: Any) -> Any:
        return self.known.setdefault(str(one), RANDOM.normal(size=4).astype(np.float32))

    def stream_embed(self, inputs: Any, **_: Any) -> Any:
        for i, one in sorted(enumerate(inputs), reverse=True):
            lost = str(one) in self.broken
            yield Embedding(i, "text", None if lost else self.vector(one), 1, MediaError("broken") if lost else None)

    def similarity(self, a: Any, b: Any) -> Any:
        return similarities(a, b)

    def rerank(self, query: str, documents: Any, **_: Any) -> list[Ranked]:
        scores = {i: float(self.vector(query) @ self.vector(text)) for i, text in enumerate(documents)}
        return [Ranked(i, scores[i], documents[i]) for i in sorted(scores, key=lambda i: (-scores[i], i))]


def test_finding_is_measured_as_by_sentence_transformers() -> None:
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    space = Space()
    data = [{"query": f"q{i % 30}", "positive": f"p{i}", "negatives": [f"n{i}", f"p{(i + 1) % 40}"]} for i in range(40)]
    rows = open_rows(data)
    judge = Finding(space, rows)
    records = list(judge.records(iter(rows)))
    assert len(records) == 30 and not any(record.error for record in records)
    found = {one.name: one.value for one in measured(judge.statistics, [record.scores for record in records])}
    right: dict[str, set[str]] = {}
    for row in data:
        right.setdefault(str(row["query"]), set()).add(str(row["positive"]))
    corpus = {text: text for text in judge.documents}
    other = evaluation.InformationRetrievalEvaluator(
        {q: q for q in right}, corpus, right, mrr_at_k=[len(corpus)], ndcg_at_k=[10], accuracy_at_k=[1],
        precision_recall_at_k=[1, 5, 10], map_at_k=[100],
    )  # fmt: skip
    unit = {text: space.vector(text) / np.linalg.norm(space.vector(text)) for text in [*right, *corpus]}
    results = [
        [{"corpus_id": text, "score": float(unit[q] @ unit[text])} for text in corpus] for q in other.queries_ids
    ]
    wanted = other.compute_metrics(results)
    for k in (1, 5, 10):
        assert found[f"recall@{k}"] == pytest.approx(wanted["recall@k"][k])
    assert found["MRR"] == pytest.approx(wanted["mrr@k"][len(corpus)])
    assert found["nDCG@10"] == pytest.approx(wanted["ndcg@k"][10])


def test_a_query_counts_once_also_when_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [{"query": f"q{i % 2}", "positive": f"p{i}"} for i in range(4)]
    rows = open_rows(data)
    judge = Finding(Space(), rows)
    assert [record.row for record in judge.records(iter(rows))] == [0, 1]
    assert [record.row for record in judge.records(rows.only([1, 2, 3]))] == [1]
    pictures = open_rows([{"image": f"{i // 2}".encode(), "text": f"c{i % 2}"} for i in range(4)])
    captioning = Captioning(Space(), pictures)
    assert [len(record.scores) for record in captioning.records(iter(pictures))] == [10, 5, 5]
    assert [record.row for record in captioning.records(pictures.only([1, 2, 3]))] == [1, 2]


def test_equal_likeness_keeps_the_order_and_lost_texts_are_told() -> None:
    assert ranks(np.array([0.5, 0.9, 0.5, 0.5]), [2]) == [3] and ranks(np.array([0.5, 0.5]), [0, 1]) == [1, 2]
    rows = open_rows(
        [{"query": "q", "positive": "p"}, {"query": "r", "positive": "s"}, {"query": "t", "positive": "u"}]
    )
    judge = Finding(space := Space(("p", "t")), rows)
    records = list(judge.records(iter(rows)))
    assert [record.error for record in records] == ["broken", "", "broken"]
    assert records[1].scores["MRR"] == 1 / ranks(np.array([space.vector("r") @ space.vector(x) / np.linalg.norm(
        space.vector(x)) for x in ("s", "u")]), [0])[0]  # fmt: skip


def test_pictures_and_captions_find_each_other() -> None:
    space = Space(("b'broken'",))
    data = [{"image": f"{i // 2}".encode(), "text": f"caption {i}"} for i in range(8)]
    data += [{"image": b"9", "text": "caption 0"}, {"image": b"broken", "text": "x"}]
    rows = open_rows(data)
    judge = Captioning(space, rows)
    records = list(judge.records(iter(rows)))
    found = {one.name: one for one in measured(judge.statistics, [record.scores for record in records])}
    assert (found["image→text MRR"].n, found["text→image MRR"].n) == (5, 8) and records[-1].error == "broken"
    unit = {text: space.vector(text) / np.linalg.norm(space.vector(text)) for text in [*judge.captions]}
    likeness = np.array([[space.vector(str(f"{i}".encode())) @ u for u in unit.values()] for i in (0, 1, 2, 3, 9)])
    right = [[0, 1], [2, 3], [4, 5], [6, 7], [0]]
    mrr = [1 / min(int((row > row[j]).sum()) + 1 for j in own) for row, own in zip(likeness, right, strict=True)]
    assert found["image→text MRR"].value == pytest.approx(np.mean(mrr))


def test_a_reranker_puts_answers_before_its_own_wrong_ones() -> None:
    space = Space()
    rows = open_rows([{"query": "q", "positive": "p", "negatives": ["n", "m"]}, {"query": "q", "positive": "p"}])
    first, second = Reranking(space).records(iter(rows))
    place = 1 + sum(
        float(space.vector("q") @ space.vector(n)) > float(space.vector("q") @ space.vector("p")) for n in "nm"
    )
    assert first.scores["MRR"] == 1 / place and "no wrong answer" in second.error


def test_pictures_of_a_folder_a_label_are_told_apart(tmp_path: Path) -> None:
    from sklearn.metrics import f1_score

    for name, label in (("dog", "a_dog"), ("truck", "truck"), ("car", "truck"), ("cat", "a_dog")):
        (tmp_path / label).mkdir(exist_ok=True)
        shutil.copy(PICTURES / f"{name}.png", tmp_path / label / f"{name}.png")
    (tmp_path / "a_dog" / "z.png").write_bytes(b"no picture")
    eye = brolly.load("mini-clip")
    report = evaluate(eye, tmp_path)
    paths = sorted(path for path in tmp_path.glob("*/*.png") if path.name != "z.png")
    true = [path.parent.name for path in paths]
    said = [one.label.replace(" ", "_") for one in eye.classify(paths, ["a dog", "truck"])]
    assert len(paths) == 4 and report["accuracy"].value == np.mean([t == s for t, s in zip(true, said, strict=True)])
    assert report["macro F1"].value == pytest.approx(f1_score(true, said, average="macro"))
    assert report.n_failed == 1 and "z.png" in report.errors[0] and "zero-shot" in report.notes[0]


def test_texts_are_told_apart_by_a_classifier_of_their_own() -> None:
    def classify(texts: Any, labels: Any, templates: Any = None, top: int | None = None) -> Any:
        assert labels is None and templates is None and top == 1
        for text in texts:
            label = "good" if "fine" in text else "bad"
            yield MediaError("broken") if text == "x" else Classification((label,), (1.0,), (0.0,))

    network = SimpleNamespace(scores=None, config=SimpleNamespace(labels=("good", "bad", "none")))
    family = SimpleNamespace(tasks=("classify", "embed"), family=SimpleNamespace(name="Bert"))
    card = SimpleNamespace(recognised=family, header=SimpleNamespace(path="some/model", n_params=1))
    model: Any = SimpleNamespace(network=network, card=card, stream_classify=classify)
    rows = [{"text": text, "label": "good"} for text in ("fine", "so fine", "well", "x")]
    report = evaluate(model, rows)
    assert report["accuracy"].value == pytest.approx(2 / 3) and report.n_failed == 1
    assert report.notes[0] == "3 labels, the model's own classifier"
    with pytest.raises(OptionError, match="are none of the model's 3"):
        evaluate(model, [{"text": "fine", "label": "LABEL_0"}])


def test_hearing_is_measured_in_words_and_letters() -> None:
    jiwer = pytest.importorskip("jiwer")
    heard = {b"RIFF1": "It's five dogs!", b"RIFF2": "Guten Tag, Welt", b"RIFF3": "x"}
    asked: list[Any] = []

    def transcribe(audio: bytes, **options: Any) -> Any:
        asked.append(options)
        if audio == b"RIFF4":
            raise MediaError("broken")
        return SimpleNamespace(text=heard[audio], language=options.get("language", "en"))

    rows = open_rows(
        [{"audio": b"RIFF1", "text": "It is 5 big dogs", "language": None},
         {"audio": b"RIFF2", "text": "Guten Tag, liebe Welt.", "language": "de"},
         {"audio": b"RIFF3", "text": "(laughs)"}, {"audio": b"RIFF4", "text": "a"}]
    )  # fmt: skip
    judge = Hearing(SimpleNamespace(transcribe=transcribe), None, {"beam_size": 1})
    records = list(judge.records(iter(rows)))
    found = {one.name: one.value for one in measured(judge.statistics, [record.scores for record in records])}
    true, said = ["it is 5 big dogs", "guten tag liebe welt"], ["it is 5 dogs", "guten tag welt"]
    assert found["WER"] == pytest.approx(jiwer.wer(true, said)) and found["CER"] == pytest.approx(jiwer.cer(true, said))
    assert [bool(record.error) for record in records] == [False, False, True, True]
    assert asked[0] == {"beam_size": 1} and asked[1] == {"beam_size": 1, "language": "de"}
