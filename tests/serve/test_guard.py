"""What a request must be before a route sees it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("fastapi")

from brolly.serve.settings import Settings  # noqa: E402
from tests.serve.small import client, small  # noqa: E402

JSON = {"content-type": "application/json"}


def code(reply: Any) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


def test_a_request_gets_an_id_or_keeps_its_own_if_it_is_harmless() -> None:
    caller = client()
    assert caller.get("/health", headers={"x-request-id": "run-7:a.b_c"}).headers["x-request-id"] == "run-7:a.b_c"
    for bad in ("a b", "x" * 65, "<script>", "ü"):
        given = caller.get("/health", headers={"x-request-id": bad.encode()}).headers["x-request-id"]
        assert given.startswith("req_") and len(given) == 28
    reply = caller.post("/v1/messages", json={"model": "m"})
    assert reply.headers["request-id"] == reply.headers["x-request-id"]


def test_answers_forbid_guessing_their_type() -> None:
    assert client().get("/health").headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1", "[::1]:8000", "brolly", "my.names.example", "192.168.1.5"]
)
def test_names_of_this_machine_are_taken_on_loopback(host: str) -> None:
    settings = Settings(hosts=("my.names.example",))
    assert client(settings).get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil.example", "bücher.example"]
)
def test_a_name_pointed_at_this_machine_is_refused(host: str) -> None:
    assert code(client().get("/health", headers={"host": host.encode()})) == (403, "unknown_host")


def test_any_name_is_taken_where_a_key_is_asked_for_or_the_network_is_served() -> None:
    keyed = Settings(api_keys=(("a-key-of-a-user-0001", "user"),))
    assert client(keyed).get("/health", headers={"host": "llm.example"}).status_code == 200
    wide = client(Settings(host="0.0.0.0"), "192.0.2.7", at="192.0.2.1")
    assert wide.get("/health", headers={"host": "llm.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:9999"},
     {"sec-fetch-site": "cross-site"}],
)  # fmt: skip
def test_other_sites_pages_change_nothing(headers: dict[str, str]) -> None:
    assert code(client().post("/v1/echo", json={"model": "m"}, headers=headers)) == (403, "origin_not_allowed")
    assert client().get("/health", headers=headers).status_code == 200


def test_the_servers_own_page_and_allowed_origins_may() -> None:
    own = {"origin": "http://localhost"}
    assert client().post("/v1/echo", json={"model": "m"}, headers=own).status_code == 200
    settings = Settings(cors=("https://good.example",))
    good, evil = {"origin": "https://good.example"}, {"origin": "https://evil.example"}
    reply = client(settings).post("/v1/echo", json={"model": "m"}, headers=good)
    assert reply.status_code == 200 and reply.headers["access-control-allow-origin"] == "https://good.example"
    assert client(settings).post("/v1/echo", json={"model": "m"}, headers=evil).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"host": "["}, {"host": "[::1"}, {"origin": "http://["}, {"host": "a:b:c"}, {"origin": ""},
     {"content-length": "²"}, {"content-length": "9" * 5000}, {"content-length": "-1"}, {"content-type": ";;;"},
     {"traceparent": "²"}, {"authorization": "Bearer"}, {"x-api-key": "ü" * 99}],
    ids=str,
)  # fmt: skip
def test_broken_headers_are_never_a_failure_of_ours(headers: dict[str, str]) -> None:
    for settings in (Settings(), Settings(api_keys=(("a-key-of-a-user-0001", "user"),))):
        sent = {name: value.encode("latin-1") for name, value in {**JSON, **headers}.items()}
        assert client(settings).post("/v1/echo", content=b'{"model":"m"}', headers=sent).status_code < 500


def test_cors_is_off_unless_asked_for() -> None:
    asks = {"origin": "https://good.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in client().options("/v1/echo", headers=asks).headers
    keyed = Settings(api_keys=(("a-key-of-a-user-0001", "user"),), cors=("https://good.example",))
    reply = client(keyed).options("/v1/echo", headers=asks)  # browsers ask without a key
    assert reply.status_code == 200 and reply.headers["access-control-allow-origin"] == "https://good.example"
    refused = client(keyed).post("/v1/echo", json={"model": "m"}, headers={"origin": "https://good.example"})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "https://good.example"


def test_a_body_that_is_too_large_is_413_by_its_length_or_while_it_comes() -> None:
    caller = client(Settings(body_bytes=1000))
    large = json.dumps({"model": "m" * 1000}).encode()
    assert code(caller.post("/v1/echo", content=large, headers=JSON)) == (413, "request_too_large")
    reply = caller.post("/v1/echo", content=(large[i : i + 100] for i in range(0, len(large), 100)), headers=JSON)
    assert code(reply) == (413, "request_too_large") and reply.headers["connection"] == "close"


def test_uploads_have_a_limit_of_their_own() -> None:
    caller = client(Settings(body_bytes=1000, upload_bytes=5000))
    assert caller.post("/v1/upload", files={"file": b"x" * 4000}).json() == {"bytes": 4000}
    assert code(caller.post("/v1/upload", files={"file": b"x" * 6000})) == (413, "request_too_large")
    parts = [b"--b\r\ncontent-disposition: form-data; name=f; filename=f\r\n\r\n", b"x" * 6000, b"\r\n--b--\r\n"]
    reply = caller.post("/v1/upload", content=iter(parts), headers={"content-type": "multipart/form-data; boundary=b"})
    assert code(reply) == (413, "request_too_large")


def test_a_body_that_does_not_arrive_is_408() -> None:
    app, sent = small(Settings(body_seconds=0.05)), []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/echo", "headers": [(b"content-length", b"10")], "state": {},
        "query_string": b"", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2), "scheme": "http",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]


def test_an_answer_that_does_not_come_is_504_and_its_work_is_cancelled() -> None:
    reply = client(Settings(request_seconds=0.05)).post("/v1/stream", json={"tokens": 1, "seconds": 0})
    assert reply.status_code == 200
    app, cancelled = small(Settings(request_seconds=0.05)), []

    @app.post("/v1/slow")
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.append(1)

    from fastapi.testclient import TestClient

    reply = TestClient(app, base_url="http://localhost").post("/v1/slow")
    assert code(reply) == (504, "timeout") and cancelled == [1]


def test_a_stream_may_take_longer_than_the_limit_while_it_says_something() -> None:
    reply = client(Settings(request_seconds=0.2)).post("/v1/stream", json={"tokens": 12, "seconds": 0.04})
    assert reply.text.endswith("[DONE]\n\n")


DEEP = b'{"model":' + b"[" * 5000 + b"]" * 5000 + b"}"


@pytest.mark.parametrize(
    "body",
    [DEEP, b'{"model":' + b'{"a":' * 200 + b"1" + b"}" * 200 + b"}", b'{"model":"m","n":' + b"9" * 5000 + b"}",
     b'{"model":"m","n":18446744073709551616}', b'{"model":"m","temperature":1e999}',
     b'{"model":"m","temperature":NaN}', b'{"model":"m","model":"n"}',
     b'{"model":"m","temperature":-Infinity}', b'{"model":"\\ud800"}', b'{"model":"\xff"}',
     b'{"model":"m"', b"", b"[]", b"null", b"\x00", b'{"model":"m"}{}', b"\xef\xbb\xbf{}", b"{" * 100_000],
    ids=lambda body: repr(body[:24]),
)  # fmt: skip
def test_json_that_would_hurt_is_400(body: bytes) -> None:
    for path in ("/v1/echo", "/v1/messages", "/api/chat"):
        assert client().post(path, content=body, headers=JSON).status_code == 400


def test_json_that_only_looks_dangerous_is_taken() -> None:
    text = "\\ud83d\\ude00 " + "3." + "1" * 400 + " [[[" * 100
    body = f'{{"model":"{text}","messages":[{{"content":[[1,-9223372036854775808,18446744073709551615]]}}]}}'.encode()
    assert client().post("/v1/echo", content=body, headers=JSON).status_code == 200


def test_curl_without_a_content_type_is_understood_on_ollamas_paths_alone() -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client().post("/api/chat", content=b'{"model":"m"}', headers=form).json()["got"] == "m"
    assert client().post("/v1/echo", content=b'{"model":"m"}', headers=form).status_code == 400
    page = {**form, "origin": "http://localhost"}
    assert client().post("/api/chat", content=b'{"model":"m"}', headers=page).status_code == 400


def test_a_compressed_body_is_refused() -> None:
    reply = client().post("/v1/echo", content=b"\x1f\x8b", headers={**JSON, "content-encoding": "gzip"})
    assert reply.status_code == 415
