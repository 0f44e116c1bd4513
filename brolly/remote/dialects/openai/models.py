"""OpenAI's /models: which models there are, and what compatible servers add to a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from brolly.errors import BadAnswer
from brolly.remote.dialect import Call, Listed
from brolly.remote.dialects.openai.envelope import told as told
from brolly.remote.target import Target

NAME = 300  # characters of a model's name that are believed
# how vLLM, OpenRouter, Mistral, Groq and Together call the longest context
CONTEXT = ("max_model_len", "context_length", "max_context_length", "context_window")


def models(target: Target, after: str) -> Call:
    """All models at once; a server that has pages says so itself."""
    return Call("/models", method="GET", query={"after": after} if after else {})


def listed(body: Any) -> tuple[list[Listed], str]:
    """The models; where the next page begins, if there is one. Raises BadAnswer."""
    rows = body.get("data") if isinstance(body, Mapping) else body  # Together's is a bare list
    if not isinstance(rows, list):
        raise BadAnswer(f"the list of models is {type(rows).__name__}; expected rows under data.")
    found = [_row(row) for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), str) and row["id"]]
    more = isinstance(body, Mapping) and body.get("has_more") is True and bool(found)
    return found, found[-1].id if more else ""


def _row(row: Mapping[str, Any]) -> Listed:
    title = next((row[name] for name in ("name", "display_name") if isinstance(row.get(name), str)), "")
    context = next((row[name] for name in CONTEXT if type(row.get(name)) is int and row[name] > 0), None)
    created = row.get("created")
    seconds = created if type(created) is int and 0 < created < 1 << 40 else None
    id = row["id"][:NAME]
    return Listed(id, title[:NAME] if title != id else "", seconds, context)
