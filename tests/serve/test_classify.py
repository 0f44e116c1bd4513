"""/v1/classify: pictures and labels → labels by falling probability."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from brolly import load
from tests.run.seeing import photo, write_clip
from tests.serve.conftest import Running, Settings
from tests.serve.test_embeddings import picture

pytest.importorskip("PIL")

LABELS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def colours(server: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Running, Any]:
    """A server of a CLIP that knows three colours, and the same model."""
    folder = write_clip(tmp_path_factory.mktemp("seeing"))
    folder = folder.rename(folder.with_name("colours"))
    return server(Settings(models=(str(folder),), port=0)), load(folder)


def ask(running: Running, **body: Any) -> httpx.Response:
    return httpx.post(f"{running.v1}/classify", json={"model": "colours", **body}, timeout=60)


def test_a_picture_gets_labels_by_falling_probability(colours: tuple[Running, Any]) -> None:
    running, model = colours
    found = ask(running, input=picture("green"), labels=LABELS)
    assert found.status_code == 200, found.text
    [row], want = found.json()["data"], model.classify(photo("green"), LABELS)
    assert row["label"] == "green" and [one["label"] for one in row["labels"]] == list(want.labels)
    assert [one["probability"] for one in row["labels"]] == pytest.approx(list(want.probabilities), abs=1e-3)
    assert sum(one["probability"] for one in row["labels"]) == pytest.approx(1)


def test_many_pictures_in_order_and_only_the_likeliest(colours: tuple[Running, Any]) -> None:
    running, _ = colours
    part = {"type": "image_url", "image_url": {"url": picture("blue")}}
    rows = ask(running, input=[picture("red"), part], labels=LABELS, top=1, templates=["{}"]).json()["data"]
    assert [(row["index"], row["label"], len(row["labels"])) for row in rows] == [(0, "red", 1), (1, "blue", 1)]


def test_requests_at_once_get_their_own_pictures_labels(colours: tuple[Running, Any]) -> None:
    running, _ = colours
    wanted = [LABELS[i % 3] for i in range(24)]
    with ThreadPoolExecutor(12) as pool:
        found = list(
            pool.map(lambda c: ask(running, input=picture(c), labels=LABELS).json()["data"][0]["label"], wanted)
        )
    assert found == wanted


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"labels": None}, "there are no labels"),
        ({"labels": []}, "label"),
        ({"labels": ["a", "a"]}, "given twice"),
        ({"templates": ["no place"]}, "template"),
        ({"input": []}, "expected 1 to 2048"),
        ({"input": "data:image/png;base64,AAAA"}, "no image"),
        ({"input": "/etc/passwd"}, "expected http"),
        ({"input": "http://127.0.0.1/a.png"}, "--fetch"),
        ({"top": 0}, "top"),
    ],
)
def test_what_cannot_be_classified_is_told(colours: tuple[Running, Any], given: dict[str, Any], why: str) -> None:
    found = ask(colours[0], **{"input": picture("red"), "labels": LABELS, **given})
    assert found.status_code == 400 and why in found.json()["error"]["message"], found.text
