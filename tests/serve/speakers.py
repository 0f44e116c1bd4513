"""Four clients, each by its makers' own package, that say and hear the same: what a test asks of every one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

SCHEMA = {
    "type": "object", "properties": {"city": {"type": "string"}, "hot": {"type": "boolean"}},
    "required": ["city", "hot"], "additionalProperties": False,
}  # fmt: skip
WEATHER = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False,
}  # fmt: skip
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@dataclass
class Heard:
    """An answer in no client's words. `raw` is what goes back as the assistant's turn."""

    text: str = ""
    thoughts: str = ""
    finish: str = ""  # stop, length, calls or refused
    stopped: str | None = None
    calls: list[tuple[str, Any]] = field(default_factory=list)  # name, arguments
    ids: list[str] = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)
    raw: Any = None

    @property
    def said(self) -> tuple[Any, ...]:
        return self.text, self.thoughts, self.finish, self.stopped, self.calls, self.tokens


@dataclass(frozen=True)
class Question:
    """What is asked. `after`: the answer with calls that came before, and what its tools said."""

    text: str
    tools: bool = False
    forced: bool = False
    schema: bool = False
    picture: bool = False
    stop: str = ""
    max_tokens: int = 300
    effort: str = ""
    after: tuple[Heard, Sequence[str]] | None = None


class Speaker:
    """One client. `ask` has its whole answer, `stream` the same folded by its own package from events."""

    name = ""

    def __init__(self, url: str, key: str, **options: Any) -> None:
        self.url, self.key = url, key

    def ask(self, model: str, question: Question) -> Heard:
        raise NotImplementedError

    def stream(self, model: str, question: Question, seen: Callable[[], None] = lambda: None) -> Heard:
        """`seen` is called at each event."""
        raise NotImplementedError

    def count(self, model: str, text: str) -> int:
        raise NotImplementedError


class OpenAI(Speaker):
    """OpenAI's package."""

    def __init__(self, url: str, key: str, **options: Any) -> None:
        import openai

        super().__init__(url, key)
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=30)
        self.errors: Any = openai.APIError


class Chat(OpenAI):
    """OpenAI's package, chat completions."""

    name = "openai chat"

    def given(self, model: str, q: Question) -> dict[str, Any]:
        content: Any = q.text
        if q.picture:
            part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
            content = [{"type": "text", "text": q.text}, part]
        messages: list[Any] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": content}]
        if q.after:
            answer, results = q.after
            messages.append(answer.raw)
            messages += [
                {"role": "tool", "tool_call_id": id, "content": said}
                for id, said in zip(answer.ids, results, strict=True)
            ]
        found: dict[str, Any] = {"model": model, "messages": messages, "max_completion_tokens": q.max_tokens}
        if q.tools:
            function = {"name": "weather", "description": "Tells it.", "parameters": WEATHER}
            found["tools"] = [{"type": "function", "function": function}]
        if q.forced:
            found["tool_choice"] = {"type": "function", "function": {"name": "weather"}}
        if q.schema:
            form = {"name": "place", "schema": SCHEMA, "strict": True}
            found["response_format"] = {"type": "json_schema", "json_schema": form}
        if q.stop:
            found["stop"] = [q.stop]
        if q.effort:
            found |= {"reasoning_effort": q.effort, "extra_body": {"include_reasoning": True}}
        return found

    def ask(self, model: str, question: Question) -> Heard:
        return self.heard(self.client.chat.completions.create(**self.given(model, question)))

    def stream(self, model: str, question: Question, seen: Callable[[], None] = lambda: None) -> Heard:
        from openai.lib.streaming.chat._completions import ChatCompletionStreamState

        given = {**self.given(model, question), "stream": True, "stream_options": {"include_usage": True}}
        state: Any = ChatCompletionStreamState()  # whose last word would raise at what is cut or refused
        with self.client.chat.completions.create(**given) as stream:
            for chunk in stream:
                seen()
                state.handle_chunk(chunk)
        return self.heard(state.current_completion_snapshot)

    def heard(self, answer: Any) -> Heard:
        choice = answer.choices[0]
        calls = [c for c in choice.message.tool_calls or ()]
        finish = {"tool_calls": "calls", "content_filter": "refused"}.get(choice.finish_reason, choice.finish_reason)
        usage = answer.usage
        raw: dict[str, Any] = {"role": "assistant", "content": choice.message.content}
        raw["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
            for c in calls
        ]
        return Heard(
            choice.message.content or "", getattr(choice.message, "reasoning_content", None) or "", finish, None,
            [(c.function.name, json.loads(c.function.arguments)) for c in calls], [c.id for c in calls],
            (usage.prompt_tokens, usage.completion_tokens), raw,
        )  # fmt: skip


class Responses(OpenAI):
    """OpenAI's package, responses."""

    name = "openai responses"

    def given(self, model: str, q: Question) -> dict[str, Any]:
        content: list[Any] = [{"type": "input_text", "text": q.text}]
        if q.picture:
            url = f"data:image/png;base64,{PICTURE}"
            content.append({"type": "input_image", "image_url": url, "detail": "auto"})
        items: list[Any] = [{"role": "user", "content": content}]
        if q.after:
            answer, results = q.after
            items += answer.raw
            items += [
                {"type": "function_call_output", "call_id": id, "output": said}
                for id, said in zip(answer.ids, results, strict=True)
            ]
        found: dict[str, Any] = {
            "model": model, "input": items, "instructions": "Be kind.", "max_output_tokens": q.max_tokens,
            "store": False,
        }  # fmt: skip
        if q.tools:
            found["tools"] = [
                {
                    "type": "function",
                    "name": "weather",
                    "description": "Tells it.",
                    "parameters": WEATHER,
                    "strict": True,
                }
            ]
        if q.forced:
            found["tool_choice"] = {"type": "function", "name": "weather"}
        if q.schema:
            found["text"] = {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}}
        if q.stop:
            found["extra_body"] = {"stop": [q.stop]}
        if q.effort:
            found |= {"reasoning": {"effort": q.effort, "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
        return found

    def ask(self, model: str, question: Question) -> Heard:
        return self.heard(self.client.responses.create(**self.given(model, question)))

    def stream(self, model: str, question: Question, seen: Callable[[], None] = lambda: None) -> Heard:
        import openai

        last: Any = None
        with self.client.responses.create(**self.given(model, question), stream=True) as stream:
            for event in stream:
                seen()
                last = event
        if last.type == "response.failed":
            raise openai.APIError(last.response.error.message, None, body=last.response.error)  # type: ignore[arg-type]
        return self.heard(last.response)

    def heard(self, answer: Any) -> Heard:
        calls = [item for item in answer.output if item.type == "function_call"]
        thoughts = "".join(
            part.text for item in answer.output if item.type == "reasoning" for part in item.content or ()
        )
        finish = "calls" if calls else "stop"
        if answer.status == "incomplete":
            finish = {"max_output_tokens": "length"}.get(answer.incomplete_details.reason, "refused")
        usage = answer.usage
        raw = [item.model_dump(exclude_none=True) for item in answer.output]
        return Heard(
            answer.output_text, thoughts, finish, None, [(c.name, json.loads(c.arguments)) for c in calls],
            [c.call_id for c in calls], (usage.input_tokens, usage.output_tokens), raw,
        )  # fmt: skip

    def count(self, model: str, text: str) -> int:
        return int(self.client.responses.input_tokens.count(model=model, input=text).input_tokens)


class Messages(Speaker):
    """Anthropic's package."""

    name = "anthropic"

    def __init__(self, url: str, key: str, **options: Any) -> None:
        import anthropic

        super().__init__(url, key)
        self.client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=30)
        self.errors: Any = anthropic.APIError

    def given(self, model: str, q: Question) -> dict[str, Any]:
        content: Any = q.text
        if q.picture:
            source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
            content = [{"type": "text", "text": q.text}, {"type": "image", "source": source}]
        messages: list[Any] = [{"role": "user", "content": content}]
        if q.after:
            answer, results = q.after
            rows = [
                {"type": "tool_result", "tool_use_id": id, "content": said}
                for id, said in zip(answer.ids, results, strict=True)
            ]
            messages += [{"role": "assistant", "content": answer.raw}, {"role": "user", "content": rows}]
        found: dict[str, Any] = {
            "model": model, "messages": messages, "system": "Be kind.", "max_tokens": q.max_tokens,
            "metadata": {"user_id": "user-not-to-be-sent"},
        }  # fmt: skip
        if q.tools:
            found["tools"] = [{"name": "weather", "description": "Tells it.", "input_schema": WEATHER}]
        if q.forced:
            found["tool_choice"] = {"type": "tool", "name": "weather"}
        if q.schema:
            found["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
        if q.stop:
            found["stop_sequences"] = [q.stop]
        if q.effort:
            found |= {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 4096}
        return found

    def ask(self, model: str, question: Question) -> Heard:
        return self.heard(self.client.messages.create(**self.given(model, question)))

    def stream(self, model: str, question: Question, seen: Callable[[], None] = lambda: None) -> Heard:
        with self.client.messages.stream(**self.given(model, question)) as stream:
            for _ in stream:
                seen()
            return self.heard(stream.get_final_message())

    def heard(self, answer: Any) -> Heard:
        calls = [b for b in answer.content if b.type == "tool_use"]
        ends = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "calls"}
        kept = {"type", "text", "thinking", "signature", "data", "id", "name", "input"}
        raw = [b.model_dump(exclude_none=True, include=kept) for b in answer.content]
        usage = answer.usage
        read = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        return Heard(
            "".join(b.text for b in answer.content if b.type == "text"),
            "".join(b.thinking for b in answer.content if b.type == "thinking"),
            ends.get(answer.stop_reason, "refused"), answer.stop_sequence, [(c.name, c.input) for c in calls],
            [c.id for c in calls], (read, usage.output_tokens), raw,
        )  # fmt: skip

    def count(self, model: str, text: str) -> int:
        found = self.client.messages.count_tokens(model=model, messages=[{"role": "user", "content": text}])
        return int(found.input_tokens)


class Ollama(Speaker):
    """Ollama's package."""

    name = "ollama"

    def __init__(self, url: str, key: str, **options: Any) -> None:
        import ollama

        super().__init__(url, key)
        self.client = ollama.Client(host=url, headers={"authorization": f"Bearer {key}"}, timeout=30)
        self.errors: Any = ollama.ResponseError

    def given(self, model: str, q: Question) -> dict[str, Any]:
        user: dict[str, Any] = {"role": "user", "content": q.text, **({"images": [PICTURE]} if q.picture else {})}
        messages: list[Any] = [{"role": "system", "content": "Be kind."}, user]
        if q.after:
            answer, results = q.after
            messages.append(answer.raw)
            messages += [{"role": "tool", "content": said, "tool_name": "weather"} for said in results]
        options: dict[str, Any] = {"num_predict": q.max_tokens, **({"stop": [q.stop]} if q.stop else {})}
        found: dict[str, Any] = {"model": model, "messages": messages, "options": options}
        if q.tools:
            function = {"name": "weather", "description": "Tells it.", "parameters": WEATHER}
            found["tools"] = [{"type": "function", "function": function}]
        if q.schema:
            found["format"] = SCHEMA
        if q.effort:
            found["think"] = q.effort
        return found

    def ask(self, model: str, question: Question) -> Heard:
        return self.heard([self.client.chat(**self.given(model, question))])

    def stream(self, model: str, question: Question, seen: Callable[[], None] = lambda: None) -> Heard:
        lines = []
        for line in self.client.chat(**self.given(model, question), stream=True):
            seen()
            lines.append(line)
        return self.heard(lines)

    def heard(self, lines: list[Any]) -> Heard:
        text = "".join(line.message.content or "" for line in lines)
        calls = [call.function for line in lines for call in line.message.tool_calls or ()]
        last = lines[-1]
        raw: dict[str, Any] = {"role": "assistant", "content": text}
        if calls:
            raw["tool_calls"] = [{"function": {"name": c.name, "arguments": dict(c.arguments)}} for c in calls]
        finish = "calls" if calls else {"length": "length"}.get(last.done_reason, "stop")
        return Heard(
            text, "".join(line.message.thinking or "" for line in lines), finish, None,
            [(c.name, dict(c.arguments)) for c in calls], [""] * len(calls),
            (last.prompt_eval_count, last.eval_count), raw,
        )  # fmt: skip


SPEAKERS: tuple[type[Speaker], ...] = (Chat, Responses, Messages, Ollama)
