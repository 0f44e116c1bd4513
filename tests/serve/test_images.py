"""What no family does yet: pictures, speech and moderation are routed and typed, and refused by the card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

openai = pytest.importorskip("openai")

ASKED: dict[str, Callable[[Any, str], Any]] = {
    "generate": lambda c, m: c.images.generate(model=m, prompt="a fox"),
    "edit": lambda c, m: c.images.edit(model=m, prompt="a fox", image=b"picture"),
    "edit several": lambda c, m: c.images.edit(model=m, prompt="a fox", image=[b"one", b"two"], mask=b"three"),
    "vary": lambda c, m: c.images.create_variation(model=m, image=b"picture"),
    "speak": lambda c, m: c.audio.speech.create(model=m, input="hello", voice="alloy"),
    "moderate": lambda c, m: c.moderations.create(model=m, input="hello"),
}


@pytest.mark.filterwarnings("ignore:deprecated")
@pytest.mark.parametrize("verb", ASKED)
def test_what_no_model_does_is_refused_by_its_card(openai_client: Any, verb: str) -> None:
    with pytest.raises(openai.BadRequestError, match="mini-clip can embed, classify; it cannot") as caught:
        ASKED[verb](openai_client, "mini-clip")
    assert caught.value.code == "model_not_supported"
    with pytest.raises(openai.NotFoundError) as missing:
        ASKED[verb](openai_client, "dall-e-3")
    assert missing.value.code == "model_not_found"


def test_without_a_model_the_reason_is_told_too(openai_client: Any) -> None:
    for ask in (lambda: openai_client.images.generate(prompt="a"), lambda: openai_client.moderations.create(input="a")):
        with pytest.raises(openai.BadRequestError, match="no model was named") as caught:
            ask()
        assert caught.value.code == "model_not_supported"


def test_a_form_without_its_picture_is_told_which_field_is_missing(openai_client: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="image"):
        openai_client.images.edit(model="mini-clip", prompt="a", image=[])
