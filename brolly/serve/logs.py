"""The log: a line a request, for people or as JSON. It holds no prompts unless asked, and never a key."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from brolly.serve.account import Account

access = logging.getLogger("brolly.serve.access")
QUIET = frozenset({"/health", "/ready", "/metrics"})  # probes come every second and say nothing new
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def configure(form: str = "text") -> None:
    """Send brolly's and uvicorn's records to standard error, in the form "text" or "json"; again: replace the form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if form == "json" else Text())
    for name, level in (("brolly", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def tell(account: Account) -> None:
    """The line of a request that has ended."""
    if account.route in QUIET and account.status < 500:
        return
    level = logging.INFO if account.status < 500 else logging.ERROR
    access.log(level, "request", extra={"account": account, "request_id": account.id})


def clean(text: str) -> str:
    """Text that cannot end a line or move a terminal's cursor."""
    return CONTROL.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


class Text(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        account: Account | None = getattr(record, "account", None)
        if account is None:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
            request_id = f" ({found})" if (found := getattr(record, "request_id", "")) else ""
            line = f"{clock} {level}{clean(record.getMessage())}{request_id}"
            return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
        a = account
        parts = [f"{clock} {a.status} {a.method} {clean(a.path[:200])}"]
        if a.model:
            parts.append(a.model)
        if a.prompt_tokens or a.completion_tokens:
            cached = f" ({a.cached_tokens} cached)" if a.cached_tokens else ""
            parts.append(f"{a.prompt_tokens}{cached} → {a.completion_tokens} tokens")
        first = f" (first {a.time_to_first:.3f})" if a.time_to_first is not None else ""
        parts.append(f"{a.seconds:.3f} s{first}")
        if a.error:
            parts.append(a.error)
        parts.append(f"{a.user if a.user.startswith('key-') else a.client} {a.id}")
        if a.body:
            parts.append(clean(a.body))
        return " · ".join(parts)


class Json(logging.Formatter):
    """A line for programs."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        account: Account | None = getattr(record, "account", None)
        if account is not None:
            said |= told(account)
        elif request_id := getattr(record, "request_id", ""):
            said["request_id"] = request_id
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)


def told(account: Account) -> dict[str, Any]:
    """An account as JSON's fields; what is not known is left out."""
    a = account
    fields: dict[str, Any] = {
        "request_id": a.id, "method": a.method, "route": a.route,
        "path": a.path[:200] if a.route == "unmatched" else "",
        "status": a.status, "model": a.model, "verb": a.verb, "client": a.client, "user": a.user,
        "prompt_tokens": a.prompt_tokens or None, "completion_tokens": a.completion_tokens or None,
        "cached_tokens": a.cached_tokens or None, "finish_reason": a.finish or None,
        "seconds": round(a.seconds, 6), "time_to_first_token": a.time_to_first and round(a.time_to_first, 6),
        "error": a.error, "body": a.body, "traceparent": a.trace.get("traceparent"),
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value not in ("", None)}
