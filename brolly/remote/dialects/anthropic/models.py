"""Anthropic's /v1/models: which there are, newest first, by pages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from brolly.errors import BadAnswer
from brolly.remote.dialect import Call, Listed
from brolly.remote.dialects.anthropic.answers import told as told
from brolly.remote.dialects.anthropic.messages import VERSION
from brolly.remote.target import Target

PAGE = 1000  # the most that the API gives
NAME = 300  # characters of a name that are believed


def models(target: Target, after: str) -> Call:
    """A page; `after` is the last page's last id."""
    query = {"limit": str(PAGE), **({"after_id": after} if after else {})}
    return Call("/v1/models", method="GET", query=query, headers={"anthropic-version": VERSION})


def listed(body: Any) -> tuple[list[Listed], str]:
    """The page's models, and where the next one begins. Raises BadAnswer."""
    rows = body.get("data") if isinstance(body, Mapping) else None
    if not isinstance(rows, list):
        raise BadAnswer(f"the list of models is {type(body).__name__}; expected rows under data.")
    found = [_row(row) for row in rows if isinstance(row, Mapping) and isinstance(row.get("id"), str) and row["id"]]
    last = body.get("last_id")
    more = body.get("has_more") is True and bool(found)
    return found, (last if isinstance(last, str) and last else found[-1].id) if more else ""


def _row(row: Mapping[str, Any]) -> Listed:
    title, context = row.get("display_name"), row.get("max_input_tokens")
    return Listed(
        row["id"][:NAME],
        title[:NAME] if isinstance(title, str) else "",
        _seconds(row.get("created_at")),
        context if type(context) is int and context > 0 else None,
        ("chat",),
    )


def _seconds(text: Any) -> int | None:
    """Of a time in RFC 3339; None where it tells none, which the API says by the year 1970."""
    try:
        found = int(datetime.fromisoformat(text).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found > 0 else None
