"""What is asked, whoever answers. A model may be random or closed: a check wants form and agreement, never wisdom."""

from __future__ import annotations

import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from brolly.conformance.suite import Skipped, Subject, Wrong, check, wants
from brolly.errors import (
    BrollyError,
    ContextTooLong,
    Filtered,
    KeyRefused,
    NotFound,
    OptionError,
    UnsupportedTask,
)
from brolly.verbs import Generation, gather

REASONS = ("stop", "length", "tool_calls", "content_filter")
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city now",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 24}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
FORCED = {"type": "function", "function": {"name": "get_weather"}}
LONG = "It must be very long. " * 300
QUESTION = "Count from one to twelve in words, with commas."


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


def asked(subject: Subject, content: Any = QUESTION, **options: Any) -> Generation:
    """An answer, whole."""
    found: Generation = subject.model.chat(user(content), **{"max_tokens": subject.room, **subject.options, **options})
    return found


def streamed(subject: Subject, content: Any = QUESTION, **options: Any) -> tuple[list[Any], Generation]:
    """An answer by pieces, and what they make."""
    given = {"max_tokens": subject.room, **subject.options, **options}
    pieces = list(subject.model.stream_chat(user(content), **given))
    return pieces, gather(pieces)


def refused(kinds: type[BrollyError] | tuple[type[BrollyError], ...], what: str, run: Any) -> BrollyError:
    """The error that comes. Raises Wrong where none does, or another."""
    try:
        run()
    except BrollyError as error:
        if isinstance(error, kinds):
            return error
        raise Wrong(f"{what} gave {type(error).__name__}: {error}") from None
    raise Wrong(f"{what} was taken without a word")


# ---- chat


@check("chat", "answers, says why it ended and what it used")
def answers(subject: Subject) -> None:
    found = asked(subject)
    subject.answers["whole"] = found
    wants(found.finish_reason in REASONS, f"it ended with {found.finish_reason!r}")
    wants(found.text or found.reasoning, "it wrote nothing")
    usage = found.usage
    wants(usage.prompt_tokens > 0 and usage.completion_tokens > 0, f"its usage is {usage}")
    wants(usage.cached_tokens <= usage.prompt_tokens, f"more was cached than read: {usage}")


@check("chat", "goes on with a conversation and its instructions")
def converses(subject: Subject) -> None:
    said = [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris"},
        {"role": "user", "content": "And of Italy?"},
    ]
    found = subject.model.chat(said, max_tokens=subject.room, **subject.options)
    wants(found.finish_reason in REASONS, f"it ended with {found.finish_reason!r}")


@check("chat", "reads and writes any letters")
def letters(subject: Subject) -> None:
    words = "Grüße, 你好, שלום, 👩‍🚀"
    pieces, found = streamed(subject, f"Repeat: {words}")
    wants("".join(p.text for p in pieces) == found.text, "pieces and the whole differ")
    found.text.encode("utf-8")  # half a surrogate pair would raise


# ---- streams


@check("stream", "says the same by pieces as whole")
def same(subject: Subject) -> None:
    whole = subject.answers.get("whole") or asked(subject)
    pieces, found = streamed(subject)
    ends = [p for p in pieces if p.finish_reason]
    wants(len(ends) == 1 and pieces[-1] is ends[0], f"{len(ends)} pieces have a finish reason; expected the last alone")
    wants(ends[0].usage is not None, "the last piece has no usage")
    wants(found.text or found.reasoning, "it wrote nothing")
    if subject.repeats:
        wants(found.text == whole.text, f"by pieces {found.text[:60]!r}, whole {whole.text[:60]!r}")
        wants(found.finish_reason == whole.finish_reason, f"{found.finish_reason}, whole {whole.finish_reason}")
        wants(found.usage.completion_tokens == whole.usage.completion_tokens, f"{found.usage} and {whole.usage}")


@check("stream", "comes by several pieces")
def by_pieces(subject: Subject) -> None:
    pieces, _ = streamed(subject)
    wants(sum(bool(p.text or p.reasoning) for p in pieces) > 1, "all of it came in one piece")


@check("stream", "stops when nobody listens, and answers the next one")
def cancel(subject: Subject) -> None:
    stream = subject.model.stream_chat(user(QUESTION), max_tokens=subject.room, **subject.options)
    next(stream)
    stream.close()
    wants(asked(subject, "Hello", max_tokens=subject.room).finish_reason in REASONS, "the next answer has no end")


@check("stream", "answers several at once as alone")
def together(subject: Subject) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda n: asked(subject, f"Say the number {n}."), range(4)))
    wants(all(one.finish_reason in REASONS for one in found), "one of them has no end")
    if subject.repeats:
        alone = asked(subject, "Say the number 2.")
        wants(alone.text == found[2].text, f"alone {alone.text[:60]!r}, beside others {found[2].text[:60]!r}")


# ---- limits


@check("limits", "ends at max_tokens and tells")
def cut(subject: Subject) -> None:
    most = 1024 if subject.thinks else 16
    found = asked(
        subject,
        f"Tell me a story of two thousand words about a fox. {LONG[: 5400 if subject.thinks else 54]}",
        max_tokens=most,
    )
    wants(found.finish_reason == "length", f"it ended with {found.finish_reason!r}")
    wants(found.usage.completion_tokens <= most, f"it wrote {found.usage.completion_tokens} tokens of {most}")


@check("limits", "ends before a stop text")
def stops(subject: Subject) -> None:
    whole = asked(subject).text
    words = whole.split()
    stop = words[len(words) // 2] if subject.repeats and len(words) > 2 else ","
    found = asked(subject, stop=(stop,))
    wants(stop not in found.text, f"{found.text[-60:]!r} holds the stop text {stop!r}")
    if subject.repeats and stop in whole:
        wants(found.finish_reason == "stop", f"it ended with {found.finish_reason!r}")
        wants(found.text == whole[: whole.index(stop)], f"{found.text[-40:]!r} is not all that stood before {stop!r}")
    _, by_pieces = streamed(subject, stop=(stop,))
    wants(stop not in by_pieces.text, f"by pieces {by_pieces.text[-60:]!r} holds the stop text {stop!r}")


# ---- tools


def calls_of(subject: Subject, found: Generation) -> None:
    wants(len(found.tool_calls) == 1, f"it made {len(found.tool_calls)} calls; expected one")
    call = found.tool_calls[0]
    wants(call.name == "get_weather" and call.id, f"it called {call.name!r} by the id {call.id!r}")
    if found.finish_reason == "length":
        raise Skipped("max_tokens cut the call")
    wants(found.finish_reason == "tool_calls", f"it ended with {found.finish_reason!r}")
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        raise Wrong(f"its arguments are no JSON: {call.arguments[:80]!r}") from None
    wants(set(arguments) == {"city"} and isinstance(arguments["city"], str), f"its arguments are {arguments}")


@check("tools", "calls the tool that it must")
def tool(subject: Subject) -> None:
    try:
        found = asked(subject, "How is the weather in Rome?", tools=[WEATHER], tool_choice=FORCED)
    except OptionError as error:  # one who cannot be forced says so
        raise Skipped(str(error)) from None
    subject.answers["call"] = found
    calls_of(subject, found)


@check("tools", "calls it by pieces, too")
def tool_by_pieces(subject: Subject) -> None:
    whole = subject.answers.get("call")
    if whole is None:
        raise Skipped("it cannot be made to call one")
    _, found = streamed(subject, "How is the weather in Rome?", tools=[WEATHER], tool_choice=FORCED)
    calls_of(subject, found)
    if subject.repeats and whole.tool_calls:
        same = json.loads(found.tool_calls[0].arguments) == json.loads(whole.tool_calls[0].arguments)
        wants(same, "by pieces it has other arguments than whole")


@check("tools", "answers when the tool has answered")
def tool_result(subject: Subject) -> None:
    first = subject.answers.get("call")
    if first is None or not first.tool_calls:
        raise Skipped("it made no call")
    said = [*user("How is the weather in Rome?"), first.message]
    said.append({"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "sunny, 24 degrees"})
    found = subject.model.chat(said, tools=[WEATHER], max_tokens=subject.room, **subject.options)
    wants(found.text or found.tool_calls or found.reasoning, "it wrote nothing")


@check("tools", "calls none where it may not")
def no_tool(subject: Subject) -> None:
    found = asked(subject, "How is the weather in Rome?", tools=[WEATHER], tool_choice="none")
    wants(not found.tool_calls, f"it called {[c.name for c in found.tool_calls]}")


# ---- shapes


@check("shapes", "writes JSON of a schema")
def schema(subject: Subject) -> None:
    name: dict[str, Any] = {"type": "string", **({"maxLength": 16} if subject.random else {})}
    wanted = {"type": "object", "properties": {"name": name, "age": {"type": "integer"}}}
    shape = json.dumps({**wanted, "required": ["name", "age"], "additionalProperties": False})
    for found in (
        asked(subject, "Make up a person.", json_schema=shape),
        streamed(subject, "Make up a person.", json_schema=shape)[1],
    ):
        if found.finish_reason == "length":
            raise Skipped("max_tokens cut it")
        try:
            made = json.loads(found.text)
        except ValueError:
            raise Wrong(f"{found.text[:80]!r} is no JSON") from None
        fits = set(made) == {"name", "age"} and isinstance(made["name"], str) and type(made["age"]) is int
        wants(fits, f"{found.text[:80]!r} is none of the schema")


@check("shapes", "chooses one of the texts that it may write")
def choice(subject: Subject) -> None:
    found = asked(subject, "Is the sea wet?", choice=("yes", "no"))
    wants(found.text in ("yes", "no"), f"it wrote {found.text[:60]!r}")


# ---- other kinds of input


def picture() -> bytes:
    """A red PNG of 32 x 32."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xd0\x20\x20" * 32) * 32
    head = struct.pack(">IIBBBBB", 32, 32, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@check("pictures", "reads a picture, or says that it reads none")
def pictures(subject: Subject) -> None:
    from brolly.remote.content import file_part

    content = [{"type": "text", "text": "What colour is this?"}, file_part(picture(), "red.png")]
    if not subject.reads:
        with suppress(BrollyError):
            asked(subject, content)
        raise Skipped("nobody knows whether it reads pictures")
    if "image" in subject.reads:
        found = asked(subject, content)
        wants(found.text or found.reasoning, "it wrote nothing")
    else:
        error = refused(BrollyError, "a picture", lambda: asked(subject, content))
        wants(len(str(error)) > 20, f"its error is {str(error)!r}")


# ---- other verbs


@check("numbers", "tells the likelihood of its tokens, or that it cannot")
def logprobs(subject: Subject) -> None:
    try:
        found = asked(subject, "Hello", logprobs=2, max_tokens=8 if not subject.thinks else subject.room)
    except OptionError as error:
        raise Skipped(str(error)) from None
    wants(found.logprobs, "there are none")
    wants(all(one.logprob <= 1e-4 for one in found.logprobs or ()), "a log-probability is above 0")


@check("numbers", "counts a conversation's tokens")
def counts(subject: Subject) -> None:
    if not hasattr(subject.model, "count"):
        raise Skipped("this way has no counting apart from answers")
    try:
        found = subject.model.count(user("Hello there"))
    except (UnsupportedTask, OptionError) as error:  # through a server it is an option
        raise Skipped(str(error)) from None
    wants(0 < found < 2000, f"it counts {found}")


@check("numbers", "embeds texts")
def embeds(subject: Subject) -> None:
    if "embed" not in subject.verbs:
        raise Skipped("this model embeds nothing")
    found = subject.model.embed(["a", "b", "a"])
    wants(len(found) == 3 and len({len(v) for v in found.vectors}) == 1, "not a vector each")


# ---- errors


@check("errors", "refuses an option out of its range")
def ranges(subject: Subject) -> None:
    refused(OptionError, "temperature 1000", lambda: asked(subject, "Hello", temperature=1000.0))
    refused(OptionError, "an option that does not exist", lambda: asked(subject, "Hello", loudness=3))


@check("errors", "refuses a conversation that is none")
def nonsense(subject: Subject) -> None:
    refused(BrollyError, "an empty conversation", lambda: subject.model.chat([], max_tokens=4))
    bad = [{"content": "Hello"}]
    refused(BrollyError, "a message without a role", lambda: subject.model.chat(bad, max_tokens=4))


@check("errors", "says that a model is not there")
def missing(subject: Subject) -> None:
    if subject.elsewhere is None:
        raise Skipped("a model on this disk is there or not before it is asked")
    other = subject.elsewhere("missing")
    refused(NotFound, "a model that is not there", lambda: other.chat(user("Hello"), max_tokens=16))


@check("errors", "says that a key is wrong, and does not tell it")
def key(subject: Subject) -> None:
    if subject.wrong_key is None:
        raise Skipped("this way asks for no key")
    other = subject.wrong_key()
    error = refused(KeyRefused, "a wrong key", lambda: other.chat(user("Hello"), max_tokens=16))
    wants("wrong-0123456789" not in str(error) + repr(error) + repr(other), "the error tells the key")


@check("errors", "says that a prompt is too long")
def too_long(subject: Subject) -> None:
    if not subject.free or not subject.context:
        raise Skipped("it would cost money" if not subject.free else "its context is not known")
    text = "word " * (subject.context * 2)
    refused((ContextTooLong, OptionError), "a prompt of twice the context", lambda: asked(subject, text))


@check("errors", "still answers after all that")
def lives(subject: Subject) -> None:
    with suppress(Filtered):
        wants(asked(subject, "Hello").finish_reason in REASONS, "it has no end")
