"""What strangers tried against the server: each of these worked once, or is what they would try first."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi")

from brolly.serve.settings import Settings  # noqa: E402
from tests.serve.small import client  # noqa: E402

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
