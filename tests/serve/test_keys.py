"""API keys: read, compared, and what each may do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient  # noqa: E402

from brolly.errors import OptionError  # noqa: E402
from brolly.serve.app import create  # noqa: E402
from brolly.serve.keys import Keys, is_loopback, needs_admin, read_keys  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402
from tests.serve.small import client, small  # noqa: E402

USER, ADMIN = "a-key-of-a-user-0001", "a-key-of-an-admin-01"
KEYED = Settings(api_keys=((USER, "user"), (ADMIN, "admin")))


def test_a_file_of_keys_is_read_with_scopes_and_comments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROLLY_API_KEY", "of-the-environment")
    (tmp_path / "keys").write_text(f"# ours\n{USER}\n\n{ADMIN} admin  # of the operator\n")
    assert read_keys(tmp_path / "keys") == ((USER, "user"), (ADMIN, "admin"), ("of-the-environment", "admin"))


@pytest.mark.parametrize(
    ("text", "said"),
    [("short", "5 characters"), (f"{USER} root", "user, admin"), (f"{USER}\n{USER}", "twice"), ("# none", "no key")],
)
def test_a_file_that_would_surprise_is_refused_without_telling_keys(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(OptionError, match=said) as error:
        read_keys(tmp_path / "keys")
    assert USER not in str(error.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read"):
        read_keys(tmp_path / "none")


def test_keys_are_not_kept_as_they_are() -> None:
    keys = Keys(((USER, "user"), (ADMIN, "admin")))
    assert USER not in repr(vars(keys)) and USER.encode() not in repr(vars(keys)).encode()
    found = keys.caller(ADMIN)
    assert found is not None and (found.name, found.scope) == ("key-2", "admin")
    assert keys.caller(USER[:-1]) is None and keys.caller("") is None


def test_every_known_key_is_compared_whatever_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import hmac

    seen: list[int] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: seen.append(1) or compare(a, b))
    keys = Keys((f"key-number-{n:06}", "user") for n in range(5))
    for asked in ("key-number-000000", "none"):
        seen.clear()
        keys.caller(asked)
        assert len(seen) == 5


@pytest.mark.parametrize("header", [{"authorization": f"Bearer {USER}"}, {"x-api-key": USER}])
def test_a_key_is_taken_from_either_header(header: dict[str, str]) -> None:
    reply = client(KEYED).post("/v1/echo", json={"model": "m"}, headers=header)
    assert reply.json() == {"got": "m", "user": "key-1"}


def test_a_dummy_in_one_header_does_not_hide_the_key_in_the_other() -> None:
    both = {"authorization": "Bearer none", "x-api-key": USER}
    assert client(KEYED).post("/v1/echo", json={"model": "m"}, headers=both).status_code == 200


def test_a_prefix_opens_nothing() -> None:
    under = TestClient(small(KEYED), base_url="http://localhost", root_path="/ai", client=("127.0.0.1", 1))
    assert under.get("/ai/health").status_code == 200
    assert under.get("/ai/metrics", headers={"x-api-key": USER}).status_code == 403
    assert under.get("/ai/metrics", headers={"x-api-key": ADMIN}).status_code == 200


@pytest.mark.parametrize(
    "header", [{}, {"x-api-key": ""}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {USER}"}]
)
def test_without_a_known_key_it_is_401(header: dict[str, str]) -> None:
    reply = client(KEYED).post("/v1/echo", json={"model": "m"}, headers=header)
    assert reply.status_code == 401 and reply.headers["www-authenticate"] == "Bearer"
    assert reply.json()["error"]["code"] == "invalid_api_key"


def test_a_key_is_asked_for_before_the_body_is_read() -> None:
    reply = client(KEYED).post("/v1/echo", content=b"{" * 1000, headers={"content-type": "application/json"})
    assert reply.status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/metrics"), ("POST", "/v1/brolly/load"), ("POST", "/api/pull"), ("DELETE", "/v1/models/org/name")],
)
def test_what_changes_the_models_needs_an_admin(method: str, path: str) -> None:
    caller = client(KEYED)
    assert caller.request(method, path, headers={"x-api-key": USER}).status_code == 403
    assert caller.request(method, path, headers={"x-api-key": ADMIN}).status_code == 200
    assert caller.request(method, path).status_code == 401


def test_metrics_can_be_open_to_all() -> None:
    settings = Settings(api_keys=KEYED.api_keys, open_metrics=True)
    assert client(settings).get("/metrics").status_code == 200
    assert client(settings).post("/api/pull").status_code == 401


def test_without_keys_only_this_machine_is_an_admin() -> None:
    settings = Settings(host="0.0.0.0")
    assert client(settings, "192.0.2.7").post("/api/pull").status_code == 403
    assert client(settings, "192.0.2.7").post("/v1/echo", json={"model": "m"}).status_code == 200
    assert client(settings, "127.0.0.1").post("/api/pull").status_code == 200


def test_health_is_told_to_everybody() -> None:
    assert client(KEYED).get("/health").status_code == 200


def test_the_pages_own_files_are_open_and_its_calls_are_not() -> None:
    app = create(Settings(models=("mini-llm",), api_keys=KEYED.api_keys))
    page = TestClient(app, base_url="http://localhost")
    assert page.get("/").status_code == 200
    files = set(re.findall(r'(?:src|href)="(/?page/[^"]+)"', page.get("/").text))
    assert files and {page.get("/" + f.lstrip("/")).status_code for f in files} == {200}
    assert page.get("/v1/models").status_code == 401


def test_every_route_that_loads_unloads_pulls_or_deletes_models_is_an_admins() -> None:
    paths = create(Settings(models=("mini-llm",))).openapi()["paths"]
    words = ("load", "unload", "pull", "delete", "create", "copy", "push")
    found = [(m.upper(), p) for p, ways in paths.items() for m in ways if p.rsplit("/", 1)[-1] in words]
    assert found
    assert [f for f in found if not needs_admin(*f)] == []


@pytest.mark.parametrize(
    ("host", "ours"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True), ("localhost", True),
     ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("localhost.evil.example", False), ("10.0.0.1", False),
     ("", False)],
)  # fmt: skip
def test_loopback_is_this_machine_alone(host: str, ours: bool) -> None:
    assert is_loopback(host) is ours


def test_a_key_owns_the_same_wherever_it_stands_in_the_file() -> None:
    one, other = "a" * 20, "b" * 20
    before, after = Keys([(one, "user"), (other, "user")]), Keys([(other, "user")])
    owners = {keys.caller(key).owner for keys, key in ((before, one), (before, other), (after, other))}  # type: ignore[union-attr]
    assert len(owners) == 2 and not any(one in owner or other in owner for owner in owners)
