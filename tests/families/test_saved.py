"""A classifier in a LoRA's folder is hostile input: its labels, its modules and its tensors are looked at first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brolly.card import Header, TensorInfo
from brolly.errors import CheckpointError
from brolly.families.saved import saved

FILE = Path("adapter_model.safetensors")


def header(labels: str | None = None, dtype: str = "F32", **shapes: tuple[int, ...]) -> Header:
    tensors = {
        f"base_model.model.{name.replace('__', '.')}": TensorInfo(name, dtype, shape, FILE, 0, 4)
        for name, shape in shapes.items()
    }
    return Header(FILE, "safetensors", tensors, metadata={} if labels is None else {"brolly.labels": labels})


TWO: dict[str, tuple[int, ...]] = {"classifier__weight": (2, 8), "classifier__bias": (2,), "x__lora_A__weight": (4, 8)}


def test_a_classifier_is_told_from_what_stands_beside_it() -> None:
    found = saved(header('["a", "b"]', **TWO), FILE, {"modules_to_save": ["classifier"]})
    assert set(found.tensors) == {"classifier.weight", "classifier.bias"} and found.labels == ("a", "b")
    assert list(found.rest.tensors) == ["base_model.model.x.lora_A.weight"]
    assert saved(header(**TWO), FILE, {"modules_to_save": ["classifier"]}).labels == ("LABEL_0", "LABEL_1")
    assert saved(header(**TWO), FILE, {}).tensors == {}


@pytest.mark.parametrize(
    ("modules", "given", "message"),
    [
        ("classifier", header(**TWO), "expected a few names"),
        ([5], header(**TWO), "expected a few names"),
        (["m"] * 17, header(**TWO), "expected a few names"),
        (["classifier"], header('["a"]', **TWO), "a list of 2 texts"),
        (["classifier"], header("[" * 5000, **TWO), "a list of 2 texts"),
        (["classifier"], header('[1, "b"]', **TWO), "a list of 2 texts"),
        (["classifier"], header(dtype="I8", **TWO), "is I8"),
        (["classifier"], header(classifier__weight=(2**30, 1)), "1,073,741,824 labels"),
        (["embeddings"], header(embeddings__weight=(4, 4)), "other modules than a classifier"),
    ],
)
def test_what_is_no_classifier_is_told(modules: Any, given: Header, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        saved(given, FILE, {"modules_to_save": modules})
