"""JSON that every part behind it can take: UTF-8, names once, numbers of 64 bits, whole characters, bounded nesting."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

from brolly.serve.errors import Refused

DEEPEST = 128  # arrays and objects within each other
VALUES, BRANCHES = 1_000_000, 200_000  # in all; and arrays and objects, which cost most
HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # an escape that may be half of a surrogate pair
LONG = re.compile(rb"\d{19}|\d[eE]")  # digits that may be beyond 64 bits


def check(body: bytes) -> None:
    """Whether a body is such JSON. Raises Refused (400) with what is wrong."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused(f"byte {error.start} is not UTF-8") from None
    check_count(body)
    whole, real = (integer, decimal) if LONG.search(body) else (None, None)  # slower than the parser's own
    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=constant, parse_int=whole, parse_float=real)
    except json.JSONDecodeError as error:
        raise refused(f"{error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise refused(f"arrays and objects nest deeper than {DEEPEST}") from None
    except ValueError:  # Python's own bound on the digits of a number
        raise refused("a number has too many digits") from None
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        check_depth(value)
    if HALF.search(body):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise refused("a \\u escape is half of a surrogate pair, which no text has") from None


def check_count(body: bytes) -> None:
    """Whether a body has no more values than can be read without keeping everybody waiting; before it is parsed."""
    if too_many(body):  # or its texts hold many commas
        bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
        if bare.count(b'"') > 2 * VALUES or too_many(b"".join(bare.split(b'"')[::2])):
            raise refused(f"it has more than {VALUES:,} values and names, or {BRANCHES:,} arrays and objects")


def too_many(body: bytes) -> bool:
    branches = body.count(b"[") + body.count(b"{")
    return branches > BRANCHES or branches + body.count(b",") + body.count(b":") > VALUES


def check_depth(value: Any) -> None:
    """Whether a value nests no deeper than is allowed; level by level, without recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner = [x.values() if isinstance(x, dict) else x for x in level if isinstance(x, (dict, list))]
        level = [x for several in inner for x in several if isinstance(x, (dict, list))]
        if not level:
            return
    raise refused(f"arrays and objects nest deeper than {DEEPEST}")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise refused(f"the name {twice!r:.80} stands twice in one object")
    return found


def constant(word: str) -> Any:
    raise refused(f"{word} is no JSON number")


def integer(digits: str) -> int:
    if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 64:
        raise refused(f"the whole number {digits:.30} needs more than 64 bits")
    return int(digits)


def decimal(digits: str) -> float:
    if not isfinite(found := float(digits)):
        raise refused(f"the number {digits:.30} needs more than 64 bits")
    return found


def refused(what: str) -> Refused:
    return Refused(f"The body is not JSON that can be taken: {what}.", code="invalid_json")
