"""Our requests are those of google-genai's, and what it reads in an answer we read, too."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from google import genai
from google.genai import types
from google.oauth2.credentials import Credentials
from pydantic.alias_generators import to_camel

from brolly.remote.dialects.gemini import cloud as cloud_dialect
from brolly.remote.dialects.gemini import cloud_predict, content, embeddings, images, models
from brolly.remote.model import Remote
from brolly.remote.target import parse
from brolly.verbs import DrawOptions, EmbedOptions, gather
from tests.remote.fakes import KEY
from tests.remote.fakes.gemini import PICTURE, FakeGemini, FakeVertex
from tests.remote.fakes.server import Reply, Request

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Now", "parameters": WEATHER}}
DECLARED = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(name="get_weather", description="Now", parameters_json_schema=WEATHER)
    ]
)
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
SIGNED = base64.urlsafe_b64encode(b"signed").decode()
PDF = b"%PDF-1.4\n1 0 obj\n"
WAV = b"RIFF\x24\0\0\0WAVEfmt "


def user(*parts: Any) -> types.Content:
    return types.Content(role="user", parts=[types.Part(text=p) if isinstance(p, str) else p for p in parts])


def said(*content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(content) if len(content) > 1 else content[0]}]


def calling(mode: str, *names: str) -> types.ToolConfig:
    config = types.FunctionCallingConfig(mode=mode, allowed_function_names=list(names) or None)
    return types.ToolConfig(function_calling_config=config)


# name → model, our messages and options, the SDK's contents and config
CASES: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any], list[types.Content], dict[str, Any]]] = {
    "a question": ("gemini-2.5-flash", said("Hello, 你好"), {}, [user("Hello, 你好")], {}),
    "instructions, and a conversation": (
        "gemini-3-pro",
        [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "In French."},
            *said("Hello"),
            {"role": "assistant", "content": "Bonjour"},
            *said("And now?"),
        ],
        {},
        [user("Hello"), types.Content(role="model", parts=[types.Part(text="Bonjour")]), user("And now?")],
        {"system_instruction": types.Content(parts=[types.Part(text="Be brief."), types.Part(text="In French.")])},
    ),
    "sampling": (
        "gemini-2.5-flash",
        said("Hello"),
        dict(
            temperature=0.5,
            top_p=0.9,
            top_k=20,
            max_tokens=50,
            seed=7,
            stop=("\n\n", "END"),
            presence_penalty=0.5,
            frequency_penalty=-0.5,
        ),
        [user("Hello")],
        dict(
            temperature=0.5,
            top_p=0.9,
            top_k=20,
            max_output_tokens=50,
            seed=7,
            stop_sequences=["\n\n", "END"],
            presence_penalty=0.5,
            frequency_penalty=-0.5,
        ),
    ),
    "temperature 0": ("gemini-2.5-flash", said("Hello"), {"temperature": 0}, [user("Hello")], {"temperature": 0}),
    "log-probabilities": (
        "gemini-2.5-flash",
        said("Hello"),
        {"logprobs": 3},
        [user("Hello")],
        {"response_logprobs": True, "logprobs": 3},
    ),
    "a picture, a sound, a PDF": (
        "gemini-2.5-flash",
        said("What is it?", PICTURE, WAV, PDF),
        {},
        [
            user(
                "What is it?",
                types.Part.from_bytes(data=PICTURE, mime_type="image/png"),
                types.Part.from_bytes(data=WAV, mime_type="audio/wav"),
                types.Part.from_bytes(data=PDF, mime_type="application/pdf"),
            )
        ],
        {},
    ),
    "a picture at an address": (
        "gemini-2.5-flash",
        said("What?", {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg?size=2"}}),
        {},
        [user("What?", types.Part.from_uri(file_uri="https://example.com/a.jpg?size=2", mime_type="image/jpeg"))],
        {},
    ),
    "a schema": (
        "gemini-2.5-flash",
        said("Make one"),
        {"json_schema": json.dumps(SCHEMA)},
        [user("Make one")],
        {"response_mime_type": "application/json", "response_json_schema": SCHEMA},
    ),
    "any JSON": (
        "gemini-2.5-flash",
        said("Make one"),
        {"json_schema": "{}"},
        [user("Make one")],
        {"response_mime_type": "application/json"},
    ),
    "a choice": (
        "gemini-2.5-flash",
        said("Is it?"),
        {"choice": ("yes", "no")},
        [user("Is it?")],
        {"response_mime_type": "text/x.enum", "response_schema": {"type": "STRING", "enum": ["yes", "no"]}},
    ),
    "tools": (
        "gemini-2.5-flash",
        said("The weather?"),
        {"tools": [TOOL]},
        [user("The weather?")],
        {"tools": [DECLARED]},
    ),
    "a tool that it must call": (
        "gemini-2.5-flash",
        said("The weather?"),
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        [user("The weather?")],
        {"tools": [DECLARED], "tool_config": calling("ANY", "get_weather")},
    ),
    "any tool, and none": (
        "gemini-2.5-flash",
        said("The weather?"),
        {"tools": [TOOL], "tool_choice": "none"},
        [user("The weather?")],
        {"tools": [DECLARED], "tool_config": calling("NONE")},
    ),
    "what tools answered": (
        "gemini-3-pro",
        [
            *said("The weather?"),
            {
                "role": "assistant",
                "content": "I look.",
                "tool_calls": [
                    {
                        "id": "fc_1",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city":"A"}'},
                    },
                    {
                        "id": "fc_2",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": '{"city":"B"}'},
                    },
                ],
                "opaque": [
                    {"vendor": "gemini", "call": "fc_1", "own": True, "signature": SIGNED},
                    {"vendor": "gemini", "call": "fc_2", "own": True},
                    {"vendor": "anthropic", "type": "thinking", "signature": "other"},
                ],
            },
            {"role": "tool", "tool_call_id": "fc_1", "content": "rain"},
            {"role": "tool", "tool_call_id": "fc_2", "content": "no such city", "is_error": True},
        ],
        {"tools": [TOOL]},
        [
            user("The weather?"),
            types.Content(
                role="model",
                parts=[
                    types.Part(text="I look."),
                    types.Part(
                        function_call=types.FunctionCall(id="fc_1", name="get_weather", args={"city": "A"}),
                        thought_signature=b"signed",
                    ),
                    types.Part(function_call=types.FunctionCall(id="fc_2", name="get_weather", args={"city": "B"})),
                ],
            ),
            user(
                types.Part(
                    function_response=types.FunctionResponse(id="fc_1", name="get_weather", response={"output": "rain"})
                ),
                types.Part(
                    function_response=types.FunctionResponse(
                        id="fc_2", name="get_weather", response={"error": "no such city"}
                    )
                ),
            ),
        ],
        {"tools": [DECLARED]},
    ),
    "a call that another model made": (
        "gemini-3-pro",
        [
            *said("The weather?"),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"},
        ],
        {},
        [
            user("The weather?"),
            types.Content(
                role="model",
                parts=[
                    types.Part(
                        function_call=types.FunctionCall(name="get_weather", args={}),
                        thought_signature=base64.b64decode("skip_thought_signature_validator", altchars=b"-_"),
                    )
                ],
            ),
            user(types.Part(function_response=types.FunctionResponse(name="get_weather", response={"output": "rain"}))),
        ],
        {},
    ),
    "an effort in tokens": (
        "gemini-2.5-flash",
        said("Think"),
        {"effort": "2048", "thoughts": True},
        [user("Think")],
        {"thinking_config": types.ThinkingConfig(thinking_budget=2048, include_thoughts=True)},
    ),
    "no thinking": (
        "gemini-2.5-flash",
        said("Quick"),
        {"effort": "none"},
        [user("Quick")],
        {"thinking_config": types.ThinkingConfig(thinking_budget=0)},
    ),
    "an effort in words": (
        "gemini-3.1-pro-preview",
        said("Think"),
        {"effort": "low"},
        [user("Think")],
        {"thinking_config": types.ThinkingConfig(thinking_level="low")},
    ),
    "fields of the vendor's own": (
        "gemini-3-pro",
        said("Search"),
        {
            "temperature": 1.0,
            "tools": [TOOL],
            "extra": {
                "generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_LOW"},
                "tools": [{"googleSearch": {}}],
                "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
            },
        },
        [user("Search")],
        {
            "temperature": 1.0,
            "media_resolution": "MEDIA_RESOLUTION_LOW",
            "tools": [DECLARED, types.Tool(google_search=types.GoogleSearch())],
            "safety_settings": [types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
        },
    ),
}


@pytest.fixture(scope="module")
def fake() -> Any:
    with FakeGemini() as found:
        yield found


@pytest.fixture(scope="module")
def sdk(fake: FakeGemini) -> genai.Client:
    return genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=fake.url))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CASES)
def test_a_request_is_the_sdks(name: str, stream: bool, fake: FakeGemini, sdk: genai.Client) -> None:
    model, messages, options, contents, config = CASES[name]
    fake.signed.add(SIGNED)
    asked = {"model": model, "contents": contents, "config": types.GenerateContentConfig(**config)}
    theirs = list(sdk.models.generate_content_stream(**asked)) if stream else [sdk.models.generate_content(**asked)]
    assert theirs
    request = fake.requests[-1]
    remote = Remote(f"gemini:{model}")
    ask = remote.prepare_chat(messages, **options)
    ours = content.call(_as(ask, stream), remote.target)
    assert "/v1" + ours.path == request.path
    assert dict(ours.query) == {k: v for k, v in request.query.items()}
    assert same(json.loads(json.dumps(ours.body))) == same(request.json)


@pytest.fixture(scope="module")
def cloud() -> Any:
    with FakeVertex() as found:
        yield found


@pytest.fixture(scope="module")
def cloud_sdk(cloud: FakeVertex) -> genai.Client:
    return genai.Client(
        vertexai=True, project="my-project", location="europe-west4", credentials=Credentials(FakeVertex.token),
        http_options=types.HttpOptions(base_url=cloud.url),
    )  # fmt: skip


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")


def path_of(target: Any) -> str:
    return str(urlsplit(target.base).path)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", CASES)
def test_a_request_to_google_cloud_is_the_sdks(
    name: str, stream: bool, cloud: FakeVertex, cloud_sdk: genai.Client, place: None
) -> None:
    model, messages, options, contents, config = CASES[name]
    cloud.signed.add(SIGNED)
    asked = {"model": model, "contents": contents, "config": types.GenerateContentConfig(**config)}
    if stream:
        assert list(cloud_sdk.models.generate_content_stream(**asked))
    else:
        assert cloud_sdk.models.generate_content(**asked)
    request = cloud.requests[-1]
    remote = Remote(f"vertex:{model}")
    ours = content.call(_as(remote.prepare_chat(messages, **options), stream), remote.target)
    assert path_of(remote.target) + ours.path == request.path
    assert dict(ours.query) == request.query
    assert same(json.loads(json.dumps(ours.body))) == same(request.json)


def test_counting_is_the_sdks(
    fake: FakeGemini, sdk: genai.Client, cloud: FakeVertex, cloud_sdk: genai.Client, place: None
) -> None:
    ask = Remote("gemini:gemini-3-pro").prepare_chat(said("How many words?"))
    found = sdk.models.count_tokens(model="gemini-3-pro", contents=[user("How many words?")])
    ours = content.count(ask, parse("gemini:gemini-3-pro"))
    assert ("/v1" + ours.path, same(ours.body)) == (fake.requests[-1].path, same(fake.requests[-1].json))
    assert content.counted({"totalTokens": 3}) == found.total_tokens == 3

    target = parse("vertex:gemini-3-pro")
    full = [{"role": "system", "content": "Be brief."}, *said("How many words?")]
    ask = Remote(target).prepare_chat(full, tools=[TOOL])
    cloud_sdk.models.count_tokens(
        model="gemini-3-pro", contents=[user("How many words?")],
        config=types.CountTokensConfig(
            system_instruction=types.Content(parts=[types.Part(text="Be brief.")]), tools=[DECLARED]
        ),
    )  # fmt: skip
    ours = cloud_dialect.count(ask, target)
    assert path_of(target) + ours.path == cloud.requests[-1].path
    assert same(json.loads(json.dumps(ours.body))) == same(cloud.requests[-1].json)


EMBEDDED = [
    ({}, {}),
    ({"role": "query"}, {"task_type": "RETRIEVAL_QUERY"}),
    ({"role": "document", "dimensions": 4}, {"task_type": "RETRIEVAL_DOCUMENT", "output_dimensionality": 4}),
]


@pytest.mark.parametrize("texts", [["one"], ["one", "two"]], ids=["one", "several"])
@pytest.mark.parametrize("options,config", EMBEDDED)
def test_embedding_is_the_sdks(
    texts: list[str], options: dict[str, Any], config: dict[str, Any], fake: FakeGemini, sdk: genai.Client,
    cloud: FakeVertex, cloud_sdk: genai.Client, place: None,
) -> None:  # fmt: skip
    asked = {"contents": [user(text) for text in texts], "config": types.EmbedContentConfig(**config)}
    for server, client, dialect, name in (
        (fake, sdk, embeddings, "gemini:gemini-embedding-001"),
        (cloud, cloud_sdk, cloud_dialect, "vertex:gemini-embedding-001"),
        (cloud, cloud_sdk, cloud_predict, "vertex:text-embedding-005"),
    ):
        target = parse(name)
        theirs = client.models.embed_content(model=target.model, **asked)
        ours = dialect.embed(texts, EmbedOptions(**options), target)
        request = server.requests[-1]
        assert path_of(target) + ours.path == request.path
        assert same(json.loads(json.dumps(ours.body))) == same(request.json)
        body = server.answer(request).body
        found = dialect.vectors(body, len(texts))
        assert np.allclose(found.vectors, [one.values for one in theirs.embeddings or []])
        assert found.n_tokens == len(texts)


def test_drawing_is_the_sdks(fake: FakeGemini, sdk: genai.Client) -> None:
    target = parse("gemini:gemini-3-pro-image")
    theirs = sdk.models.generate_content(
        model=target.model,
        contents=[user("Make it blue", types.Part.from_bytes(data=PICTURE, mime_type="image/png"))],
        config=types.GenerateContentConfig(
            response_modalities=["IMAGE"], seed=3, image_config=types.ImageConfig(aspect_ratio="16:9", image_size="2K")
        ),
    )
    ours = images.draw("Make it blue", [PICTURE], DrawOptions(size="16:9 2K", seed=3), target)
    request = fake.requests[-1]
    assert "/v1" + ours.path == request.path and same(json.loads(json.dumps(ours.body))) == same(request.json)
    found = images.drawn(fake.answer(request).body)
    parts = theirs.candidates[0].content.parts  # type: ignore[index, union-attr]
    shown = [part.inline_data.data for part in parts or [] if part.inline_data and not part.thought]
    assert [one.data for one in found.pictures] == shown == [PICTURE]
    assert found.usage is not None and found.usage.completion_tokens == 1292


def test_the_list_is_the_sdks(fake: FakeGemini, sdk: genai.Client) -> None:
    target = parse("gemini:gemini-3-pro")
    theirs = list(sdk.models.list())
    ours, after = [], ""
    while True:
        call = models.models(target, after)
        assert "/v1" + call.path == fake.requests[-1].path and call.method == "GET"
        request = Request("GET", "/v1/models", dict(call.query), {"x-goog-api-key": KEY}, b"", "/v1/models")
        rows, after = models.listed(fake.answer(request).body)
        ours += rows
        if not after:
            break
    assert [one.id for one in ours] == [(one.name or "").removeprefix("models/") for one in theirs]
    assert [one.context for one in ours] == [one.input_token_limit for one in theirs]
    assert ours[0].verbs == ("chat", "count") and ours[-1].verbs == ("embed",) and len(ours) == 5


SEEN = {
    **{name: CASES[name] for name in ("a question", "log-probabilities", "a schema", "an effort in tokens")},
    "a call": ("gemini-3-pro", said("The weather?"), {"tools": [TOOL]}, [user("The weather?")], {"tools": [DECLARED]}),
    "two calls": (
        "gemini-3-pro", said("weather twice"), {"tools": [TOOL]}, [user("weather twice")], {"tools": [DECLARED]},
    ),
    "two words": ("gemini-3-pro", said("Hello"), {"max_tokens": 2}, [user("Hello")], {"max_output_tokens": 2}),
    "what is forbidden": ("gemini-3-pro", said("It is forbidden"), {}, [user("It is forbidden")], {}),
    "a long question": ("gemini-3-pro", said("word " * 40), {}, [user("word " * 40)], {}),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("name", SEEN)
def test_what_the_sdk_reads_we_read(name: str, stream: bool, fake: FakeGemini, sdk: genai.Client) -> None:
    model, messages, options, contents, config = SEEN[name]
    asked = {"model": model, "contents": contents, "config": types.GenerateContentConfig(**config)}
    theirs = list(sdk.models.generate_content_stream(**asked)) if stream else [sdk.models.generate_content(**asked)]
    remote = Remote(f"gemini:{model}")
    ask = _as(remote.prepare_chat(messages, **options), stream)
    if stream:
        reader = content.reader(ask, remote.target)
        pieces = [piece for data in events(fake.replied[-1]) for piece in reader.push("", data)] + reader.end()
    else:
        pieces = content.whole(fake.replied[-1].body, ask, remote.target)
    ours = gather(pieces, True)
    parts = [p for one in theirs for p in (one.candidates[0].content.parts or [])]  # type: ignore[index, union-attr]
    assert ours.text == "".join(p.text for p in parts if p.text and not p.thought)
    assert (ours.reasoning or "") == "".join(p.text for p in parts if p.text and p.thought)
    calls = [p.function_call for p in parts if p.function_call]
    assert [(c.id, c.name, json.loads(c.arguments)) for c in ours.tool_calls] == [(c.id, c.name, c.args) for c in calls]
    signatures = [p.thought_signature for p in parts if p.thought_signature]
    given = [base64.urlsafe_b64decode(one["signature"]) for one in ours.opaque if "signature" in one]
    assert given == signatures
    reason = theirs[-1].candidates[0].finish_reason.value  # type: ignore[index, union-attr]
    words = {"STOP": "tool_calls" if calls else "stop", "MAX_TOKENS": "length", "SAFETY": "content_filter"}
    assert ours.finish_reason == words[reason]
    used = theirs[-1].usage_metadata
    assert used is not None
    assert ours.usage.prompt_tokens == used.prompt_token_count
    assert ours.usage.completion_tokens == (used.candidates_token_count or 0) + (used.thoughts_token_count or 0)
    assert ours.usage.reasoning_tokens == (used.thoughts_token_count or 0)
    assert ours.usage.cached_tokens == (used.cached_content_token_count or 0)
    results = [one.candidates[0].logprobs_result for one in theirs]  # type: ignore[index]
    told = [(c.token, c.log_probability) for one in results if one for c in one.chosen_candidates or []]
    assert [(one.text, one.logprob) for one in ours.logprobs or []] == told


def test_several_answers_are_told_apart_as_by_the_sdk(fake: FakeGemini, sdk: genai.Client) -> None:
    theirs = sdk.models.generate_content(
        model="gemini-2.5-flash", contents=[user("Hello")], config=types.GenerateContentConfig(candidate_count=3)
    )
    remote = Remote("gemini:gemini-2.5-flash")
    ask = _as(remote.prepare_chat(said("Hello"), n=3), False)
    assert same(content.call(ask, remote.target).body) == same(fake.requests[-1].json)
    pieces = content.whole(fake.replied[-1].body, ask, remote.target)
    for candidate in theirs.candidates or []:
        index = candidate.index or 0
        ours = gather(piece for piece in pieces if piece.index == index)
        assert ours.text == candidate.content.parts[0].text  # type: ignore[index, union-attr]
    used = theirs.usage_metadata
    assert used is not None
    assert sum(p.usage.completion_tokens for p in pieces if p.usage) == used.candidates_token_count


def events(reply: Reply) -> list[Any]:
    """The events of a stream that the fake sent."""
    text = b"".join(reply.chunks).decode()  # type: ignore[arg-type]
    return [json.loads(row.removeprefix("data: ")) for row in text.split("\r\n\r\n") if row]


def _as(ask: Any, stream: bool) -> Any:
    from dataclasses import replace

    return replace(ask, stream=stream)


def same(body: Any) -> Any:
    """A body as Google reads it: names in either case, base64 of either alphabet, tools in any order."""
    if isinstance(body, dict):
        found = {to_camel(name): same(value) for name, value in body.items() if value is not None}
        found.pop("generationConfig", None) if found.get("generationConfig") == {} else None
        for name in ("data", "thoughtSignature"):
            if isinstance(found.get(name), str):
                found[name] = found[name].replace("-", "+").replace("_", "/")
        if isinstance(found.get("tools"), list):
            found["tools"].sort(key=json.dumps)
        return found
    return [same(one) for one in body] if isinstance(body, list) else body
