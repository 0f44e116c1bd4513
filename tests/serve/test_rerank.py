"""/rerank in Cohere's and Jina's words and /score in vLLM's, by a network that judges pairs and by an embedder."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from brolly import load
from tests.families.text_folders import bert
from tests.serve.conftest import Running, Settings

pytest.importorskip("transformers")

DOCUMENTS = ["cat", "The Cat, dogging: é!", "a a a", "dog"]


@pytest.fixture(scope="module")
def judge(server: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Running, Any]:
    """A server of a BERT that judges pairs, and the same model."""
    folder = bert(tmp_path_factory.mktemp("judges") / "judge", "BertForSequenceClassification", num_labels=1)
    return server(Settings(models=(str(folder),), port=0)), load(folder)


def post(running: Running, path: str, model: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{running.url}{path}", json={"model": model, **body}, timeout=60)


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_documents_come_in_the_order_of_the_model(judge: tuple[Running, Any], path: str) -> None:
    running, model = judge
    found = post(
        running, path, "judge", query="the dog", documents=[DOCUMENTS[0], {"text": DOCUMENTS[1]}, *DOCUMENTS[2:]]
    )
    assert found.status_code == 200, found.text
    want, results = model.rerank("the dog", DOCUMENTS), found.json()["results"]
    assert [one["index"] for one in results] == [one.index for one in want]
    assert [one["relevance_score"] for one in results] == pytest.approx([one.score for one in want], abs=1e-4)
    assert [one.get("document", {}).get("text") for one in results] == (
        [None] * 4 if path == "/v2/rerank" else [one.document for one in want]
    )
    assert found.json()["meta"]["warnings"] == [] and "x-brolly-provenance" in found.headers


def test_only_the_best_and_no_documents_if_asked(judge: tuple[Running, Any]) -> None:
    running, model = judge
    asked = {"query": "the dog", "documents": DOCUMENTS, "top_n": 2}
    short = post(running, "/v1/rerank", "judge", **asked, return_documents=False).json()["results"]
    assert [one["index"] for one in short] == [one.index for one in model.rerank("the dog", DOCUMENTS, top=2)]
    assert not any("document" in one for one in short)
    assert "document" in post(running, "/v2/rerank", "judge", **asked, return_documents=True).json()["results"][0]


@pytest.mark.filterwarnings("ignore:.*its end was cut")
def test_what_is_cut_is_said_or_refused(judge: tuple[Running, Any]) -> None:
    running, _ = judge
    asked = {"query": "the dog", "documents": ["cat", "a " * 60]}
    [warning] = post(running, "/v1/rerank", "judge", **asked).json()["meta"]["warnings"]
    assert "longer than the 40 tokens" in warning
    refused = post(running, "/v1/rerank", "judge", **asked, truncate=False)
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "context_length_exceeded"


def test_pairs_are_scored_in_their_order(judge: tuple[Running, Any]) -> None:
    running, model = judge
    want = {one.index: one.score for one in model.rerank("the dog", DOCUMENTS)}
    one = post(running, "/v1/score", "judge", text_1="the dog", text_2=DOCUMENTS).json()["data"]
    pairs = post(running, "/score", "judge", text_1=["the dog"] * 4, text_2=DOCUMENTS).json()["data"]
    for rows in (one, pairs):
        assert [row["index"] for row in rows] == [0, 1, 2, 3]
        assert [row["score"] for row in rows] == pytest.approx([want[i] for i in range(4)], abs=1e-4)


def test_an_embedder_tells_cosines(brolly: Running) -> None:
    model = load("mini-embed")
    texts = ["a dog barks", "the moon", "a puppy"]
    want = model.similarity(model.embed(["a dog"], role="query"), model.embed(texts, role="document"))[0].tolist()
    found = post(brolly, "/v1/rerank", "mini-embed", query="a dog", documents=texts).json()["results"]
    assert {one["index"]: one["relevance_score"] for one in found} == pytest.approx(dict(enumerate(want)), abs=0.02)
    scores = [one["relevance_score"] for one in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("path", "given", "why"),
    [
        ("/v1/rerank", {"query": "a", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": "a", "documents": [3]}, "documents"),
        ("/v1/rerank", {"documents": ["b"]}, "query"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "model": "mini-llm"}, "cannot rerank"),
        ("/v1/rerank", {"query": "a", "documents": ["b"], "instruction": "c"}, "no instruction"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "text_1 has 2 texts and text_2 1"),
        ("/v1/score", {"text_1": [], "text_2": ["c"]}, "text_1"),
    ],
)
def test_what_cannot_be_ranked_is_told(brolly: Running, path: str, given: dict[str, Any], why: str) -> None:
    found = post(brolly, path, **{"model": "mini-embed", **given})
    assert found.status_code == 400 and why in found.json()["error"]["message"], found.text
