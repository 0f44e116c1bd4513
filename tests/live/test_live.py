"""The suite over real vendors, with real keys: `make test-live`. It costs some cents; who has no key is skipped."""

from __future__ import annotations

import os

import pytest

from brolly.conformance import examine, table, ways_of
from brolly.conformance.suite import FAILED
from brolly.remote import parse
from brolly.remote.keys import key_of

MODELS = {  # a small one each; BROLLY_LIVE_OPENAI=… names another
    "OPENAI": "openai:gpt-5-nano",
    "OPENAI_RESPONSES": "openai-responses:gpt-5-nano",
    "ANTHROPIC": "anthropic:claude-haiku-4-5",
    "GEMINI": "gemini:gemini-2.5-flash-lite",
}


@pytest.mark.skipif(not os.environ.get("BROLLY_LIVE"), reason="asks real vendors: make test-live")
@pytest.mark.parametrize("which", MODELS)
def test_a_real_vendor_keeps_every_promise(which: str) -> None:
    reference = os.environ.get(f"BROLLY_LIVE_{which}") or MODELS[which]
    if key_of(parse(reference)) is None:
        pytest.skip(f"there is no key for {reference}")
    (way,) = ways_of(reference, ("python",), max_cost=1.0)
    with way.open() as subject:
        outcomes = list(examine(subject))
    print(table({reference: outcomes}))
    assert not [one for one in outcomes if one.state == FAILED]
