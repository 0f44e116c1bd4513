"""Gemini's list of models, by pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.errors import BadAnswer
from brolly.remote.content import clean
from brolly.remote.dialect import Call, Listed
from brolly.remote.dialects.gemini.answers import told as told
from brolly.remote.target import Target

PAGE = "1000"  # the most that it gives
# what a model's methods are here; one that draws says generateContent, too, and does not tell them apart
VERBS = {
    "generateContent": "chat", "countTokens": "count", "embedContent": "embed", "batchEmbedContents": "embed",
    "predict": "draw", "createTunedModel": "tune",
}  # fmt: skip


def models(target: Target, after: str) -> Call:
    return Call("/models", method="GET", query={"pageSize": PAGE} | ({"pageToken": after} if after else {}))


def listed(body: Any) -> tuple[list[Listed], str]:
    """Raises BadAnswer."""
    rows = body.get("models", []) if isinstance(body, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) and clean(row.get("name")) for row in rows):
        raise BadAnswer("Google's list of models is no list of names.")
    return [_listed(row) for row in rows], clean(body.get("nextPageToken"))


def _listed(row: Mapping[str, Any]) -> Listed:
    methods, context = row.get("supportedGenerationMethods"), row.get("inputTokenLimit")
    verbs = (
        [VERBS[name] for name in methods if isinstance(name, str) and name in VERBS]
        if isinstance(methods, list)
        else []
    )
    return Listed(
        clean(row["name"]).removeprefix("models/"), clean(row.get("displayName")),
        context=context if type(context) is int and context > 0 else None, verbs=tuple(dict.fromkeys(verbs)),
    )  # fmt: skip
