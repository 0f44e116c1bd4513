"""Whatever a server answers to the other verbs: a result, or one of our errors, and nothing that cannot be written."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from brolly.errors import RemoteError
from brolly.remote.dialects.openai import audio, embeddings, envelope, images, models, tuning

ODD = (
    None,
    True,
    -1,
    1e400,
    "",
    "x" * 5000,
    "\ud800",
    "\x1b[2J",
    [],
    {},
    [None],
    {"x": 1},
    2**70,
    10**4000,
    float("nan"),
    0.5,
)
USAGE = {"prompt_tokens": 3, "total_tokens": 3, "input_tokens": 2, "output_tokens": 1, "input_tokens_details": {}}
WORD = {"word": "a", "start": 0.0, "end": 1.0}
SEGMENT = {"start": 0.0, "end": 1.0, "text": "a", "tokens": [1], "avg_logprob": -0.1, "temperature": 0}
PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
EVENT = {"id": "e", "message": "m", "data": {"step": 1, "total_steps": 2, "train_loss": 0.5}}
READERS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "embeddings": (
        lambda body: embeddings.vectors(body, 2),
        {"data": [{"index": 0, "embedding": [1.0, 2.0]}, {"index": 1, "embedding": "AACAPwAAAEA="}], "usage": USAGE},
    ),
    "pictures": (images.drawn, {"data": [{"b64_json": PICTURE, "revised_prompt": "a"}] * 2, "usage": USAGE}),
    "sounds": (audio.heard, {
        "text": "a", "language": "english", "duration": 1.0, "segments": [SEGMENT] * 2, "words": [WORD] * 2,
        "usage": {**USAGE, "seconds": 1}, "languages": [{"code": "en"}],
    }),
    "models": (models.listed, {"data": [{"id": "a", "created": 1, "name": "A", "context_length": 9}] * 2}),
    "job": (tuning.read, {"id": "j", "status": "running", "fine_tuned_model": "m", "error": {"message": "e"}}),
    "events": (tuning.event_rows, {"data": [EVENT] * 2}),
    "file": (tuning.uploaded, {"id": "file-1"}),
    "errors": (envelope.told, {"error": {"message": "m", "type": "t", "param": "p", "code": "c"}}),
}  # fmt: skip


def mutated(value: Any, luck: random.Random) -> Any:
    """The same with something else within."""
    if luck.random() < 0.06:
        return luck.choice(ODD)
    if isinstance(value, dict):
        return {name: mutated(one, luck) for name, one in value.items() if luck.random() > 0.03}
    if isinstance(value, list):
        return [mutated(one, luck) for one in value for _ in range(1 + (luck.random() < 0.03))]
    return value


@pytest.mark.parametrize("name", READERS)
def test_whatever_comes_is_read_or_refused(name: str) -> None:
    read, body = READERS[name]
    luck, fine, wrong = random.Random(11), 0, 0
    read(body)
    for _ in range(2000):
        changed = mutated(body, luck)
        try:
            found = read(changed)
            fine += 1
        except RemoteError as error:
            wrong += 1
            assert len(str(error)) < 400
        else:
            assert sound(found), (name, changed)
    assert fine and (wrong or name == "errors")


def sound(found: Any) -> bool:
    """Numbers are finite, and names that become words of a command hold no signs of control."""
    if hasattr(found, "vectors"):
        return bool(np.isfinite(found.vectors).all()) and found.n_tokens >= 0
    if hasattr(found, "segments"):
        json.dumps([vars(s) | {"words": None} for s in found.segments], allow_nan=False)
        return found.duration >= 0 and (found.usage is None or found.usage.total_tokens < 1 << 60)
    if hasattr(found, "state"):
        return bool(found.id.isprintable() and found.model.isprintable())
    return True
