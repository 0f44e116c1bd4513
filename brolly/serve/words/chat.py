"""OpenAI's chat completions: a conversation → the next message, whole or by pieces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly.serve.app import house
from brolly.serve.ask import Thinking, messages_of, sampling, template_of, tools_of
from brolly.serve.elsewhere import Elsewhere, prepared, reads_of, thought
from brolly.serve.errors import Refused
from brolly.serve.provenance import Provenance, provenance
from brolly.serve.streams import DONE, Events, Pieces, Written, dumps, gathered, in_stream, unless_left
from brolly.serve.tell import chat_logprobs, reply, share, usage_of
from brolly.serve.wire.chat import ChatCompletion, ChatRequest
from brolly.serve.wire.common import streamed
from brolly.verbs import Piece

router = APIRouter(tags=["language"])


@router.post(
    "/v1/chat/completions", response_model=ChatCompletion,
    responses=streamed(ChatCompletion, "chat.completion.chunk objects, then [DONE]"),
)  # fmt: skip
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation."""
    chat = Chat(body, request)
    if body.stream:
        return Events(chat.stream(), in_stream, chat.headers)
    if body.stream_options is not None:
        raise Refused("stream_options is for streams; set stream to true or leave it out.", param="stream_options")
    return await unless_left(request, chat.whole())


class Chat:
    """One request for an answer: read, prepared, written, told."""

    def __init__(self, body: ChatRequest, request: Request) -> None:
        self.body, self.request = body, request
        self.id, self.created = f"chatcmpl-{uuid4().hex}", int(time.time())
        self.headers: dict[str, str] = {}
        if body.top_logprobs and not body.logprobs:
            raise Refused("top_logprobs is given without logprobs: true.", param="top_logprobs")
        if body.modalities and body.modalities != ["text"]:
            raise Refused(f"modalities is {body.modalities}; models here answer with text.", param="modalities")
        if body.web_search_options is not None or body.moderation is not None:
            raise Refused("This server neither searches the web nor moderates.", param="web_search_options")
        most = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
        self.options = sampling(body, most, (body.top_logprobs or 0) if body.logprobs else None)
        self.tools, self.choice = tools_of(body)
        self.thinking = Thinking(body.reasoning_effort, told=body.include_reasoning is True)
        self.template = template_of(body.chat_template_kwargs)
        if body.documents:
            self.template["documents"] = body.documents
        self.tier = "flex" if body.service_tier == "flex" else "default"
        # a client may step back behind others, never push ahead of them
        self.priority = min(0, -(body.priority or 0), -1 if self.tier == "flex" else 0)

    def prepare(self, model: Any, adapter: str | None) -> Any:
        """The job, by reading the conversation with the model's template, which takes its time; or the ask."""
        body = self.body
        messages = messages_of(body.messages, reads_of(model))
        if isinstance(model, Elsewhere):
            model.plain(body.verbosity)
        common: dict[str, Any] = {
            "n": body.n or 1, "adapter": adapter, "priority": self.priority, "user": share(body.user),
            **self.options,
        }  # fmt: skip
        if body.continue_final_message or body.add_generation_prompt is False:
            if self.tools:
                raise Refused("continue_final_message goes with no tools.", param="continue_final_message")
            words = self.thinking.words() | self.template
            return model.prepare(continued(model, messages, words, bool(body.continue_final_message)), **common)
        return model.prepare_chat(
            messages, tools=self.tools, tool_choice=self.choice,
            parallel_tool_calls=body.parallel_tool_calls is not False, **common,
            **thought(model, self.thinking, self.template),
        )  # fmt: skip

    async def whole(self) -> Response:
        """All of it at once."""
        async with house(self.request).use(self.body.model, "chat", self.priority) as use:
            origin = provenance(use)
            job = await prepared(self.prepare, use.model, use.adapter)
            written = await gathered(use.model, job)
            told = partial(self.told, written, use.model.tokenizer, origin)
            return await asyncio.to_thread(told) if self.body.logprobs else told()  # those may be millions of numbers

    def told(self, written: Sequence[Written], tokenizer: Any, origin: Provenance) -> Response:
        found = {
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.body.model,
            "choices": [self.choice_of(i, one, tokenizer) for i, one in enumerate(written)],
            "usage": usage_of([one.usage for one in written]), "service_tier": self.tier,
            "system_fingerprint": origin.fingerprint,
        }  # fmt: skip
        return reply(found, origin.headers)

    def choice_of(self, index: int, written: Written, tokenizer: Any) -> dict[str, Any]:
        calls = [written.calls[key] for key in sorted(written.calls)]
        message: dict[str, Any] = {
            "role": "assistant", "content": written.text if written.text or not calls else None, "refusal": None,
            "annotations": [],
        }  # fmt: skip
        if written.reasoning and self.body.include_reasoning is not False:
            message["reasoning_content"] = written.reasoning
        if calls:
            message["tool_calls"] = [
                {
                    "id": c["id"],
                    "type": "function",
                    "function": {"name": c["name"], "arguments": c["arguments"]},
                }
                for c in calls
            ]
        return {
            "index": index, "message": message,
            "logprobs": chat_logprobs(written.logprobs, tokenizer) if self.body.logprobs else None,
            "finish_reason": _reason(written.finish_reason, bool(calls)),
        }  # fmt: skip

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Chunk by chunk; several that wait go out in one write."""
        async with house(self.request).use(self.body.model, "chat", self.priority) as use:
            origin = provenance(use)
            self.headers.update(origin.headers)
            job = await prepared(self.prepare, use.model, use.adapter)
            async with Pieces(use.model, job) as pieces:
                chunks = Chunks(self, origin, use.model.tokenizer, job.n)
                yield b""  # the job was taken: the head may go out
                async for batch in pieces.batches():
                    yield "".join([chunks.of(piece) for piece in batch]).encode()
                yield chunks.end() + DONE


class Chunks:
    """Pieces → chat.completion.chunk events, by as little work a token as can be."""

    def __init__(self, chat: Chat, origin: Provenance, tokenizer: Any, n: int) -> None:
        self.tokenizer, self.logprobs = tokenizer, bool(chat.body.logprobs)
        self.thoughts = chat.body.include_reasoning is not False
        options = chat.body.stream_options
        self.usage = bool(options and options.include_usage)
        said = {
            "id": chat.id, "object": "chat.completion.chunk", "created": chat.created, "model": chat.body.model,
            "service_tier": chat.tier, "system_fingerprint": origin.fingerprint,
        }  # fmt: skip
        self.head = f'data: {dumps(said)[:-1]},"choices":['
        self.tail = '],"usage":null}\n\n' if self.usage else "]}\n\n"
        self.begun = [False] * n
        self.called = [False] * n
        self.usages: list[Any] = []

    def of(self, piece: Piece) -> str:
        """The events of one piece."""
        index, out = piece.index, ""
        if not self.begun[index]:
            self.begun[index] = True
            out = self._chunk(index, '{"role":"assistant","content":"","refusal":null}')
        delta = []
        if piece.reasoning and self.thoughts:
            delta.append(f'"reasoning_content":{dumps(piece.reasoning)}')
        if piece.text or (self.logprobs and piece.logprobs and not piece.reasoning):
            delta.append(f'"content":{dumps(piece.text)}')
        if piece.calls:
            self.called[index] = True
            delta.append(f'"tool_calls":{dumps([_call(c) for c in piece.calls])}')
        if delta:
            told = dumps(chat_logprobs(piece.logprobs, self.tokenizer)) if self.logprobs else "null"
            out += self._chunk(index, f"{{{','.join(delta)}}}", told)
        if piece.finish_reason:
            self.usages.append(piece.usage)
            out += self._chunk(index, "{}", reason=f'"{_reason(piece.finish_reason, self.called[index])}"')
        return out

    def _chunk(self, index: int, delta: str, logprobs: str = "null", reason: str = "null") -> str:
        return (
            f'{self.head}{{"index":{index},"delta":{delta},"logprobs":{logprobs},"finish_reason":{reason}}}{self.tail}'
        )

    def end(self) -> bytes:
        """The usage, where it was asked for."""
        if not self.usage:
            return b""
        return f'{self.head}],"usage":{dumps(usage_of(self.usages))}}}\n\n'.encode()


def continued(model: Any, messages: list[dict[str, Any]], template: dict[str, Any], last: bool) -> list[int]:
    """Ids of a conversation without the opening of a new answer; with `last`, the final message is left open."""
    if isinstance(model, Elsewhere):
        raise Refused(f"{model.target} runs elsewhere and opens each answer itself; end with a user's message.")
    text: str = model.tokenizer.prompt(messages, **{**template, "add_generation_prompt": False})
    if last:
        said = str(messages[-1]["content"]).strip()
        at = text.rfind(said)
        if messages[-1]["role"] != "assistant" or not said or at < 0:
            raise Refused("The last message is none of the assistant's that could be continued.", param="messages")
        text = text[: at + len(said)]
    ids: list[int] = model.tokenizer.encode(text, special=False, most=model.network.config.context)
    return ids


def _reason(given: str, called: bool) -> str:
    return "tool_calls" if called and given == "stop" else given


def _call(delta: Any) -> dict[str, Any]:
    function: dict[str, str] = {"name": delta.name} if delta.name else {}
    function["arguments"] = delta.arguments
    found: dict[str, Any] = {"index": delta.index}
    if delta.id:
        found |= {"id": delta.id, "type": "function"}
    return found | {"function": function}
