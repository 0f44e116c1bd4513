"""Faults that a hostile reading of models elsewhere found: each has its test here, with the least that shows it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from brolly.errors import BadAnswer, BrollyError, BudgetSpent, OptionError, Unreachable
from brolly.remote import Remote, client, loop, sockets
from brolly.remote.kept import MOST_BYTES, Kept
from brolly.remote.prices import Price
from brolly.verbs import Usage
from tests.remote.fakes import CUT, STALL, Fake, Reply, Request, sse

KEY = "sk-test-abcdefghij0123456789/xyz"
ASKED = [{"role": "user", "content": "Hello"}]
USED = {"prompt_tokens": 10, "completion_tokens": 5}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 10).decode()


class Vendor(Fake):
    """Answers as it is told."""

    says: Callable[[Request], Reply]

    def answer(self, request: Request) -> Reply:
        return self.says(request)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    with Vendor() as fake:
        monkeypatch.setenv("BROLLY_KEYS", f"{fake.url}={KEY}")
        yield fake


def ours(vendor: Vendor, **options: Any) -> Remote:
    return Remote(f"{vendor.url}/v1#m", **{"retries": 0, **options})


def whole(text: str = "Hi", usage: Any = USED, **more: Any) -> Reply:
    choice = {"index": 0, "message": {"content": text, **more}, "finish_reason": "stop"}
    return Reply(body={"choices": [choice], "usage": usage})


def chunk(text: str = "", finish: str | None = None) -> bytes:
    return sse({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]})


# Budgets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", (True, False))
def test_who_leaves_before_the_first_word_may_have_spent_it_all(vendor: Vendor, stream: bool) -> None:
    vendor.says = lambda request: Reply(chunks=[STALL])
    model = ours(vendor, price="1,1000", max_cost=1.0)

    async def leave() -> None:
        import asyncio

        ticket = await model.begin(replace(model.prepare_chat(ASKED, max_tokens=600), stream=stream), lambda _: None)
        await asyncio.to_thread(vendor.until, lambda: len(vendor.requests) == 1)
        ticket.cancel()

    loop.wait(leave())
    vendor.until(lambda: model.budget.spent >= 0.6)
    with pytest.raises(BudgetSpent):
        model.chat(ASKED, max_tokens=600)
    assert len(vendor.requests) == 1


@pytest.mark.parametrize(
    "reply", (Reply(headers={"content-length": "99"}, chunks=[b"{", CUT]), Reply(502), Reply(body=b"no JSON")), ids=str
)
def test_tries_that_come_to_nothing_count_and_are_not_repeated_beyond_the_budget(vendor: Vendor, reply: Reply) -> None:
    vendor.says = lambda request: reply
    model = ours(vendor, price="1,1000", max_cost=1.0, retries=3)
    with pytest.raises(Exception, match="127.0.0.1"):
        model.chat(ASKED, max_tokens=600)
    assert 0.6 <= model.budget.spent <= 1 and len(vendor.requests) == 1


def test_what_a_vendor_refuses_costs_nothing(vendor: Vendor) -> None:
    for status in (400, 401, 404, 429, 500, 503, 529):
        vendor.says = lambda request, status=status: Reply(status, {"retry-after": "0"})
        model = ours(vendor, price="1,1000", max_cost=1.0)
        with pytest.raises(Exception, match="127.0.0.1"):
            model.chat(ASKED, max_tokens=600)
        assert model.budget.spent == 0 == model.budget.unknown, status


def test_each_part_of_what_is_embedded_is_spent_as_it_ends(vendor: Vendor) -> None:
    row = base64.b64encode(b"\0\0\x80?" * 4).decode()

    def says(request: Request) -> Reply:
        n = len(request.json["input"])
        return Reply(body={"data": [{"index": i, "embedding": row} for i in range(n)], "usage": {"prompt_tokens": n}})

    vendor.says = says
    model = ours(vendor, price="100,0", max_cost=1.0)
    with pytest.raises(BudgetSpent):
        model.embed(["a"] * 50_000)  # five dollars
    assert model.budget.spent <= 1


@pytest.mark.parametrize("usage", (None, {}, {"prompt_tokens": 0}, {"prompt_tokens": 1e30, "completion_tokens": 1}))
def test_where_nobody_tells_what_was_used_the_most_is_spent(vendor: Vendor, usage: Any) -> None:
    row = base64.b64encode(b"\0\0\x80?" * 4).decode()
    model = ours(vendor, price="1000,1000", max_cost=100)
    vendor.says = lambda request: Reply(body={"data": [{"index": 0, "embedding": row}], "usage": usage})
    model.embed("a text of 20 letters")
    assert model.budget.spent == pytest.approx(0.02)
    vendor.says = lambda request: Reply(body={"data": [{"b64_json": PNG}], "usage": usage})
    model.draw("A cat.")
    assert model.budget.spent > 8
    vendor.says = lambda request: whole(usage=usage)
    before = model.budget.spent
    model.chat(ASKED, max_tokens=1000)
    assert model.budget.spent > before + 1


def test_a_picture_is_not_drawn_with_less_than_it_may_cost(vendor: Vendor) -> None:
    vendor.says = lambda request: Reply(body={"data": [{"b64_json": PNG}], "usage": {"output_tokens": 6000}})
    with pytest.raises(BudgetSpent):
        ours(vendor, price="10,40", max_cost=0.2).draw("A cat.")
    with pytest.raises(BudgetSpent):
        ours(vendor, price="10,40", max_cost=0.2).transcribe(b"RIFF0000WAVE" + b"0" * 600_000)
    assert not vendor.requests


MILLION = "x" * 1_000_000
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": MILLION})}}


@pytest.mark.parametrize(
    ("messages", "options", "least"),
    (
        ([{"role": "user", "content": "🜁" * 100_000}], {}, 0.4),  # a token a byte
        ([{"role": "user", "content": ["1"] * 10_000}], {}, 0.05),
        ([*ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}], {}, 1.0),
        ([*ASKED, {"role": "assistant", "content": "a", "reasoning_content": MILLION}], {}, 1.0),
        (ASKED, {"json_schema": {"type": "object", "description": MILLION}}, 1.0),
        (ASKED, {"tools": [{"type": "function", "function": {"name": "f", "description": "🜁" * 250_000}}]}, 1.0),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png"}}]}], {}, 0.01),
        ([{"role": "user", "content": [b"%PDF-" + b"0" * 4_000_000]}], {}, 0.4),
        ([{"role": "user", "content": [b"ID3" + b"0" * 4_000_000]}], {}, 0.1),
    ),
)
def test_all_that_is_sent_weighs(vendor: Vendor, messages: Any, options: dict[str, Any], least: float) -> None:
    with pytest.raises(BudgetSpent):
        ours(vendor, price="1,0", max_cost=least).chat(messages, max_tokens=1, **options)
    assert not vendor.requests


def test_a_long_cache_is_not_bought_for_the_price_of_a_short_one(vendor: Vendor) -> None:
    price = Price(read=1, write=0, stored=1.25)
    assert price.at_most(Usage(1_000_000, 0)) == 1.25 and price.at_most(Usage(1_000_000, 0), long=True) == 2
    model = ours(vendor, max_cost=100.0)
    model.__dict__["price"] = price
    part = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    used = Usage(1000, 0, written_tokens=1000)
    short, long = (
        model.prepare_chat([{"role": "user", "content": [one]}])
        for one in ({**part, "cache_control": {"type": "ephemeral"}}, part)
    )
    assert model._cost({0: used}, short) == pytest.approx(0.00125) and model._cost({0: used}, long) is None


# What is meant --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ({"choice": ["a", "b"]}, {"regex": "a+"}, {"stop": ["1", "2", "3", "4", "5"]}))
def test_log_probabilities_are_not_those_of_another_text(vendor: Vendor, option: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="log-probabilities"):
        ours(vendor).chat(ASKED, logprobs=1, **option)


@pytest.mark.parametrize("role", ("system", "assistant"))
@pytest.mark.parametrize("model", ("gemini:gemini-3-pro", "openai-responses:gpt-5", "anthropic:claude-haiku-4-5"))
def test_no_picture_is_dropped_in_silence(model: str, role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    remote = Remote(model)
    ask = remote.prepare_chat([*ASKED, {"role": role, "content": [picture]}, *ASKED])
    try:
        dialect, fitting, _ = remote.wording.said(ask)
    except OptionError as error:
        assert f"of the role {role}" in str(error)
    else:
        assert PNG in json.dumps(dialect.call(fitting, remote.target).body)


def test_arguments_that_are_no_object_are_not_made_one(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", vendor.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": ["x"]}
    vendor.says = lambda request: Reply(body={"content": [call], "stop_reason": "tool_use", "usage": {}})
    with pytest.raises(BadAnswer, match="no JSON object"):
        Remote("anthropic:claude-haiku-4-5", retries=0).chat(ASKED)


@pytest.mark.parametrize("guided", (True, False))
def test_no_regex_stops_the_clock(vendor: Vendor, guided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    if not guided:
        monkeypatch.setitem(sys.modules, "llguidance", None)
    texts = {
        "(a+)+b": "a" * 40 + "!",
        "(a|a)*b": "a" * 40 + "!",
        "a*a*a*a*b": "a" * 5000,
        r"(\w+\s?)*;": "a" * 40 + "!",
    }
    for regex, text in texts.items():
        began = time.monotonic()
        vendor.says = lambda request, text=text: whole(json.dumps({"answer": text}))
        with pytest.raises((BadAnswer, OptionError), match="matches|for ever"):
            ours(vendor).chat(ASKED, regex=regex)
        assert time.monotonic() - began < 6, regex
    for regex, text in {"[A-Z]{3}-[0-9]+": "ABC-12", "a|bc": "bc", "(?i)yes|no": "NO", "(ab?){2}": "aba"}.items():
        vendor.says = lambda request, text=text: whole(json.dumps({"answer": text}))
        assert guided is False and regex == "(ab?){2}" or ours(vendor).chat(ASKED, regex=regex).text == text


def test_what_is_unwrapped_can_be_written(vendor: Vendor) -> None:
    vendor.says = lambda request: whole('{"answer": ["\\ud800"]}')
    assert ours(vendor).chat(ASKED, json_schema={"type": "array", "items": {}}).text.encode()
    vendor.says = lambda request: whole('{"answer": [NaN]}')
    with pytest.raises(BadAnswer, match="expected JSON"):
        ours(vendor).chat(ASKED, json_schema={"type": "array", "items": {}})


def test_a_grammar_is_where_each_server_looks_for_it() -> None:
    for vendor, path in (("llamacpp", ("grammar",)), ("vllm", ("structured_outputs", "grammar"))):
        model = Remote(f"{vendor}:m")
        ask = model.prepare_chat(ASKED, grammar='root ::= "a"')
        dialect, fitting, _ = model.wording.said(ask)
        body = dialect.call(fitting, model.target).body
        for step in path:
            body = body[step]
        assert body == 'root ::= "a"'


# Keys -----------------------------------------------------------------------------------------------------------------

SPELT = (KEY, KEY.replace("/", "\\/"), f"\\u0073{KEY[1:]}", KEY[:20], KEY[8:], KEY.replace("-", "\\u002d"))


@pytest.mark.parametrize("spelt", SPELT)
@pytest.mark.parametrize("stream", (True, False))
def test_no_key_comes_back_however_it_is_spelt(vendor: Vendor, spelt: str, stream: bool) -> None:
    bodies = (
        '{"error": {"message": "the key %s is bad", "code": "x"}}',
        '{"choices": [{"index": 0, "delta": {}, "message": {}, "finish_reason": "%s"}]}',
        '{"choices": %s}',
    )
    for body in bodies:
        said = (body % (spelt if body[-4] != "s" else f'"{spelt}"')).encode()
        vendor.says = lambda request, said=said: (
            Reply(chunks=[b"data: " + said + b"\n\n"]) if stream else Reply(body=said)
        )
        with pytest.raises(BrollyError) as caught:
            list(ours(vendor).stream_chat(ASKED)) if stream else ours(vendor).chat(ASKED)
        assert not any(KEY[at : at + 8] in str(caught.value) for at in range(len(KEY) - 7)), str(caught.value)


@pytest.mark.parametrize("spelt", SPELT[:3])
def test_no_whole_key_is_in_what_a_model_writes(vendor: Vendor, spelt: str) -> None:
    body = '{"choices": [{"index": 0, "message": {"content": "KEY"}, "finish_reason": "stop"}]}'
    said = body.replace("KEY", spelt).encode()
    vendor.says = lambda request: Reply(body=said)
    assert ours(vendor).chat(ASKED).text == "***"


def test_a_media_type_tells_no_key_and_is_short(vendor: Vendor) -> None:
    vendor.says = lambda request: Reply(headers={"content-type": f"text/{KEY}{'x' * 3000}"}, body=b"?")
    for ask in (lambda: ours(vendor).chat(ASKED), lambda: ours(vendor).speak("Hi")):
        with pytest.raises(BadAnswer) as caught:
            ask()
        assert KEY[:12] not in str(caught.value) and len(str(caught.value)) < 300


# Who has what ---------------------------------------------------------------------------------------------------------


def test_thoughts_that_go_back_are_their_user_s_alone() -> None:
    kept = Kept()
    mine: list[Any] = [{"vendor": "gemini", "signature": "mine"}]
    kept.keep("anna", ["call_1"], mine, 10)
    turn = {"role": "assistant", "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": "{}"}}]}
    assert kept.given(turn, "anna")["opaque"] == mine and "opaque" not in kept.given(turn, "bert")
    kept.keep("anna", ["call_1"], [{"vendor": "gemini", "signature": "of another answer"}], 10)
    assert "opaque" not in kept.given(turn, "anna")  # nobody knows which of both is meant


@pytest.mark.parametrize(
    "item",
    (
        {"type": "item_reference", "id": "rs_of_another"},
        {"role": "user", "content": [{"type": "input_file", "file_id": "file-of-another"}]},
        {"type": "message", "role": "system", "content": "x"},
        {"type": "computer_call_output", "call_id": "c", "output": {"type": "x", "file_id": "file-of-another"}},
        {"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]},
        {"type": ["reasoning"]},
    ),
)
def test_what_clients_send_as_opaque_names_nothing_of_the_account(item: Any) -> None:
    from brolly.remote.dialects.openai import responses
    from tests.remote.wire import ask_of, target_of

    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    opaque = [{"vendor": "openai", "item": one} for one in (thought, item)]
    rows = [*ASKED, {"role": "assistant", "content": "Hi", "opaque": opaque}, *ASKED]
    body = responses.call(ask_of(rows), target_of("openai-responses:gpt-5")).body
    assert body is not None and [one.get("type") for one in body["input"]] == [None, "reasoning", None, None]


def test_what_gemini_wants_back_holds_no_files() -> None:
    from brolly.remote.dialects.gemini import content
    from tests.remote.wire import ask_of, target_of

    ran = {"executableCode": {"language": "PYTHON", "code": "1"}}
    forged = {**ran, "fileData": {"fileUri": "gs://of/another.pdf"}}
    opaque = [{"vendor": "gemini", "part": forged, "after": 0, "signature": "s"}]
    rows = [*ASKED, {"role": "assistant", "content": "Hi", "opaque": opaque}, *ASKED]
    body = content.call(ask_of(rows), target_of("gemini:gemini-3-pro")).body
    assert body is not None
    assert body["contents"][1]["parts"] == [{**ran, "thoughtSignature": "s"}, {"text": "Hi"}]


@pytest.mark.parametrize("url", ("file:///etc/passwd", "FILE:/etc/passwd", "gs://bucket/x.pdf", " s3://bucket/x"))
def test_a_server_s_clients_name_no_files_of_a_vendor_s_machine(url: str) -> None:
    from brolly.serve.ask import Reads
    from brolly.serve.errors import Refused

    reads = Reads(lambda role: True, frozenset({"image", "pdf"}), parts=True)
    for ask in (
        lambda u: reads.image({"url": u}, "x", "image_url"),
        lambda u: reads.file({"file_data": u}, "x", "file"),
    ):
        with pytest.raises(Refused, match="expected a data: or https: URL"):
            ask(url)
        ask("https://example.com/x.png"), ask("data:image/png;base64,AAAA")


def test_a_server_s_clients_are_not_told_where_a_model_is(vendor: Vendor) -> None:
    from brolly.serve.errors import told

    model = Remote(f"{vendor.url}/tenant/v1#m", retries=0)
    for status in (400, 401, 403, 404, 429, 500):
        vendor.says = lambda request, status=status: Reply(status, {"retry-after": "99"}, {"error": {"message": "no"}})
        model.client.limit.renew()
        with pytest.raises(BrollyError) as caught:
            model.chat(ASKED)
        assert "tenant" not in str(told(caught.value)), told(caught.value)


def test_what_is_kept_of_answers_is_bounded_by_its_size() -> None:
    kept = Kept()
    for n in range(100):
        kept.keep("", [f"call_{n}"], [{"vendor": "openai"}], MOST_BYTES // 10)
    assert kept._size <= MOST_BYTES and len(kept._rows) <= 10


def test_several_answers_are_not_told_as_one(vendor: Vendor) -> None:
    for ask in (
        lambda m: m.chat(ASKED, n=2),
        lambda m: m.generate("Hello", n=2),
        lambda m: m.generate(["a", "b"], n=2),
    ):
        with pytest.raises(OptionError, match="n is 2"):
            ask(ours(vendor))


# What is shown --------------------------------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2J\ud800\u202e\r\n"


@pytest.mark.parametrize(
    "body",
    (
        {"promptFeedback": {"blockReason": EVIL, "blockReasonMessage": EVIL}},
        {"candidates": [{"finishReason": EVIL, "finishMessage": EVIL}]},
        {
            "candidates": [
                {"finishReason": "STOP", "content": {"parts": [{"functionCall": {"name": EVIL, "args": []}}]}}
            ]
        },
        {"error": {"message": EVIL, "status": EVIL}},
    ),
)
def test_no_error_gives_orders_to_a_terminal(vendor: Vendor, body: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_BASE_URL", f"{vendor.url}/v1")
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    vendor.says = lambda request: Reply(body=json.dumps(body))
    for verb in ("chat", "draw"):
        model = Remote("gemini:gemini-2.5-flash-image" if verb == "draw" else "gemini:gemini-2.5-flash", retries=0)
        with pytest.raises(BrollyError) as caught:
            model.chat(ASKED) if verb == "chat" else model.draw("A cat.")
        assert str(caught.value).isprintable(), str(caught.value)


@pytest.mark.parametrize(
    "address",
    ("https://[::1/v1",   "https://xn--/v1", f"https://{'a' * 300}/v1",
     "https://..../v1", "https://ho\nst/v1"),
)  # fmt: skip
def test_an_address_that_can_be_none_is_told_so(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="address"):
        Remote(f"{address}#m")
    if "\n" not in address:
        monkeypatch.setenv("OPENAI_BASE_URL", address)
        with pytest.raises(OptionError, match="address"):
            Remote("openai:m")


# Bounds ---------------------------------------------------------------------------------------------------------------


def test_a_stream_has_an_end_in_bytes_and_in_time(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    vendor.says = lambda request: Reply(chunks=(chunk("x" * 1000) for _ in range(1 << 30)))
    monkeypatch.setattr(client, "MOST_BODY", 1 << 20)
    with pytest.raises(BadAnswer, match="more than 1 MiB"):
        for _ in ours(vendor).stream_chat(ASKED):
            pass
    monkeypatch.setattr(client, "LONGEST_ANSWER", 0.2)
    for chunks in (lambda: [b": alive\n\n", 0.02] * 100, lambda: [b" ", 0.02] * 100):
        vendor.says = lambda request, chunks=chunks: Reply(chunks=chunks())
        with pytest.raises(Unreachable, match=r"in 0\.2 s"):
            ours(vendor).chat(ASKED)


def test_a_head_does_not_come_letter_by_letter_for_ever(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "HEAD_SECONDS", 0.2)
    with Dripping() as address, pytest.raises(BadAnswer, match="does not speak HTTP"):
        Remote(f"http://{address}/v1#m", retries=0).chat(ASKED)


def test_what_is_open_when_a_client_is_closed_is_not_asked_again(vendor: Vendor) -> None:
    import threading

    vendor.says = lambda request: Reply(chunks=[STALL])
    model, said = ours(vendor, retries=2), []

    def ask() -> None:
        try:
            model.chat(ASKED)
        except BrollyError as error:
            said.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    vendor.until(lambda: len(vendor.requests) == 1)
    model.close()
    asking.join(5)
    assert said and len(vendor.requests) == 1
    vendor.says = lambda request: whole()
    assert model.chat(ASKED).text == "Hi"  # it may be used again


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_process_does_not_wait_for_what_its_parent_has_open(vendor: Vendor) -> None:
    script = """
import os, signal, sys, warnings
warnings.simplefilter("ignore")
from brolly.remote import Remote
model, asked = Remote(sys.argv[1], concurrency=1, retries=0), [{"role": "user", "content": "Hello"}]
open_ = model.stream_chat(asked)
next(open_)
if not (child := os.fork()):
    signal.alarm(10)
    print(model.chat(asked).text, flush=True)
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1] != 0)
"""
    vendor.says = lambda request: (
        Reply(chunks=[chunk("a"), STALL]) if request.json.get("stream") else whole("from a child")
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"{vendor.url}/v1#m"], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (0, "from a child\n"), done.stderr


class Dripping:
    """A server whose answer's headers never end."""

    def __enter__(self) -> str:
        import socket
        import threading
        import time

        self.server = socket.create_server(("127.0.0.1", 0))

        def drip() -> None:
            line, _ = self.server.accept()
            with line:
                line.recv(1 << 16)
                line.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                for _ in range(200):
                    try:
                        line.sendall(b"x")
                    except OSError:
                        return
                    time.sleep(0.02)

        threading.Thread(target=drip, daemon=True).start()
        host, port = self.server.getsockname()
        return f"{host}:{port}"

    def __exit__(self, *_: object) -> None:
        self.server.close()


@pytest.mark.parametrize(
    "reference", ["anthropic:claude-haiku-5-5", "gemini:gemini-2.5-flash", "openai-responses:gpt-5"]
)
def test_names_of_speakers_are_not_dropped_in_silence(reference: str) -> None:
    said = [{"role": "user", "name": "Ann", "content": "Hello"}]
    with pytest.raises(OptionError, match="has no names of who speaks"):
        model = Remote(reference, strict=True)
        model.check(model.prepare_chat(said))
    model = Remote("openai:gpt-4.1", strict=True)
    model.check(model.prepare_chat(said))
