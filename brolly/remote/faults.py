"""What a vendor says when it cannot answer → the one error that fits. Knowledge is in the tables, not in branches."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from brolly.errors import (
    BadAnswer,
    BrollyError,
    Busy,
    ContextTooLong,
    Filtered,
    KeyRefused,
    NotFound,
    OptionError,
    Overloaded,
    QuotaSpent,
    RemoteError,
    Unreachable,
)
from brolly.remote.dialect import Told
from brolly.remote.target import Target

LONGEST = 500  # characters of a vendor's message that are shown
SOON, LATER = 1.0, 5.0  # seconds after which to ask again where nobody says when: too many requests; no room
Kind = type[BrollyError]

# Codes and types that mean one thing whatever the status. Read on 2026-11-29: OpenAI's error codes and ResponseError
# (SDK 3.57), Anthropic's errors (SDK 2.14), google.rpc.Code and ErrorInfo, Bedrock; vLLM's and llama.cpp's servers.
KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        (
            "context_length_exceeded", "string_above_max_length", "exceed_context_size_error",
            "model_context_window_exceeded", "context_window_exceeded",
        ),
        ContextTooLong,
    ),
    **dict.fromkeys(
        (
            "content_policy_violation", "content_policy", "content_filter", "content_filter_error",
            "responsibleaipolicyviolation", "moderation_blocked", "invalid_prompt", "bio_policy", "cyber_policy",
            "misalignment_policy_violation", "image_content_policy_violation", "safety", "prohibited_content",
        ),
        Filtered,
    ),
    **dict.fromkeys(
        (
            "insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded", "organization_usage_limit_exceeded", "billing_hard_limit_reached",
            "billing_not_active", "billing_error", "enforced_spend_limit_reached", "contract_spend_limit_reached",
            "linked_organization_spend_limit_reached", "insufficient_credits", "insufficient_balance",
            "billing_disabled", "servicequotaexceededexception",
        ),
        QuotaSpent,
    ),
    **dict.fromkeys(
        (
            "invalid_api_key", "invalid_authentication", "authentication_error", "permission_error",
            "unauthenticated", "permission_denied", "api_key_invalid", "api_key_expired", "api_key_service_blocked",
            "access_token_expired", "account_deactivated", "unsupported_country_region_territory",
            "accessdeniedexception", "unrecognizedclientexception", "invalidsignatureexception",
            "expiredtokenexception", "incorrect_api_key", "mismatched_organization", "mismatched_project",
        ),
        KeyRefused,
    ),
    **dict.fromkeys(
        ("model_not_found", "not_found_error", "not_found", "deploymentnotfound", "resourcenotfoundexception"), NotFound
    ),
    **dict.fromkeys(
        (
            "rate_limit_exceeded", "rate_limit_error", "resource_exhausted", "too_many_requests", "slow_down",
            "throttlingexception", "ramp_limit_exceeded", "tokens", "requests", "rate_limit_exceeded_error",
            "model_rate_limit", "modelnotreadyexception",
        ),
        Busy,
    ),
    **dict.fromkeys(
        (
            "overloaded_error", "overloaded", "unavailable", "unavailable_error", "service_unavailable_error",
            "server_is_overloaded", "engine_overloaded", "serviceunavailableexception", "capacity_exceeded",
        ),
        Overloaded,
    ),
    **dict.fromkeys(
        ("timeout_error", "deadline_exceeded", "modeltimeoutexception", "gateway_timeout", "vector_store_timeout"),
        Unreachable,
    ),
}  # fmt: skip

# What only a message tells; looked at where the kind says no more than that the request was wrong.
WORDS: tuple[tuple[re.Pattern[str], Kind], ...] = tuple(
    (re.compile("|".join(patterns), re.IGNORECASE), kind)
    for kind, patterns in (
        (
            ContextTooLong,
            (
                "prompt is too long", "exceed context limit", "input is too long",  # Anthropic, Bedrock
                "token count .{0,40}exceeds the maximum number of tokens",  # Gemini
                "maximum (context|prompt) length", "context (length|window|size)",  # OpenAI, vLLM, xAI, llama.cpp
                "longer than the model's context", "too large for model with [0-9]+ maximum",  # SGLang, Mistral
            ),
        ),
        (
            QuotaSpent,
            (
                "credit balance is too low", "insufficient (balance|credits?|funds)",  # Anthropic; DeepSeek, OpenRouter
                "reached your (specified )?(workspace )?(api )?(usage|spend) limits?",
                "billing (is )?not (active|enabled)",
            ),
        ),
        (
            KeyRefused,
            (
                "(incorrect|invalid) api.?key", "api.?key (not valid|expired|not found)",
                "user location is not supported",
            ),
        ),
        (
            Filtered,
            (
                "content (management |filtering )?policy", "safety (system|filter|settings)",
                "flagged as potentially", "usage polic(y|ies)",
            ),
        ),
        (
            NotFound,
            (
                "model .{1,200}(does not exist|is not found|not found|was not found)", "no such model",
                "unknown model",
            ),
        ),
    )
)  # fmt: skip

STATUSES: dict[int, Kind] = {
    400: OptionError, 401: KeyRefused, 402: QuotaSpent, 403: KeyRefused, 404: NotFound, 405: NotFound,
    408: Unreachable, 410: NotFound, 413: OptionError, 415: OptionError, 422: OptionError, 429: Busy,
    502: Unreachable, 503: Overloaded, 504: Unreachable, 529: Overloaded,
    520: Unreachable, 521: Unreachable, 522: Unreachable, 523: Unreachable, 524: Unreachable,  # Cloudflare's
}  # fmt: skip
# of these, a message may tell more
WORDED = (0, 400, 402, 403, 404, 413, 422, 500)
# Google's word for most wrong requests, AWS's and others'; they say less than the status with them, or than the message
VAGUE: dict[str, Kind] = dict.fromkeys(
    ("invalid_argument", "failed_precondition", "out_of_range", "invalid_request_error", "validationexception",
     "unsupported_parameter", "unsupported_value", "request_too_large", "invalid_value", "badrequesterror"),
    OptionError,
)  # fmt: skip
AGAIN_IN = re.compile(
    r"(?:try again|retry) (?:in|after) (?:(\d{1,4})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,7}(?:\.\d{1,9})?)\s*(ms|s(?:ec)?))?",
    re.IGNORECASE,
)


class Saying(NamedTuple):
    """How a kind is said, with what `fault` fills in; and what makes the error of its text, status and seconds."""

    text: str
    make: Callable[[str, int, float | None], BrollyError]


def _plain(kind: type[RemoteError]) -> Callable[[str, int, float | None], BrollyError]:
    return lambda text, status, after: kind(text, status)


def _ours(kind: Kind) -> Callable[[str, int, float | None], BrollyError]:
    return lambda text, status, after: kind(text)


SAID: dict[Kind, Saying] = {
    KeyRefused: Saying("{host} {refused}{why}; {key}.", _plain(KeyRefused)),
    QuotaSpent: Saying("the account at {host} has nothing left to spend{why}; {console}.", _plain(QuotaSpent)),
    Busy: Saying(
        "{host} takes no more requests for now{why}; ask again{when}.",
        lambda t, s, a: Busy(t, SOON if a is None else a),
    ),
    Overloaded: Saying(
        "{host} has no room for the request now{why}; ask again{when}.",
        lambda t, s, a: Overloaded(t, s, LATER if a is None else a),
    ),
    ContextTooLong: Saying("the request is longer than {model} can hold{why}; shorten it.", _ours(ContextTooLong)),
    Filtered: Saying("{host} does not answer this by its rules{why}.", _plain(Filtered)),
    NotFound: Saying("{host} has no {model}{why}; {list}.", _ours(NotFound)),
    OptionError: Saying("{host} refused the request{why}; change what it names.", _ours(OptionError)),
    Unreachable: Saying("{host} did not answer in time, or nothing is behind it{why}.", _plain(Unreachable)),
    BadAnswer: Saying("{host} answered with what is none{why}.", _plain(BadAnswer)),
    RemoteError: Saying("{host} failed{why}; ask again later.", _plain(RemoteError)),
}  # fmt: skip

# a 404 that does not speak of the model: the address, more likely, or a job
ELSEWHERE = Saying(
    "{host} did not find what was asked for{why}; see whether {base} is its address{own}; if so, {list}.",
    _ours(NotFound),
)


def fault(
    status: int | None, told: Told, target: Target, *, after: float | None = None, secrets: Iterable[str] = (),
    keyed: bool = True,
) -> BrollyError:  # fmt: skip
    """The error of an answer, or of an event within one (then status is 0 or None). `after` are seconds that a header
    tells; `secrets` are taken out of what the vendor says; `keyed`: whether a key went with the request."""
    from brolly.remote.listing import hint

    status = status or 0
    kind = kind_of(status, told)
    message = cleaned(told.message, secrets)
    after = told_after(after, told)
    what = ": ".join(str(part) for part in (status or "", message or cleaned(told.kind, secrets, 80)) if part)
    if told.param and told.param not in message:
        what += f", at {cleaned(told.param, secrets, 80)}"
    vendor = target.vendor
    said = SAID[kind]
    if kind is NotFound and target.model not in told.message and "model" not in f"{told.kind}{told.message}".lower():
        said = ELSEWHERE
    text = said.text.format(
        host=target.host,
        model=cleaned(target.model, secrets, 120),
        why=f" ({what})" if what else "",
        when=f" in {after:.0f} s" if after is not None and after >= 1 else " in a moment",
        refused="refused the key" if keyed else "wants a key",
        key=_mend_key(target),
        console=f"see {vendor.console}" if vendor.console else "see to it at its console",
        list=hint(target) if kind is NotFound else "",
        base=target.base,
        own=f" (otherwise it is {vendor.base})"
        if vendor.base not in ("", target.base) and "{" not in vendor.base
        else "",
    )
    return said.make(text, status, after)


def kind_of(status: int, told: Told) -> Kind:
    """Which error it is: by the vendor's code, else by words of its message, else by the status."""
    code = told.kind.strip().lower().rpartition("#")[2].rpartition(".")[2]
    by_status = STATUSES.get(status) or (RemoteError if status >= 500 or not status else OptionError)
    found = KINDS.get(code)
    if found is not None and not (found is Busy and status in (401, 403, 413)):
        return found
    if status in WORDED:
        worded = next((kind for pattern, kind in WORDS if pattern.search(told.message)), None)
        if worded is not None:
            return worded
    if status == 0:
        return VAGUE.get(code, RemoteError)
    if 300 <= status < 400 or status < 200:
        return BadAnswer
    return by_status


def _mend_key(target: Target) -> str:
    from brolly.remote.keys import holder_of

    keys = target.vendor.keys
    variable = f"set {keys[0]} or " if keys else ""
    return f"{variable}run `brolly keys set {holder_of(target)}`"


def cleaned(text: str, secrets: Iterable[str] = (), most: int = LONGEST) -> str:
    """A vendor's words as an error may show them: one line, bounded, without keys or parts of them."""
    text = unkeyed(text[: 8 * most], secrets)
    text = re.sub(r"[^\s\"'`,;:()]*\*{3,}[^\s\"'`,;()]*", "…", text)  # a key that the vendor has masked itself
    text = printable(text)
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= most else text[: most - 1] + "…"


def printable(text: str) -> str:
    """A text without what a terminal would obey, or could not write."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def unkeyed(text: str, secrets: Iterable[str]) -> str:
    """A text without keys or parts of them."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "…")
        if len(secret) >= 16:  # a part of it, too; short ones are words such as "ollama"
            text = re.sub(r"[^\s\"'`,;:()]{8,}", lambda m, s=secret: "…" if _shares(m[0], s) else m[0], text)  # type: ignore[misc]
    return text


def _shares(word: str, secret: str) -> bool:
    return any(word[at : at + 8] in secret for at in range(len(word) - 7))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds after which a vendor wants to be asked again: retry-after-ms, or Retry-After as seconds or a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,12}(\.\d{1,12})?", text):
            return float(text) * unit
        if text and unit == 1.0:
            try:
                then = parsedate_to_datetime(text).timestamp()
                now = parsedate_to_datetime(headers["date"]).timestamp() if headers.get("date") else time.time()
            except (ValueError, TypeError, OverflowError):
                continue
            return max(0.0, then - now)
    return None


def told_after(header: float | None, told: Told) -> float | None:
    """Seconds after which to ask again, by the first that tells: a header, the envelope, the message."""
    if header is not None:
        return header
    return told.after if told.after is not None else seconds_within(told.message)


def seconds_within(message: str) -> float | None:
    """Of a message such as "Please try again in 1m20.5s"; None where it says nothing of the kind."""
    found = AGAIN_IN.search(message[: 8 * LONGEST])
    if found is None or not any(found.group(1, 2, 3)):
        return None
    hours, minutes, seconds, unit = found.groups()
    total = 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds or 0) * (0.001 if unit == "ms" else 1)
    return total if math.isfinite(total) else None


def page_told(data: bytes, media_type: str) -> Told:
    """What an answer that is no JSON says: the title of a web page, or the beginning of a text."""
    text = data[:65536].decode("utf-8", "replace")
    if "html" in media_type or text.lstrip()[:1] == "<":
        title = re.search(r"<title[^>]{0,200}>([^<]{1,200})", text, re.IGNORECASE)
        return Told(message=f"a web page{f', titled {title[1].strip()!r}' if title else ''}, where JSON was expected")
    return Told(message=text[: 2 * LONGEST])
