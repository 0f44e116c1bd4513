"""Server-sent events from bytes: the WHATWG's rules, wherever the network cuts."""

from __future__ import annotations

import time

import pytest

from brolly.errors import BadAnswer
from brolly.remote.sse import Events

STREAM = (
    "\ufeff: a comment\n"
    "data: one\n\n"
    "event: named\ndata: first line\ndata:second line\ndata\n\n"
    "event: without data\n\n"
    "id: 7\nretry: 10\ndata:  two blanks, ünïcödé 🙂\n\n"
    ":\n\n\n"
    "data:{\"a\": 1}\nunknown: x\nevent:late\n\n"
    "data\n\n"
)  # fmt: skip
FOUND = [
    ("", "one"),
    ("named", "first line\nsecond line\n"),
    ("", " two blanks, ünïcödé 🙂"),
    ("late", '{"a": 1}'),
    ("", ""),
]


def read(data: bytes, size: int) -> list[tuple[str, str]]:
    events = Events()
    found = [event for at in range(0, len(data), size) for event in events.push(data[at : at + size])]
    return found + events.end()


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"], ids=["LF", "CR", "CRLF"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_events_are_the_same_wherever_the_stream_is_cut(end: str, size: int) -> None:
    assert read(STREAM.replace("\n", end).encode(), size) == FOUND


def test_an_event_is_told_as_soon_as_its_blank_line_is_there() -> None:
    events = Events()
    assert events.push(b"data: a\r") == []
    assert events.push(b"\n\r") == [("", "a")]  # the line's end was the \r; its \n comes later
    assert events.push(b"\ndata: b\n\n") == [("", "b")]


def test_mixed_ends_of_lines_are_each_one_end() -> None:
    assert read(b"data: a\rdata: b\r\ndata: c\n\r\n", 1) == [("", "a\nb\nc")]


def test_an_event_whose_blank_line_never_came_is_told_at_an_orderly_end() -> None:
    assert read(b"data: a\n\ndata: b", 3) == [("", "a"), ("", "b")]
    assert read(b"data: a\n\ndata: b\r", 3) == [("", "a"), ("", "b")]
    assert read(b"event: x\n", 3) == []
    assert read(b"", 1) == []


@pytest.mark.parametrize("data", [b"data: \xff\n\n", b"event: \xc3\ndata: a\n\n", b"data: \xed\xa0\x80\n\n"])
@pytest.mark.parametrize("size", [1, 100])
def test_what_is_not_utf8_is_a_bad_answer(data: bytes, size: int) -> None:
    with pytest.raises(BadAnswer, match="not UTF-8"):
        read(data, size)


@pytest.mark.parametrize("line", [b"data: " + b"x" * 50, b"data: x\n" * 40, b"x" * 101], ids=["line", "lines", "name"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_is_bounded(line: bytes, size: int) -> None:
    events = Events("there", most=100)
    data = line * 3
    with pytest.raises(BadAnswer, match="there sent an event"):
        for at in range(0, len(data), size):
            events.push(data[at : at + size])


def test_the_bound_is_each_events_own() -> None:
    assert len(read(b"data: 123456789\n\n" * 1000, 17)) == 1000
    events = Events(most=100)
    assert len([e for _ in range(1000) for e in events.push(b"data: " + b"x" * 80 + b"\n\n")]) == 1000


def test_a_long_event_in_small_pieces_takes_time_in_proportion() -> None:
    data = b"data: " + b"x" * (4 << 20) + b"\n\n"
    begun = time.perf_counter()
    assert len(read(data, 4096)[0][1]) == 4 << 20
    assert time.perf_counter() - begun < 10
