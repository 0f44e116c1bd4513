"""Models that run elsewhere, as one server has them: names, lists, other verbs, thoughts, budgets, numbers."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
pytest.importorskip("google.genai")

from brolly.errors import NotFound, OptionError  # noqa: E402
from brolly.serve.names import served  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402
from tests.remote.fakes import STALL, Reply  # noqa: E402
from tests.serve.speakers import PICTURE  # noqa: E402
from tests.serve.vendors import CLIENT, KEYS, World, world_of  # noqa: E402

CLAUDE, HAIKU = "anthropic:claude-opus-4-6", "anthropic:claude-haiku-4-5"
MODELS = (
    "mini-llm", "openai:gpt-4.1", "openai-responses:gpt-5.6-sol", CLAUDE, HAIKU, "gemini:gemini-2.5-flash",
    "openai:text-embedding-3-small", "openai:whisper-1", "openai:gpt-image-2", "openai:gpt-4o-mini-tts",
    "gemini:gemini-embedding-001", "gemini:gemini-3-pro", "OPENAI#gpt-5-chat",
)  # fmt: skip
HELLO = [{"role": "user", "content": "Hello there."}]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    alias = {"gpt-4o": CLAUDE, "small": "openai:gpt-4.1"}
    with world_of(MODELS, tmp_path_factory.mktemp("store"), alias=alias) as found:
        yield found


@pytest.fixture(scope="module")
def chats(world: World) -> Any:
    return openai.OpenAI(base_url=world.running.v1, api_key=CLIENT, max_retries=0)


@pytest.fixture(scope="module")
def claude(world: World) -> Any:
    return anthropic.Anthropic(base_url=world.running.url, api_key=CLIENT, max_retries=0)


def get(world: World, path: str) -> Any:
    answer = httpx.get(f"{world.running.url}{path}", headers=world.headers)
    assert answer.status_code == 200, answer.text
    assert not any(key in answer.text for key in KEYS)
    return answer


def post(world: World, path: str, body: Any) -> httpx.Response:
    answer = httpx.post(f"{world.running.url}{path}", headers=world.headers, json=body, timeout=30)
    assert not any(key in answer.text for key in KEYS)
    return answer


def sent(world: World, model: str) -> Any:
    return world.vendor(model).requests[-1].json


# names and lists


def test_models_are_called_by_their_reference_their_own_name_and_aliases(world: World, chats: Any) -> None:
    for name, model in (
        ("openai:gpt-4.1", "gpt-4.1"), ("gpt-4.1", "gpt-4.1"), ("GPT-4.1", "gpt-4.1"), ("small", "gpt-4.1"),
        ("openai:gpt-4.1:latest", "gpt-4.1"),
    ):  # fmt: skip
        answer = chats.chat.completions.create(model=name, messages=HELLO)
        assert answer.choices[0].message.content == "You said: Hello there." and answer.model == name
        assert sent(world, "openai:x")["model"] == model
    assert "claude" in chats.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO).headers[
        "x-brolly-provenance"
    ]  # fmt: skip


def test_a_name_that_is_not_served_names_those_that_are() -> None:
    settings = Settings(models=("openai:gpt-4.1", "https://user.example/v1#m", "https://other.example/v1#m"))
    found, notes = served(settings)
    assert [entry.name for entry in found] == ["openai:gpt-4.1", "m", "other.example/m"] and len(notes) == 1
    from brolly.serve.names import find

    assert find(found, "https://user.example/v1#m").name == "m"
    with pytest.raises(NotFound, match=r"did you mean openai:gpt-4.1"):
        find(found, "openai:gpt-4.2")
    with pytest.raises(OptionError, match="runs elsewhere and takes no adapter"):
        served(Settings(models=("openai:gpt-4.1",), adapters={"openai:gpt-4.1:mine": str(_lora())}))


def _lora() -> Path:
    import tempfile

    folder = Path(tempfile.mkdtemp())
    (folder / "adapter_config.json").write_text("{}")
    return folder


def test_lists_tell_whose_a_model_is_and_what_it_can(world: World) -> None:
    rows = {row["id"]: row for row in get(world, "/v1/models").json()["data"]}
    row = rows[CLAUDE]
    assert row["owned_by"] == "Anthropic" and row["max_model_len"] == 1_000_000
    about = row["brolly"]
    assert about["remote"] and about["verbs"] == ["chat"] and about["aliases"] == ["gpt-4o"]
    assert "image" in about["modalities"]["in"] and about["host"].startswith("127.0.0.1:")
    assert rows["openai:whisper-1"]["brolly"]["verbs"] == ["transcribe"] and not rows["mini-llm"]["brolly"].get(
        "remote"
    )
    assert rows["openai:gpt-image-2"]["brolly"]["modalities"]["out"] == ["image"]
    assert "/v1" not in json.dumps(rows["gpt-5-chat"])
    tags = {row["name"] for row in get(world, "/api/tags").json()["models"]}
    assert {"openai:gpt-4.1", "gpt-4o"} <= tags
    shown = post(world, "/api/show", {"model": CLAUDE}).json()
    assert shown["capabilities"] == ["completion", "tools", "vision", "thinking"]
    cards = {row["name"]: row for row in get(world, "/v1/brolly/models").json()["models"]}
    assert cards[CLAUDE]["card"] and cards[CLAUDE]["error"] is None
    page = httpx.get(f"{world.running.v1}/models", headers={**world.headers, "anthropic-version": "2023-06-01"}).json()
    assert any(row["id"] == CLAUDE and row["max_input_tokens"] == 1_000_000 for row in page["data"])


def test_what_anthropics_clients_read_of_models_is_what_these_can_write(claude: Any) -> None:
    told = claude.models.retrieve(HAIKU)
    assert (told.max_input_tokens, told.max_tokens) == (200_000, 64_000)


def test_they_are_always_there(world: World) -> None:
    held = {row["name"]: row for row in get(world, "/v1/brolly/ps").json()["models"]}
    row = held[CLAUDE]
    assert (row["state"], row["bytes"], row["dtype"], row["until"]) == ("elsewhere", 0, None, None)
    for what in ("load", "unload"):
        row = post(world, f"/v1/brolly/{what}", {"model": CLAUDE}).json()
        assert row["state"] == "elsewhere" and row["device"].startswith("127.0.0.1:")
    assert post(world, "/api/generate", {"model": CLAUDE, "keep_alive": 0}).json()["done"]
    assert (
        post(world, "/api/generate", {"model": CLAUDE, "prompt": "Hi", "stream": False}).json()["response"]
        == "You said: Hi"
    )
    assert not get(world, "/api/ps").json()["models"]


def test_what_needs_tokens_is_refused(world: World) -> None:
    for path, more in (
        ("/v1/completions", {"prompt": "a"}), ("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]}),
    ):  # fmt: skip
        answer = post(world, path, {"model": CLAUDE, **more})
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "model_not_supported", answer.text
    for body in ({"raw": True}, {"suffix": "b"}, {"context": [1]}):
        assert post(world, "/api/generate", {"model": CLAUDE, "prompt": "a", **body}).status_code == 400
    messages = [*HELLO, {"role": "assistant", "content": "Well"}]
    for body in ({"continue_final_message": True}, {"add_generation_prompt": False}):
        answer = post(world, "/v1/chat/completions", {"model": "small", "messages": messages, **body})
        assert answer.status_code == 400 and "runs elsewhere" in answer.text
    answer = post(world, "/v1/chat/completions", {"model": "small", "messages": HELLO, "top_k": 3})
    assert answer.status_code == 400 and "openai:gpt-4.1 has no top_k" in answer.text
    assert post(world, "/v1/embeddings", {"model": "openai:text-embedding-3-small", "input": [1, 2]}).status_code == 400
    assert post(world, "/v1/fine_tuning/jobs", {"model": CLAUDE, "training_file": "file-x"}).status_code == 400


def test_models_here_read_text_alone_as_before(world: World) -> None:
    url = {"url": f"data:image/png;base64,{PICTURE}"}
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]
    answer = post(world, "/v1/chat/completions", {"model": "mini-llm", "messages": messages})
    assert answer.json()["error"]["code"] == "unsupported_content"
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    messages = [{"role": "user", "content": [sound]}]
    answer = post(world, "/v1/chat/completions", {"model": "openai:gpt-4.1", "messages": messages})
    assert answer.json()["error"]["code"] == "unsupported_content" and "reads text and image and pdf" in answer.text


# other verbs


def test_vectors(world: World, chats: Any) -> None:
    for model in ("openai:text-embedding-3-small", "gemini:gemini-embedding-001"):
        found = chats.embeddings.create(model=model, input=["a b", "c"])
        assert [len(row.embedding) for row in found.data] == [8, 8] and found.usage.prompt_tokens == 3
        one = post(world, "/api/embed", {"model": model, "input": "a b"}).json()
        assert one["embeddings"][0] == pytest.approx(found.data[0].embedding, abs=1e-6)
    short = chats.embeddings.create(model="openai:text-embedding-3-small", input="a", dimensions=3)
    assert len(short.data[0].embedding) == 3
    with pytest.raises(openai.BadRequestError, match="cannot embed"):
        chats.embeddings.create(model=CLAUDE, input="a")


def test_pictures_are_drawn_and_changed(world: World, chats: Any) -> None:
    from PIL import Image

    made = chats.images.generate(model="openai:gpt-image-2", prompt="A fox", n=2, size="64x64", output_format="webp")
    pictures = [Image.open(io.BytesIO(base64.b64decode(one.b64_json))) for one in made.data]
    assert [(one.size, one.format) for one in pictures] == [((64, 64), "WEBP")] * 2
    changed = chats.images.edit(
        model="openai:gpt-image-2", prompt="Blue", image=("a.png", base64.b64decode(PICTURE), "image/png")
    )
    assert base64.b64decode(changed.data[0].b64_json)[:4] == b"\x89PNG"
    answer = post(world, "/v1/images/generations", {"model": "openai:gpt-image-2", "prompt": "a", "seed": 3})
    assert answer.status_code == 200  # a hint that is left out
    counted = 'brolly_generation_tokens_total{model="openai:gpt-image-2"}'
    assert any(
        line.startswith(counted) and float(line.split()[-1]) > 0 for line in get(world, "/metrics").text.splitlines()
    )
    assert post(world, "/v1/images/generations", {"model": CLAUDE, "prompt": "a"}).status_code == 400


def test_sounds_are_written_down_and_texts_spoken(world: World, chats: Any) -> None:
    sound = ("talk.mp3", b"ID3\x04\x00\x00" + bytes(64), "audio/mpeg")
    text = "The quick brown fox. It jumps."
    assert chats.audio.transcriptions.create(model="openai:whisper-1", file=sound).text == text
    told = chats.audio.transcriptions.create(
        model="openai:whisper-1",
        file=sound,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert told.duration == 3.0 and len(told.segments) == 2 and told.words[0].word == "The"
    assert "00:00:01,500" in chats.audio.transcriptions.create(
        model="openai:whisper-1", file=sound, response_format="srt"
    )
    streamed = list(chats.audio.transcriptions.create(model="openai:whisper-1", file=sound, stream=True))
    assert streamed[-1].type == "transcript.text.done" and streamed[-1].text == text
    spoken = chats.audio.speech.create(
        model="openai:gpt-4o-mini-tts", voice="alloy", input="Hello", response_format="flac"
    )
    assert spoken.content.startswith(b"fLaC") and spoken.response.headers["content-type"] == "audio/flac"
    with pytest.raises(openai.BadRequestError, match="cannot speak"):
        chats.audio.speech.create(model=CLAUDE, voice="alloy", input="Hello")


# what Anthropic's clients and vendors tell each other


def test_thoughts_of_claude_go_through_with_their_own_signatures(world: World, claude: Any) -> None:
    tool = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    asked: dict[str, Any] = {
        "model": HAIKU, "max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 1500}, "tools": [tool],
    }  # fmt: skip
    question = {"role": "user", "content": "weather, redacted"}
    with claude.messages.stream(**asked, messages=[question]) as stream:
        answer = stream.get_final_message()
    whole = claude.messages.create(**asked, messages=[question])
    both = [[b.model_dump(exclude_none=True, exclude={"id"}) for b in one.content] for one in (answer, whole)]
    assert both[0] == both[1]  # but for the ids of calls, which another request has
    assert [b.type for b in answer.content] == ["thinking", "redacted_thinking", "tool_use"]
    assert answer.content[0].signature.startswith("sig_")
    assert sent(world, HAIKU)["thinking"]["budget_tokens"] == 1500
    blocks = [block.model_dump(exclude_none=True) for block in answer.content]
    result = {"type": "tool_result", "tool_use_id": answer.content[2].id, "content": "rain", "is_error": True}
    again = [question, {"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]
    assert claude.messages.create(**asked, messages=again).content[-1].text == "The tool said Error: rain."
    turns = sent(world, HAIKU)["messages"]
    assert [block["type"] for block in turns[1]["content"]] == ["thinking", "redacted_thinking", "tool_use"]
    assert turns[1]["content"][:2] == blocks[:2] and turns[2]["content"][0]["is_error"] is True


def test_words_of_claude_reach_claude_as_they_are(world: World, claude: Any) -> None:
    mark = {"type": "ephemeral"}
    picture = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    message = {"role": "user", "content": [picture, document, {"type": "text", "text": "See.", "cache_control": mark}]}
    asked: dict[str, Any] = {
        "model": CLAUDE, "max_tokens": 2000, "messages": [message],
        "system": [{"type": "text", "text": "Be kind.", "cache_control": mark}],
        "thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "low"},
        "tools": [{"name": "t", "input_schema": {"type": "object"}, "cache_control": mark}],
    }  # fmt: skip
    first, second = claude.messages.create(**asked), claude.messages.create(**asked)
    assert first.content[-1].text == "I see 1 picture and 1 file."
    assert first.usage.cache_creation_input_tokens > 0 and second.usage.cache_read_input_tokens > 0
    assert first.usage.input_tokens == second.usage.input_tokens
    body = sent(world, CLAUDE)
    assert body["thinking"] == asked["thinking"] and body["output_config"]["effort"] == "low"
    assert [block["type"] for block in body["messages"][0]["content"]] == ["image", "document", "text"]
    assert body["messages"][0]["content"][2]["cache_control"] == body["tools"][0]["cache_control"] == mark
    assert body["system"][0]["cache_control"] == mark
    begun = claude.messages.create(
        model=HAIKU, max_tokens=50, messages=[*HELLO, {"role": "assistant", "content": "Well"}]
    )
    assert begun.content and sent(world, HAIKU)["messages"][-1]["content"] == "Well"
    with pytest.raises(anthropic.BadRequestError, match="runs elsewhere"):
        claude.messages.create(
            model="small", max_tokens=50, messages=[*HELLO, {"role": "assistant", "content": "Well"}]
        )


def test_thoughts_of_openai_are_kept_by_responses(world: World, chats: Any) -> None:
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
    asked: dict[str, Any] = {
        "model": "openai-responses:gpt-5.6-sol", "tools": [tool], "reasoning": {"effort": "low", "summary": "auto"},
    }  # fmt: skip
    first = chats.responses.create(**asked, input="weather?")
    call = next(item for item in first.output if item.type == "function_call")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = chats.responses.create(**asked, previous_response_id=first.id, input=[output])
    assert second.output_text == "The tool said rain."
    items = sent(world, "openai:x")["input"]
    assert [item.get("type") for item in items][1:] == ["reasoning", "function_call", "function_call_output"]
    assert items[1]["encrypted_content"] and not items[1]["encrypted_content"].startswith("brolly.")
    answer = chats.responses.create(model=CLAUDE, input="Hi", background=True)
    for _ in range(200):
        answer = chats.responses.retrieve(answer.id)
        if answer.status == "completed":
            break
    assert answer.output_text == "You said: Hi"


def test_thinking_is_turned_off(world: World, claude: Any) -> None:
    asked: dict[str, Any] = {"max_tokens": 50, "messages": HELLO, "thinking": {"type": "disabled"}}
    assert claude.messages.create(model="openai-responses:gpt-5.6-sol", **asked).content[-1].text
    assert sent(world, "openai:x")["reasoning"] == {"effort": "none"}
    assert claude.messages.create(model=HAIKU, **asked).content[-1].text
    assert claude.messages.create(model="mini-llm", **{**asked, "thinking": {"type": "enabled", "budget_tokens": 1024}})


# limits and numbers


def test_a_budget_over_all_models_is_kept(tmp_path: Path) -> None:
    prices = {"openai:gpt-4.1": "1000,1000", HAIKU: "1000,1000"}
    with world_of(("openai:gpt-4.1", HAIKU), tmp_path, max_cost=0.3, prices=prices) as world:
        body = {"messages": HELLO, "max_tokens": 100}
        assert post(world, "/v1/chat/completions", {"model": "openai:gpt-4.1", **body}).status_code == 200
        several = [post(world, "/v1/chat/completions", {"model": HAIKU, **body}) for _ in range(60)]
        last = several[-1]
        assert several[0].status_code == 200 and last.status_code == 402
        assert last.json()["error"]["code"] == "budget_spent"
        refused = post(world, "/v1/messages", {"model": HAIKU, **body})
        assert refused.status_code == 402 and refused.json()["error"]["type"] == "billing_error"
        text = get(world, "/metrics").text
        spent = [
            float(line.split()[-1]) for line in text.splitlines() if line.startswith("brolly_remote_dollars_total{")
        ]
        assert len(spent) == 2 and 0.1 < sum(spent) <= 0.3
    with pytest.raises(OptionError, match="is on this disk"):
        from brolly.serve.house import House

        House(Settings(models=("mini-llm",), prices={"mini-llm": "1,2"}))


def test_strict_refuses_what_is_otherwise_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    body = {"model": HAIKU, "messages": HELLO, "seed": 3, "max_tokens": 20}
    for strict in (False, True):
        with world_of((HAIKU,), tmp_path / str(strict), strict=strict) as world, caplog.at_level(logging.WARNING):
            several = [post(world, "/v1/chat/completions", body) for _ in range(2)]
            assert [answer.status_code for answer in several] == [400 if strict else 200] * 2
            assert not strict or "has no seed" in several[0].text
            verbose = [post(world, "/v1/chat/completions", {"model": HAIKU, "messages": HELLO, "verbosity": "low"})]
            asked = {"model": HAIKU, "input": "Hello.", "text": {"verbosity": "low"}}  # as Codex asks
            verbose.append(post(world, "/v1/responses", asked))
            assert [answer.status_code for answer in verbose] == [400 if strict else 200] * 2
    assert sum("is told no verbosity" in record.message for record in caplog.records) == 1
    assert sum("has no seed; it is asked all the same" in record.message for record in caplog.records) == 1


def test_what_happens_is_counted_by_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with world_of(("openai:gpt-4.1", HAIKU), tmp_path) as world:
        fake = world.vendor(HAIKU)
        fake.faults.append(lambda request: Reply(529, {"retry-after": "0"}, {"type": "error", "error": {}}))
        body = {"model": HAIKU, "messages": HELLO, "max_tokens": 20}
        assert post(world, "/v1/messages", body).status_code == 200
        assert post(world, "/v1/messages", {**body, "stream": True}).status_code == 200
        fake.faults.append(lambda request: Reply(401, {}, {"type": "error", "error": {"message": "no"}}))
        assert post(world, "/v1/messages", body).status_code == 502
        lines = [line for line in get(world, "/metrics").text.splitlines() if line and not line.startswith("#")]
        rows = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}
    of = f'{{model="{HAIKU}"}}'
    assert rows[f"brolly_prompt_tokens_total{of}"] == 4 and rows[f"brolly_generation_tokens_total{of}"] == 8
    assert rows[f"brolly_remote_retries_total{of}"] == 1 and rows[f"brolly_remote_first_byte_seconds_count{of}"] == 2
    assert rows[f'brolly_remote_errors_total{{kind="KeyRefused",model="{HAIKU}"}}'] == 1
    assert rows[f"brolly_remote_dollars_total{of}"] == pytest.approx((4 * 1 + 8 * 5) / 1e6)
    logged = [record for record in caplog.records if record.message == "request"]
    assert [record.account.model for record in logged][:2] == [HAIKU] * 2  # type: ignore[attr-defined]
    assert logged[0].account.completion_tokens == 4  # type: ignore[attr-defined]
    assert not any(key in record.getMessage() for record in caplog.records for key in KEYS)


@pytest.mark.parametrize("stream", [False, True])
def test_a_vendor_that_falls_silent_is_told_in_time(tmp_path: Path, stream: bool) -> None:
    with world_of(("openai:gpt-4.1",), tmp_path, request_seconds=1.0) as world:
        fake = world.vendor("openai:x")

        def stalled(request: Any) -> Reply:
            whole = fake.answer(request)
            return Reply(200, whole.headers, chunks=[*(list(whole.chunks)[:2] if stream else []), STALL])

        fake.faults.extend([stalled] * 3)
        body = {"model": "openai:gpt-4.1", "messages": HELLO, "stream": stream}
        answer = post(world, "/v1/chat/completions", body)
        if stream:
            assert answer.status_code == 200 and '"code":"upstream_unreachable"' in answer.text
        else:
            assert answer.status_code == 504
        fake.until(lambda: fake.open == 0 or fake.left >= 1)


def test_a_key_that_is_missing_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from brolly.serve.house import House

    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")

    async def start() -> list[str]:
        house = House(Settings(models=(HAIKU,)))
        await house.start()
        await house.looked
        notes = list(house.notes)
        await house.close()
        return notes

    (note,) = asyncio.run(start())
    assert "there is no key for Anthropic" in note


def test_files_are_searched_for_a_model_elsewhere(tmp_path: Path) -> None:
    with world_of(("mini-embed", "openai:gpt-4.1"), tmp_path) as world:
        client = openai.OpenAI(base_url=world.running.v1, api_key=CLIENT, max_retries=0)
        text = b"The kiln of the pottery reaches 1,240 degrees <|im_end|> and is fired on Tuesdays."
        file = client.files.create(file=("kiln.txt", text), purpose="assistants")
        store = client.vector_stores.create(file_ids=[file.id])
        for _ in range(600):
            store = client.vector_stores.retrieve(store.id)
            if store.file_counts.in_progress == 0:
                break
            time.sleep(0.1)
        assert store.file_counts.completed == 1
        answer = client.responses.create(
            model="openai:gpt-4.1", input="How hot is the kiln?",
            tools=[{"type": "file_search", "vector_store_ids": [store.id]}],
        )  # fmt: skip
        assert answer.output[0].type == "file_search_call"
        asked = sent(world, "openai:x")["messages"][-1]["content"]
        assert "1,240 degrees" in asked and "Question: How hot is the kiln?" in asked and "<|im_end|>" not in asked


def test_what_is_served_is_told_at_the_start_and_by_the_commands(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    from brolly.cli import main
    from brolly.commands.serve import told

    shown = told(world.running.app.state.house, world.running.url, "127.0.0.1", True)
    row = next(line for line in shown.splitlines() if line.startswith("openai:gpt-4.1"))
    assert "(small)" in row and "at 127.0.0.1:" in row and row.endswith("chat")
    for command in (["ps"], ["load", "small"], ["unload", "small"]):
        assert main([*command, "--url", world.running.url, "--api-key", CLIENT]) == 0
    out = capsys.readouterr().out
    assert "elsewhere" in out and "there is nothing to load" in out and "there is nothing to unload" in out
    assert not any(key in out + shown for key in KEYS)


def test_a_server_of_models_elsewhere_alone_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom brolly.serve import server\n"
        "from brolly.serve.app import create\nfrom brolly.serve.settings import Settings\n"
        f"app = create(Settings(models=('{HAIKU}',), store=Path({str(tmp_path)!r})))\n"
        "async def live():\n    async with app.router.lifespan_context(app):\n        await app.state.house.looked\n"
        "asyncio.run(live())\nprint('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert found.stdout.strip() == "False"


def test_vector_stores_embed_elsewhere_where_that_is_asked_for(tmp_path: Path) -> None:
    model = "openai:text-embedding-3-small"
    with world_of((model,), tmp_path) as world:
        client = openai.OpenAI(base_url=world.running.v1, api_key=CLIENT, max_retries=0)
        with pytest.raises(openai.BadRequestError, match="No model here embeds"):  # what costs is named, or not used
            client.vector_stores.create(name="a")
        file = client.files.create(file=("kiln.txt", b"The kiln reaches 1,240 degrees."), purpose="assistants")
        store = client.vector_stores.create(file_ids=[file.id], extra_body={"embedding_model": model})
        for _ in range(600):
            store = client.vector_stores.retrieve(store.id)
            if store.file_counts.in_progress == 0:
                break
            time.sleep(0.1)
        assert store.file_counts.completed == 1, client.vector_stores.files.list(store.id).data
        found = client.vector_stores.search(store.id, query="How hot is the kiln?")
        assert "1,240" in found.data[0].content[0].text


PDF, WAV = "data:application/pdf;base64,JVBERi0xLjQ=", "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="


def test_files_and_sounds_of_every_format_are_passed_on(world: World, chats: Any, claude: Any) -> None:
    gemini = "gemini:gemini-2.5-flash"
    parts: list[Any] = [
        {"type": "text", "text": "What is this?"},
        {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}},
        {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
    ]  # fmt: skip
    answer = chats.chat.completions.create(model=gemini, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "I see 1 sound and 1 file."
    file = {"type": "input_file", "file_data": PDF, "filename": "a.pdf"}
    items: list[Any] = [{"type": "input_text", "text": "See."}, file]
    for model in (gemini, "openai-responses:gpt-5.6-sol", HAIKU):
        answer = chats.responses.create(model=model, input=[{"role": "user", "content": items}])
        assert answer.output_text == "I see 1 file."
    texts = {"type": "text", "media_type": "text/plain", "data": "A note."}
    inner = {"type": "content", "content": [{"type": "text", "text": "Another."}]}
    documents: list[Any] = [{"type": "document", "source": texts}, {"type": "document", "source": inner}]
    message = claude.messages.create(model=gemini, max_tokens=500, messages=[{"role": "user", "content": documents}])
    assert message.content[0].text == "You said: A note.Another."


def test_marks_and_blocks_of_claude_do_no_harm_here(world: World) -> None:
    tool = {"name": "t", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}
    body: dict[str, Any] = {"max_tokens": 5, "messages": HELLO, "model": "mini-llm"}
    plain = {**tool, "cache_control": None}
    counts = [post(world, "/v1/messages/count_tokens", {**body, "tools": [one]}).json() for one in (tool, plain)]
    assert counts[0] == counts[1] and counts[0]["input_tokens"] > 0
    for content in (
        [5],
        [{"type": "text"}],
        [[]],
        [{"type": "document", "source": {"type": "content", "content": [1]}}],
    ):
        source = {"type": "content", "content": content}
        message = {"role": "user", "content": [{"type": "document", "source": source}]}
        assert post(world, "/v1/messages", {**body, "messages": [message]}).status_code == 400
    for row in (
        {"type": "image", "source": {"type": "url", "url": 5}},
        {"type": "image", "source": {"type": "base64"}},
    ):
        answer = post(world, "/v1/messages", {**body, "model": HAIKU, "messages": [{"role": "user", "content": [row]}]})
        assert answer.status_code == 400, answer.text


def test_pictures_in_results_of_tools_are_passed_on(world: World, claude: Any) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
    use = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "here"}, picture]}
    messages: list[Any] = [*HELLO, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    tools: list[Any] = [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]
    for model in (HAIKU, "openai-responses:gpt-5.6-sol", "openai:gpt-4.1", "gemini:gemini-3-pro"):
        with claude.messages.stream(model=model, max_tokens=500, messages=messages, tools=tools) as stream:
            answer = stream.get_final_message()
        assert answer.content[-1].text.startswith("The tool said here"), model
        assert PICTURE in json.dumps(sent(world, model))


def test_scores_and_order_of_models_elsewhere(world: World) -> None:
    body = {"model": CLAUDE, "text_1": "a", "text_2": ["b"]}
    assert post(world, "/v1/score", body).json()["error"]["code"] == "model_not_supported"
    found = post(
        world, "/v1/rerank", {"model": "gemini:gemini-embedding-001", "query": "a b", "documents": ["c", "a b"]}
    )
    assert found.status_code == 200 and found.json()["results"][0]["index"] in (0, 1)


def test_connections_to_vendors_are_kept(tmp_path: Path) -> None:
    models = ("openai:gpt-4.1", HAIKU, "gemini:gemini-2.5-flash")
    with world_of(models, tmp_path) as world, httpx.Client(base_url=world.running.url, headers=world.headers) as client:
        for model in models:
            for stream in (True, False) * 10:
                body = {"model": model, "messages": HELLO, "stream": stream}
                assert client.post("/v1/chat/completions", json=body).status_code == 200
            assert world.vendor(model).connections <= 3, model
            assert world.vendor(model).left == 0
