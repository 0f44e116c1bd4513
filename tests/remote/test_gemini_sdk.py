"""Our requests are those of google-genai's, and what it reads in an answer we read, too."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google import genai
from google.genai import types
from pydantic.alias_generators import to_camel

from brolly.remote.dialects.gemini import content, embeddings, images, models
from brolly.remote.model import Remote
from brolly.remote.target import parse
from brolly.verbs import DrawOptions, EmbedOptions, gather
from tests.remote.fakes import KEY
from tests.remote.fakes.gemini import PICTURE, FakeGemini

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
            temperature=0.5, top_p=0.9, top_k=20, max_tokens=50, seed=7, stop=("\n\n", "END"), presence_penalty=0.5,
            frequency_penalty=-0.5,
        ),
        [user("Hello")],
        dict(
            temperature=0.5, top_p=0.9, top_k=20, max_output_tokens=50, seed=7, stop_sequences=["\n\n", "END"],
            presence_penalty=0.5, frequency_penalty=-0.5,
        ),
    ),
    "temperature 0": ("gemini-2.5-flash", said("Hello"), {"temperature": 0}, [user("Hello")], {"temperature": 0}),
    "log-probabilities": (
        "gemini-2.5-flash", said("Hello"), {"logprobs": 3}, [user("Hello")], {"response_logprobs": True, "logprobs": 3},
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
        "gemini-2.5-flash", said("Make one"), {"json_schema": "{}"}, [user("Make one")],
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
        "gemini-2.5-flash", said("The weather?"), {"tools": [TOOL]}, [user("The weather?")], {"tools": [DECLARED]},
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
                    {"id": "fc_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"A"}'}},
                    {"id": "fc_2", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"B"}'}},
                ],
                "opaque": [
                    {"vendor": "gemini", "call": "fc_1", "signature": base64.urlsafe_b64encode(b"signed").decode()},
                    {"vendor": "gemini", "call": "fc_2"},
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
            {"role": "assistant", "content": None, "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}]},
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
        "gemini-2.5-flash", said("Think"), {"effort": "2048", "thoughts": True}, [user("Think")],
        {"thinking_config": types.ThinkingConfig(thinking_budget=2048, include_thoughts=True)},
    ),
    "no thinking": (
        "gemini-2.5-flash", said("Quick"), {"effort": "none"}, [user("Quick")],
        {"thinking_config": types.ThinkingConfig(thinking_budget=0)},
    ),
    "an effort in words": (
        "gemini-3.1-pro-preview", said("Think"), {"effort": "low"}, [user("Think")],
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
    fake.signed.add(base64.urlsafe_b64encode(b"signed").decode().rstrip("="))
    asked = {"model": model, "contents": contents, "config": types.GenerateContentConfig(**config)}
    if stream:
        theirs = list(sdk.models.generate_content_stream(**asked))
    else:
        theirs = [sdk.models.generate_content(**asked)]
    assert theirs
    request = fake.requests[-1]
    remote = Remote(f"gemini:{model}")
    ask = remote.prepare_chat(messages, **options)
    ours = content.call(_as(ask, stream), remote.target)
    assert "/v1" + ours.path == request.path
    assert dict(ours.query) == {k: v for k, v in request.query.items()}
    assert same(json.loads(json.dumps(ours.body))) == same(request.json)


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
