"""What brolly found → what OpenAI's clients read: usage, log-probabilities, the body and its headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi.responses import Response

from brolly.serve.account import current
from brolly.serve.streams import dumps
from brolly.verbs import TokenLogprob, Usage

LEAST = -9999.0  # OpenAI's for a token that cannot be; JSON has no infinity


def reply(found: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """An answer as JSON."""
    return Response(dumps(found), media_type="application/json", headers=dict(headers or {}))


def share(user: str | None) -> str:
    """Whose share of the engine a request takes: its key's or its address's, whoever it says that it asks for.

    Else one client would get more by making up names. Without an account (tests, Ray's proxy) `user` is believed.
    """
    account = current.get()
    return account.user if account is not None and account.user else user or ""


def total(usages: Iterable[Usage | None]) -> Usage:
    """Of several answers to one prompt, which counts once."""
    given = [u for u in usages if u]
    return Usage(
        max((u.prompt_tokens for u in given), default=0), sum(u.completion_tokens for u in given),
        max((u.cached_tokens for u in given), default=0), sum(u.reasoning_tokens for u in given),
        max((u.written_tokens for u in given), default=0),
    )  # fmt: skip


def usage_of(usages: Iterable[Usage | None]) -> dict[str, Any]:
    """OpenAI's usage of several answers to one prompt."""
    return usage_body(total(usages))


def usage_body(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }  # fmt: skip


def media_usage(usage: Usage) -> dict[str, int]:
    """OpenAI's usage of pictures and sounds."""
    return {
        "input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }  # fmt: skip


def chat_logprobs(found: Sequence[TokenLogprob], tokenizer: Any) -> dict[str, Any]:
    return {"content": token_rows(found, tokenizer), "refusal": None}


def token_rows(found: Sequence[TokenLogprob], tokenizer: Any) -> list[dict[str, Any]]:
    """Each token with its bytes, and the likeliest at its place. What came from elsewhere has its bytes with it."""
    rows = []
    for one in found:
        if one.token < 0:
            said, top = one.said, list(one.others)
        else:
            said, top = tokenizer.token_bytes(one.token), [(tokenizer.token_bytes(i), p) for i, p in one.top.items()]
        rows.append({**_row(said, one.logprob), "top_logprobs": [_row(*other) for other in top]})
    return rows


def _row(said: bytes, logprob: float) -> dict[str, Any]:
    return {"token": said.decode(errors="replace"), "logprob": finite(logprob), "bytes": list(said)}


def finite(logprob: float) -> float:
    return logprob if logprob > LEAST else LEAST
