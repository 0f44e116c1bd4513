"""What schemathesis is told: which models there are, and not to ask for long answers."""

from __future__ import annotations

from typing import Any

import schemathesis

from tests.clients.conftest import CHAT, EAR, EMBED, EYE

MODELS = {"audio": EAR, "embed": EMBED, "rerank": EMBED, "score": EMBED, "classify": EYE}
BOUNDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict", "n", "best_of")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """A right request names a model that is there, three times of four, and asks for little."""
    if not case.meta or not case.meta.generation.mode.is_positive or not isinstance(case.body, dict):
        return
    body = case.body
    if isinstance(body.get("model"), str) and sum(body["model"].encode(errors="replace")) % 4:
        body["model"] = next((name for part, name in MODELS.items() if part in case.operation.path), CHAT)
    for place in (body, body.get("options")):
        for name in BOUNDS if isinstance(place, dict) else ():
            if isinstance(place.get(name), int):
                place[name] = min(place[name], 4)
