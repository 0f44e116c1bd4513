"""Pictures by a model that runs elsewhere, and `brolly draw`."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from brolly.cli import main
from brolly.errors import BadAnswer, Filtered, MediaError, OptionError, UnsupportedTask
from brolly.remote import Remote
from brolly.remote.dialects.openai import images
from brolly.remote.target import parse
from brolly.verbs import Drawing, DrawOptions, Picture, Speech
from tests.remote import more
from tests.remote.fakes import KEY
from tests.remote.fakes.gemini import FakeGemini
from tests.remote.fakes.openai import FakeOpenAI
from tests.remote.more import alike, ours, theirs

fake = more.fake  # a fixture

MODEL = "gpt-image-2"


def picture(colour: str = "red", kind: str = "PNG") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(made, kind)
    return made.getvalue()


DRAWN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"n": 3, "size": "96x64", "quality": "low", "background": "opaque"},) * 2,
    ({"format": "webp", "compression": 40}, {"output_format": "webp", "output_compression": 40}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "said"), DRAWN)
def test_we_send_what_the_package_sends_and_read_the_same_pictures(
    fake: FakeOpenAI, options: dict[str, Any], said: dict[str, Any]
) -> None:
    theirs_said = theirs(fake).images.generate(model=MODEL, prompt="a red kite", **said)
    found = ours(MODEL).draw("a red kite", **options)
    alike(fake.requests[-2], fake.requests[-1])
    assert [base64.b64decode(row.b64_json) for row in theirs_said.data] == [one.data for one in found.pictures]
    assert len(found.pictures) == options.get("n", 1)
    assert all(one.format == options.get("format", "png") for one in found.pictures)
    assert found.usage is not None and found.usage.completion_tokens == theirs_said.usage.output_tokens
    assert found.usage.prompt_tokens == theirs_said.usage.input_tokens


@pytest.mark.parametrize("n", [1, 2])
def test_pictures_to_change_go_as_the_package_sends_them(fake: FakeOpenAI, n: int) -> None:
    given = [picture(colour) for colour in ("red", "blue")[:n]]
    files = [(f"{at}.png", data, "image/png") for at, data in enumerate(given)]
    said = theirs(fake).images.edit(
        model=MODEL, prompt="at night", image=files if n > 1 else files[0], size="64x64", n=2,
    )  # fmt: skip
    found = ours(MODEL).draw("at night", given, size="64x64", n=2)
    alike(fake.requests[-2], fake.requests[-1])
    assert [base64.b64decode(row.b64_json) for row in said.data] == [one.data for one in found.pictures]
    assert found.usage is not None and found.usage.prompt_tokens == 2 + 100 * n


def test_pictures_are_of_paths_bytes_and_pillow(fake: FakeOpenAI, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture("green", "JPEG"))
    ours(MODEL).draw("mix", [tmp_path / "a.jpg", picture(), Image.new("RGB", (4, 4))])
    sent = [part for part in fake.requests[-1].parts if part.name == "image[]"]
    assert [part.type for part in sent] == ["image/jpeg", "image/png", "image/png"]
    for bad in (b"no picture", b"%PDF-1.4"):
        with pytest.raises(MediaError, match="expected PNG, JPEG or WebP"):
            ours(MODEL).draw("mix", [bad])
    with pytest.raises(MediaError, match="16 at most"):
        ours(MODEL).draw("mix", [picture()] * 17)


def test_others_are_asked_for_base64_where_openai_refuses_to_be() -> None:
    call = images.draw("a", [], DrawOptions(), parse("http://127.0.0.1:1/v1#flux"))
    assert call.body is not None and call.body["response_format"] == "b64_json" and not call.safe
    call = images.draw("a", [], DrawOptions(), parse("openai:gpt-image-2"))
    assert call.body is not None and "response_format" not in call.body


def test_a_vendor_has_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    target = parse("xai:grok-imagine-image")
    call = images.draw("a", [], DrawOptions(size="16:9", n=2), target)
    assert call.body == {
        "model": "grok-imagine-image", "prompt": "a", "n": 2, "aspect_ratio": "16:9", "response_format": "b64_json",
    }  # fmt: skip
    with pytest.raises(UnsupportedTask, match="from texts alone"):
        images.draw("a", [picture()], DrawOptions(), target)
    with pytest.raises(OptionError, match="has no background"):
        Remote(target).draw("a", background="opaque")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://me.example.test")
    call = images.draw("a", [], DrawOptions(), parse("azure:drawing"))
    assert call.body == {"model": "drawing", "prompt": "a"}


@pytest.mark.parametrize(
    "row", [None, {}, {"url": "https://example.test/a.png"}, {"b64_json": 7}, {"b64_json": "!"}, {"b64_json": "AAAA"}]
)
def test_what_is_no_picture_is_a_bad_answer(row: Any) -> None:
    with pytest.raises(BadAnswer):
        images.drawn({"data": [row]})
    with pytest.raises(BadAnswer):
        images.drawn({"data": []})


def test_a_changed_prompt_is_told() -> None:
    row = {"b64_json": base64.b64encode(picture("blue", "WEBP")).decode(), "revised_prompt": "a blue kite"}
    (one,) = images.drawn({"data": [row]}).pictures
    assert (one.format, one.prompt) == ("webp", "a blue kite")


def test_a_seed_is_left_out_with_a_warning_and_refused_if_strict(fake: FakeOpenAI) -> None:
    with pytest.warns(UserWarning, match="has no seed"):
        ours(MODEL).draw("a", seed=7)
    assert "seed" not in fake.requests[-1].json
    with pytest.raises(OptionError, match="has no seed"):
        ours(MODEL, strict=True).draw("a", seed=7)
    with pytest.raises(Filtered):
        ours(MODEL).draw("forbidden")


def test_a_notebook_sees_the_picture_and_a_terminal_no_bytes() -> None:
    picture = Picture(b"\x89PNG-bytes", "png")
    assert repr(Drawing((picture,))) == "Drawing(pictures=(Picture(format='png', prompt=None),), usage=None)"
    assert picture._repr_mimebundle_(include=None) == {"image/png": b"\x89PNG-bytes"}
    assert repr(Speech(b"ID3", "mp3")) == "Speech(format='mp3')"


def test_brolly_draw_writes_pictures(fake: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "kite.webp"
    assert main(["draw", f"openai:{MODEL}", "a red kite", "-o", str(out), "-n", "2", "--size", "64x64"]) == 0
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["kite-1.webp", "kite-2.webp"] and capsys.readouterr().out.count("kite-") == 2
    assert Image.open(tmp_path / "kite-1.webp").format == "WEBP"
    assert fake.requests[-1].json["output_format"] == "webp"
    again = tmp_path / "night"
    assert (
        main(["draw", f"openai:{MODEL}", "at night", "-a", str(tmp_path / "kite-1.webp"), "-o", str(again), "--json"])
        == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert said["pictures"][0]["path"].endswith("night.png") and (tmp_path / "night.png").is_file()
    assert said["usage"]["completion_tokens"] == 200 and fake.requests[-1].path.endswith("/images/edits")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["draw", "openai:gpt-image-2", "a"], "no file is named"),
        (["draw", "openai:gpt-image-2", "a", "-o", "a.gif"], "ends in .gif"),
        (["draw", "openai:gpt-image-2", "a", "-o", "no/such/folder/a.png"], "is no folder"),
        (["draw", "openai:gpt-image-2", "a", "-o", "a.png", "--n", "11"], "n is 11"),
        (["draw", "openai:whisper-1", "a", "-o", "a.png"], "it cannot draw"),
        (["draw", "mini-llm", "a", "-o", "a.png"], "it cannot draw"),
        (["speak", "mini-llm", "a", "-o", "a.mp3"], "it cannot speak"),
        (["draw", "anthropic:claude-opus-5-5", "a", "-o", "a.png"], "draw"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_sent(
    fake: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], why: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert why in capsys.readouterr().err and not fake.requests and not list(tmp_path.iterdir())


def test_who_draws_one_at_a_time_is_asked_several_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeGemini() as server:
        monkeypatch.setenv("GEMINI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("GEMINI_API_KEY", KEY)
        model = "gemini:gemini-2.5-flash-image"
        found = Remote(model).draw("a red kite", n=3)
        assert len(found.pictures) == 3 == len(server.requests) and found.usage is not None
        assert found.usage.prompt_tokens % 3 == 0 < found.usage.prompt_tokens
        out = tmp_path / "kite.webp"
        assert main(["draw", model, "a red kite", "-o", str(out), "-n", "2", "-v"]) == 0
        said = capsys.readouterr()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kite-1.png", "kite-2.png"]
        assert "it came as png" in said.err and KEY not in said.err + said.out
