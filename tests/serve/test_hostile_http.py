"""What strangers tried against the server: each of these worked once, or is what they would try first."""

from __future__ import annotations

import asyncio
import resource
import shutil
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("fastapi")

from pydantic import ValidationError  # noqa: E402

from brolly.errors import OptionError  # noqa: E402
from brolly.hub import resolve  # noqa: E402
from brolly.media.text.answers.format import check_tools  # noqa: E402
from brolly.media.text.stops import Held  # noqa: E402
from brolly.serve.account import Account, current  # noqa: E402
from brolly.serve.errors import bare  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402
from brolly.serve.store import LONGEST, Conversation, Store, Stored  # noqa: E402
from brolly.serve.strict_json import BRANCHES, VALUES  # noqa: E402
from brolly.serve.threads import ALL, EACH, in_turn  # noqa: E402
from brolly.serve.turns import LARGE, Turns  # noqa: E402
from brolly.verbs import STOP  # noqa: E402
from tests.serve.conftest import Running  # noqa: E402
from tests.serve.small import client  # noqa: E402

JSON = {"content-type": "application/json"}
USER, ADMIN = "a-key-of-a-user-0001", "a-key-of-an-admin-01"
KEYED = Settings(api_keys=((USER, "user"), (ADMIN, "admin")))


@pytest.mark.parametrize("end", ["%0A", "%0a", "%0D", "%0A%0A", "%00", "/%0A"])
@pytest.mark.parametrize("path", ["/v1/brolly/load", "/api/pull", "/metrics"])
def test_a_lines_end_behind_a_path_makes_nobody_an_admin(path: str, end: str) -> None:
    method = "GET" if path == "/metrics" else "POST"
    keyed = client(KEYED).request(method, path + end, headers={"authorization": f"Bearer {USER}"})
    distant = client(Settings(host="0.0.0.0"), "192.0.2.7", at="192.0.2.1").request(method, path + end)
    assert (keyed.status_code, distant.status_code) == (404, 404)
    assert client(KEYED).request(method, path, headers={"authorization": f"Bearer {ADMIN}"}).status_code == 200


WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("embeddings", "EmbeddingsRequest", {"input": [1] * 5000 + [{}]}),
    ("chat", "ChatRequest", {"messages": [0] * 5000}),
    ("chat", "ChatRequest", {"messages": [{"role": "user", "content": [0] * 5000}]}),
    ("chat", "ChatRequest", {"messages": [], **{f"x{n}": 1 for n in range(5000)}}),
    ("chat", "ChatRequest", {"messages": [], "logit_bias": {str(n): "x" for n in range(5000)}}),
    ("responses", "ResponseRequest", {"input": [0] * 5000, "metadata": {str(n): 0 for n in range(5000)}}),
    ("conversations", "ConversationRequest", {"metadata": {str(n): 0 for n in range(5000)}}),
    ("anthropic", "MessagesRequest", {"max_tokens": 1, "messages": [0] * 5000}),
    ("ollama", "ChatRequest", {"messages": [0] * 5000}),
    ("rerank", "RerankRequest", {"query": "q", "documents": [0] * 5000}),
    ("tokens", "DetokenizeRequest", {"tokens": ["x"] * 5000}),
]


@pytest.mark.parametrize(("module", "kind", "body"), WRONG)
def test_a_body_that_is_wrong_everywhere_is_told_it_once(module: str, kind: str, body: dict[str, Any]) -> None:
    """An error each kept the event loop for 17 s and took 2 GB, with a body of 600 KB."""
    wire = getattr(import_module(f"brolly.serve.wire.{module}"), kind)
    with pytest.raises(ValidationError) as caught:
        wire.model_validate({"model": "m", **body})
    assert caught.value.error_count() < 20


def test_stop_texts_are_few_and_short_and_looked_for_in_linear_time(brolly: Running) -> None:
    """One of 60,000 characters cost the engine 50 ms a token, and the time grew with its square."""
    for stop in ("a" * 100_000, ["x"] * 1000):
        assert chat(brolly, stop=stop).status_code == 400
    long = "a" * STOP
    held = Held((f"{long}b",))
    assert [held.push(long) for _ in range(3)] == [("", False), (long, False), (long, False)]
    assert held.push("b") == ("", True)


def test_biases_that_name_no_token_are_refused(brolly: Running) -> None:
    for token in ("9" * 5000, "9" * 19, "4096", "-1", "٣"):
        reply = chat(brolly, logit_bias={token: 1})
        assert reply.status_code == 400, token
    assert chat(brolly, logit_bias={str(n): 100 * (n == 300) for n in range(4096)}).status_code == 200


def chat(server: Running, **more: Any) -> httpx.Response:
    body = {"model": "mini-llm", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, **more}
    return httpx.post(f"{server.v1}/chat/completions", json=body, timeout=60)


def test_a_text_that_cannot_fit_is_refused_unread(brolly: Running) -> None:
    """Ten million characters kept the event loop for 9 s."""
    text = "a b " * 1_000_000
    before = peak()
    asks: tuple[tuple[str, dict[str, Any]], ...] = (
        ("completions", {"prompt": text}),
        ("completions", {"prompt": text, "add_special_tokens": False}),
        ("chat/completions", {"messages": [{"role": "user", "content": text}]}),
        ("responses", {"input": text, "store": False}),
    )
    for path, body in asks:
        reply = httpx.post(f"{brolly.v1}/{path}", json={"model": "mini-llm", **body}, timeout=60)
        assert reply.status_code == 400, path
        assert reply.json()["error"]["code"] == "context_length_exceeded"
    assert peak() - before < 800 << 20


def test_a_long_text_is_read_while_others_are_answered(brolly: Running) -> None:
    text = "a b " * 100_000

    async def tokens() -> tuple[int, int]:
        async with httpx.AsyncClient(base_url=brolly.url, timeout=60) as caller:
            reading = asyncio.create_task(caller.post("/tokenize", json={"model": "mini-llm", "prompt": text}))
            others = 0
            while not reading.done():
                await caller.get("/health")
                others += 1
            return (await reading).json()["count"], others

    count, others = asyncio.run(tokens())
    assert count >= 200_000
    assert others > 10


def test_what_takes_a_caller_long_keeps_no_other_caller_waiting() -> None:
    """Thirty grammars that are hard to compile kept a chat waiting for 40 s."""
    going = threading.Event()

    async def as_user(name: str, work: Any) -> Any:
        account = Account("", "", "", "")
        account.user = name
        current.set(account)
        return await in_turn(work)

    async def both() -> str:
        slow = [asyncio.create_task(as_user("one", lambda: going.wait(20))) for _ in range(3 * ALL)]
        await asyncio.sleep(0.05)
        slow[0].cancel()  # one that leaves while its work goes on gives its place to none
        found = [await asyncio.create_task(as_user("other", lambda: "done"))]
        assert sum(thread.name.startswith("reading") for thread in threading.enumerate()) <= EACH + 1
        going.set()
        await asyncio.gather(*slow, return_exceptions=True)
        return str(found[0])

    assert asyncio.run(both()) == "done"


def peak() -> int:
    """Bytes of memory that this process took at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize(
    "inner",
    [
        b"[" + b"[]," * BRANCHES + b"0]",
        b"[" + b"1e5," * VALUES + b"0]",
        b"[" + b'"",' * (VALUES + 1) + b'""]',
        b"{" + b",".join(b'"%d":0' % n for n in range(VALUES // 2)) + b"}",
        b'"' + b"[" * BRANCHES + b'\\\\",' + b"[" + b"[]," * BRANCHES + b"0]",
    ],
)
def test_a_body_of_millions_of_values_is_refused_unparsed(inner: bytes) -> None:
    """Six megabytes of `[],` kept the event loop for 4 to 7 s."""
    reply = client().post("/v1/echo", content=b'{"x": ' + inner + b"}", headers=JSON)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_json")
    assert "more than" in reply.json()["error"]["message"]


def test_texts_may_hold_any_number_of_commas_and_brackets() -> None:
    text = 'a,[{:"\\' * BRANCHES
    assert client().post("/v1/echo", json={"model": text}).json()["got"] == text


def test_tools_are_checked_in_linear_time() -> None:
    """Fifty thousand took minutes."""
    tools = [{"type": "function", "function": {"name": f"tool{n}"}} for n in range(20_000)]
    assert len(check_tools(tools)) == 20_000
    with pytest.raises(OptionError, match="two tools are named 'tool7'"):
        check_tools([*tools, tools[7]])


def test_what_a_response_continues_is_bounded_however_well_it_packs(tmp_path: Path) -> None:
    """Twenty megabytes of `a` pack well; a chain of two kept the event loop for 3 minutes and took 4 GB."""
    store = Store(tmp_path)
    big = [{"type": "message", "id": "msg_1", "content": "a" * (LONGEST // 3)}]
    for n in range(4):
        before = f"resp_{n - 1}" if n else None
        response: dict[str, Any] = {
            "id": f"resp_{n}",
            "status": "failed",
            "previous_response_id": before,
            "created_at": 0,
            "output": [],
        }
        store.put(Stored(response, big))
    assert len(store.chain("resp_1") or ()) == 2
    with pytest.raises(OptionError, match="begin another"):
        store.chain("resp_3")
    store.put_conversation(Conversation("conv_1", 0, {}, big * 2))
    with pytest.raises(OptionError, match="begin another"):
        store.lengthen("conv_1", big * 2)
    found = store.conversation("conv_1")
    assert found is not None and len(found.items) == 2
    store.close()


def test_a_large_batch_is_computed_by_parts_between_which_others_have_their_turn() -> None:
    async def go() -> None:
        turns, done = Turns(4), threading.Event()
        computed: list[int] = []

        def work(every: list[int]) -> list[int]:
            computed.append(len(every))
            done.wait(5 if len(every) > 1 else 0)
            return every

        large = asyncio.create_task(turns.together("k", list(range(20 * LARGE)), work))
        await asyncio.sleep(0.05)
        small = asyncio.create_task(turns.run(lambda: len(computed)))
        await asyncio.sleep(0.05)
        large.cancel()
        done.set()
        assert await small <= 2
        assert await turns.run(lambda: len(computed)) <= 2  # whoever has left is computed nothing more
        assert await turns.together("k", list(range(3 * LARGE)), work) == list(range(3 * LARGE))

    asyncio.run(go())


def test_no_answer_tells_where_files_lie(tmp_path: Path, server: Callable[[Settings], Running]) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(resolve("mini-llm"), folder)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    url = server(Settings(models=(str(folder),), store=tmp_path / "store")).url
    ask = {"model": "broken", "messages": [{"role": "user", "content": "Hi"}]}
    replies = [httpx.post(f"{url}{path}", json=ask) for path in ("/v1/chat/completions", "/api/chat", "/v1/messages")]
    replies += [httpx.post(f"{url}/v1/brolly/load", json={"model": "broken"})]
    paths = ("/v1/models", "/v1/brolly/models", "/v1/brolly/ps", "/api/tags", "/api/ps")
    replies += [httpx.get(f"{url}{path}") for path in paths]
    assert "model.safetensors: the header claims" in replies[0].text
    for reply in replies:
        assert str(tmp_path) not in reply.text + str(reply.headers), reply.url


@pytest.mark.parametrize(
    ("said", "told"),
    [("/home/a/.cache/x--y/config.json: no", "config.json: no"), ("C:\\Users\\a\\m.bin is short", "m.bin is short"),
     ("see https://hf.co/org/name/x", "see https://hf.co/org/name/x"), ("org/name or a/b/c", "org/name or a/b/c")],
)  # fmt: skip
def test_folders_are_left_out_and_names_and_urls_are_not(said: str, told: str) -> None:
    assert bare(said) == told


def test_no_path_in_a_request_is_read(brolly: Running) -> None:
    picture = Path(__file__).parents[2] / "examples" / "pictures" / "truck.png"
    assert picture.is_file()

    def vector(text: str) -> list[float]:
        body = {"model": "mini-clip", "input": text}
        return httpx.post(f"{brolly.v1}/embeddings", json=body, timeout=60).json()["data"][0]["embedding"]  # type: ignore[no-any-return]

    absent = str(picture.with_name("fruck.png"))  # one letter of a text, or another picture that is not there
    a, b = vector(str(picture)), vector(absent)
    assert sum(x * y for x, y in zip(a, b, strict=True)) > 0.8, "it was read as the text that it is"
    for given in (str(picture), f"file://{picture}", "/etc/passwd"):
        for body in ({"input": given}, {"input": {"type": "image_url", "image_url": {"url": given}}}):
            asked = {"model": "mini-clip", "labels": ["a", "b"], **body}
            assert httpx.post(f"{brolly.v1}/classify", json=asked, timeout=60).status_code == 400
