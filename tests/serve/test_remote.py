"""Every client's format over every vendor's: the same questions through one server, to fakes of the vendors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

for package in ("openai", "anthropic", "google.genai", "ollama"):
    pytest.importorskip(package)

from brolly.serve.logs import access  # noqa: E402
from tests.remote.fakes import CUT, STALL, Reply  # noqa: E402
from tests.serve.speakers import SPEAKERS, Heard, Question, Speaker  # noqa: E402
from tests.serve.vendors import CLIENT, KEYS, World, world_of  # noqa: E402

VENDORS = (
    "openai:gpt-4.1", "openai-responses:gpt-5.6-sol", "anthropic:claude-haiku-4-5", "gemini:gemini-2.5-flash",
)  # fmt: skip
THINKING = ("openai-responses:gpt-5.6-sol", "anthropic:claude-haiku-4-5", "gemini:gemini-2.5-flash")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    models = (*VENDORS, *(f"{model.partition(':')[0]}:missing" for model in VENDORS))
    with world_of(models, tmp_path_factory.mktemp("store")) as found:
        yield found
        for fake in found.fakes.values():
            assert not any(b"user-not-to-be-sent" in request.body for request in fake.requests)


@pytest.fixture(params=range(len(SPEAKERS)), ids=[kind.name for kind in SPEAKERS])
def speaker(request: pytest.FixtureRequest, world: World) -> Speaker:
    return SPEAKERS[request.param](world.running.url, CLIENT)


def both(speaker: Speaker, model: str, question: Question, counted: bool = True) -> Heard:
    """The whole answer, which the streamed one equals; `counted`: in its tokens, too."""
    whole, streamed = speaker.ask(model, question), speaker.stream(model, question)
    assert whole.said[: None if counted else -1] == streamed.said[: None if counted else -1]
    return streamed


@pytest.mark.parametrize("model", VENDORS)
def test_texts(speaker: Speaker, model: str) -> None:
    heard = both(speaker, model, Question("Grüße an alle 👋, und 日本語!"))
    assert heard.text == "You said: Grüße an alle 👋, und 日本語!" and heard.finish == "stop"
    assert heard.tokens[0] > 3 and heard.tokens[1] > 5


@pytest.mark.parametrize("model", VENDORS)
def test_tools_are_called_and_answered(speaker: Speaker, model: str) -> None:
    question = Question("What is the weather?", tools=True)
    heard = both(speaker, model, question)
    assert heard.calls == [("weather", {"city": "text"})] and heard.finish == "calls"
    after = both(speaker, model, Question("What is the weather?", tools=True, after=(heard, ["rain"])))
    assert after.text == "The tool said rain." and after.finish == "stop"


@pytest.mark.parametrize("model", VENDORS)
def test_several_calls(speaker: Speaker, model: str) -> None:
    heard = both(speaker, model, Question("What is the weather, twice?", tools=True))
    assert len(heard.calls) == 2 and (speaker.name == "ollama" or len(set(heard.ids)) == 2)
    after = speaker.stream(model, Question("weather twice", tools=True, after=(heard, ["rain", "sun"])))
    assert after.text == "The tool said rain and sun."


@pytest.mark.parametrize("model", VENDORS)
def test_a_tool_can_be_forced(speaker: Speaker, model: str) -> None:
    if speaker.name == "ollama":
        pytest.skip("Ollama's clients cannot force one")
    heard = both(speaker, model, Question("Hello.", tools=True, forced=True))
    assert heard.calls == [("weather", {"city": "text"})]


@pytest.mark.parametrize("model", VENDORS)
def test_a_schema_is_kept(speaker: Speaker, model: str) -> None:
    heard = both(speaker, model, Question("Where is it hot?", schema=True))
    assert json.loads(heard.text) == {"city": "text", "hot": True}


@pytest.mark.parametrize("model", VENDORS)
def test_pictures_are_seen(speaker: Speaker, model: str) -> None:
    assert both(speaker, model, Question("What is this?", picture=True)).text == "I see 1 picture."


@pytest.mark.parametrize("model", VENDORS)
def test_stop_and_length(speaker: Speaker, model: str) -> None:
    # where a dialect has no word for it, the stream is cut here, and nobody tells its tokens
    heard = both(speaker, model, Question("one two END three", stop="END"), counted="responses" not in model)
    assert heard.text.rstrip() == "You said: one two" and heard.finish == "stop"
    vendor = model.partition(":")[0]
    if speaker.name == "anthropic" and vendor != "gemini":
        assert heard.stopped == ("END" if vendor != "openai" else None)  # OpenAI's chats do not tell which it was
    long = "word " * 40
    cut = both(speaker, model, Question(long, max_tokens=20))
    assert cut.finish == "length" and cut.text.startswith("You said: word") and len(cut.text) < len(long)


@pytest.mark.parametrize("model", THINKING)
def test_thoughts_are_told_and_go_back(speaker: Speaker, model: str, world: World) -> None:
    heard = both(speaker, model, Question("What is the weather?", tools=True, effort="low", max_tokens=4096))
    assert heard.thoughts == "Let me think." and heard.calls
    question = Question("What is the weather?", tools=True, effort="low", max_tokens=4096, after=(heard, ["rain"]))
    after = both(speaker, model, question)
    assert after.text == "The tool said rain."
    sent = json.dumps(world.vendor(model).requests[-1].json)
    if speaker.name == "ollama":  # whose calls have no ids, by which thoughts are remembered
        return
    assert any(word in sent for word in ("encrypted_content", "signature", "thoughtSignature"))


@pytest.mark.parametrize("model", VENDORS)
def test_refusals(speaker: Speaker, model: str) -> None:
    question = Question("Tell what is forbidden.")
    for ask in (speaker.ask, speaker.stream):
        heard = ask(model, question)
        assert heard.finish == ("stop" if speaker.name == "ollama" else "refused")
        assert "forbidden" not in heard.text


def failing(speaker: Speaker, model: str, question: Question) -> tuple[Any, ...]:
    """The errors of a whole answer and of a streamed one."""
    found = []
    for ask in (speaker.ask, speaker.stream):
        with pytest.raises(speaker.errors) as caught:
            ask(model, question)
        found.append(caught.value)
        assert not any(key in str(caught.value) for key in KEYS)
        assert "/v1" not in str(caught.value)
    return tuple(found)


@pytest.mark.parametrize("model", VENDORS)
def test_a_model_that_the_vendor_has_not(speaker: Speaker, model: str) -> None:
    for error in failing(speaker, f"{model.partition(':')[0]}:missing", Question("Hi")):
        assert error.status_code == 404 and "missing" in str(error)


@pytest.mark.parametrize("model", VENDORS)
def test_a_context_that_is_too_long(speaker: Speaker, model: str) -> None:
    for error in failing(speaker, model, Question("toolong")):
        assert error.status_code == 400
        if speaker.name.startswith("openai"):
            assert error.code == "context_length_exceeded"


def refused(status: int, headers: dict[str, str] | None = None) -> Any:
    body = {"error": {"type": "x", "message": "no", "code": status, "status": "X"}}
    return lambda request: Reply(status, headers or {}, body)


@pytest.mark.parametrize("model", VENDORS)
@pytest.mark.parametrize(
    ("theirs", "ours", "code"),
    [(401, 502, "upstream_key_refused"), (403, 502, "upstream_key_refused"), (429, 429, "rate_limit_exceeded"),
     (503, 503, "upstream_overloaded")],
)  # fmt: skip
def test_what_a_vendor_refuses(
    speaker: Speaker, model: str, world: World, theirs: int, ours: int, code: str
) -> None:  # fmt: skip
    faults = world.vendor(model).faults
    faults.extend([refused(theirs, {"retry-after": "0"})] * 12)
    try:
        for error in failing(speaker, model, Question("Hi")):
            assert error.status_code == (529 if speaker.name == "anthropic" and ours == 503 else ours)
            if speaker.name.startswith("openai"):
                assert error.code == code
    finally:
        faults.clear()


@pytest.mark.parametrize("model", VENDORS)
def test_a_page_instead_of_an_answer(speaker: Speaker, model: str, world: World) -> None:
    page = Reply(200, {"content-type": "text/html"}, "<html><title>Sign in</title></html>")
    world.vendor(model).faults.extend([lambda request: page] * 2)
    for error in failing(speaker, model, Question("Hi")):
        assert error.status_code == 502 and "answered with" in str(error)


@pytest.mark.parametrize("fault", [CUT, b"data: {broken\n\n"], ids=["cut", "no JSON"])
@pytest.mark.parametrize("model", VENDORS)
def test_a_stream_that_breaks_is_an_error_in_the_clients_format(
    speaker: Speaker, model: str, world: World, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake = world.vendor(model)
    caplog.set_level("INFO", access.name)

    def broken(request: Any) -> Reply:
        whole = fake.answer(request)
        chunks = list(whole.chunks)
        return Reply(whole.status, whole.headers, chunks=[*chunks[: len(chunks) // 2], fault])

    fake.faults.append(broken)
    with pytest.raises(speaker.errors) as caught:
        speaker.stream(model, Question("one two three four five six"))
    fake.until(
        lambda: any(row.account.error == "upstream_bad_answer" for row in caplog.records if row.name == access.name)
    )
    assert not any(key in str(caught.value) for key in KEYS)
    assert both(speaker, model, Question("Again")).text == "You said: Again"


@pytest.mark.parametrize("model", VENDORS)
def test_whoever_leaves_closes_the_vendors_stream(speaker: Speaker, model: str, world: World) -> None:
    fake = world.vendor(model)
    before = fake.left

    def stalled(request: Any) -> Reply:
        whole = fake.answer(request)
        chunks = list(whole.chunks)
        return Reply(whole.status, whole.headers, chunks=[*chunks[: len(chunks) // 2], STALL])

    class Enough(Exception):
        pass

    def enough() -> None:
        raise Enough

    fake.faults.append(stalled)
    with pytest.raises(Enough):
        speaker.stream(model, Question("one two three four five six"), enough)
    fake.until(lambda: fake.left == before + 1)


@pytest.mark.parametrize("model", VENDORS)
def test_tokens_are_counted_by_the_vendor(world: World, model: str) -> None:
    for kind in SPEAKERS[1:3]:
        assert kind(world.running.url, CLIENT).count(model, "one two three") >= 3
