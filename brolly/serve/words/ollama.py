"""Ollama's chat, generate and embed: a line of JSON a piece, or one object folded from the same lines."""

from __future__ import annotations

import json
import re
import time
from base64 import b64decode
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly.errors import ContextTooLong, OptionError
from brolly.media.text.infill import infill
from brolly.remote.content import media_type
from brolly.serve.app import house
from brolly.serve.ask import ANY_OBJECT, Reads, Thinking, choose
from brolly.serve.elsewhere import Elsewhere, prepared, reads_of, thought
from brolly.serve.errors import Refused, told
from brolly.serve.provenance import provenance
from brolly.serve.streams import Events, Pieces, dumps, unless_left
from brolly.serve.tell import reply, share, token_rows
from brolly.serve.wire.ollama import (
    ERRORS,
    ChatAnswer,
    ChatRequest,
    EmbedAnswer,
    EmbeddingsAnswer,
    EmbeddingsRequest,
    EmbedRequest,
    GenerateAnswer,
    GenerateRequest,
    Message,
    Options,
    Writing,
)
from brolly.serve.words.embeddings import vectors
from brolly.verbs import Piece, Usage

router = APIRouter(tags=["ollama"])
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST = 1e9  # seconds; what is longer is for ever
LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-ndjson": {"schema": {"type": "string", "description": "An object a line."}}}},
    **ERRORS,
}


@router.post("/api/chat", response_model=ChatAnswer, responses=LINES)
async def chat(request: Request, body: ChatRequest) -> Response:
    """Answer a conversation; without messages, load the model or, with keep_alive 0, unload it."""
    return await answered(Chatting(request, body))


@router.post("/api/generate", response_model=GenerateAnswer, responses=LINES)
async def generate(request: Request, body: GenerateRequest) -> Response:
    """Answer a prompt; without one, load the model or, with keep_alive 0, unload it."""
    return await answered(Continuing(request, body))


@router.post("/api/embed", response_model=EmbedAnswer, responses=ERRORS)
async def embed(request: Request, body: EmbedRequest) -> Response:
    """A vector for each text."""
    return await unless_left(request, embedded(request, body))


@router.post("/api/embeddings", response_model=EmbeddingsAnswer, responses=ERRORS)
async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    """The vector of one text: the older route."""

    async def answer() -> Response:
        async with house(request).use(body.model, "embed", keep_alive=seconds(body.keep_alive)) as use:
            found = await vectors(request, use.model, [body.prompt] if body.prompt else [], truncate=True)
        return reply({"embedding": found[0].vector.tolist() if found else []})

    return await unless_left(request, answer())


async def embedded(request: Request, body: EmbedRequest) -> Response:
    began = time.perf_counter_ns()
    texts = [body.input] if isinstance(body.input, str) else body.input
    async with house(request).use(body.model, "embed", keep_alive=seconds(body.keep_alive)) as use:
        loaded, headers = time.perf_counter_ns() - began, provenance(use).headers
        options = {"truncate": body.truncate is not False, "dimensions": body.dimensions}
        found = await vectors(request, use.model, [text for text in texts if text], **options)
    if len(found) < len(texts) and found:
        raise OptionError("a text of input is empty; expected at least one character in each.")
    answer = {
        "model": body.model, "embeddings": [one.vector.tolist() for one in found],
        "total_duration": time.perf_counter_ns() - began, "load_duration": loaded,
        "prompt_eval_count": sum(one.n_tokens for one in found),
    }  # fmt: skip
    return reply(answer, headers)


async def answered(asked: Asked) -> Response:
    """By lines unless the client wants one object."""
    if asked.body.stream is not False:
        return Lines(asked.stream(), in_stream, asked.headers)
    return await unless_left(asked.request, asked.whole())


class Lines(Events):
    """JSON objects, each on its line."""

    media_type = "application/x-ndjson"


class Asked:
    """One request to write: what is asked of the model, and how its pieces are told."""

    verb = "generate"

    def __init__(self, request: Request, body: Writing) -> None:
        self.request, self.body, self.began = request, body, time.perf_counter_ns()
        self.headers: dict[str, str] = {}
        self.keep_alive = seconds(body.keep_alive)
        if body.template:
            raise Refused(
                "template is one of Go's, which is not read here; give the whole prompt to /api/generate, raw."
            )

    @property
    def empty(self) -> bool:
        """Whether nothing is to be written, so that the model is only loaded or unloaded."""
        raise NotImplementedError

    def prepare(self, model: Any, options: dict[str, Any]) -> Any:
        raise NotImplementedError

    def said(self, text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        """The fields of one line."""
        raise NotImplementedError

    async def lines(self) -> AsyncGenerator[list[dict[str, Any]], None]:
        """What goes out at a time; nothing at first, as soon as the answer is begun."""
        if self.empty:
            yield [await self.moved()]
            return
        inside = house(self.request)
        verb = "chat" if inside.find(self.body.model)[0].target else self.verb  # prompts are chats elsewhere
        async with inside.use(self.body.model, verb, keep_alive=self.keep_alive) as use:
            loaded = time.perf_counter_ns()
            self.headers.update(provenance(use).headers)
            options = written_options(self.body, share(None), use.adapter)
            job = await prepared(self.prepare, use.model, options)
            job = within(job, self.body.options.num_ctx if self.body.options else None)
            submitted, first, calls = time.perf_counter_ns(), 0, Calls()
            async with Pieces(use.model, job, stream=self.body.stream is not False) as pieces:
                yield []
                tokens: list[int] = []
                usage, reason = Usage(len(job.prompt), 0), "stop"
                async for batch in pieces.batches():
                    first = first or time.perf_counter_ns()
                    out = []
                    for piece in batch:
                        done = calls.add(piece)
                        tokens += piece.tokens
                        usage, reason = piece.usage or usage, piece.finish_reason or reason
                        if piece.text or piece.reasoning or done or (self.body.logprobs and piece.logprobs):
                            line = self.line(self.said(piece.text, piece.reasoning, done), done=False)
                            if self.body.logprobs:
                                line["logprobs"] = token_rows(piece.logprobs, use.model.tokenizer)
                            out.append(line)
                    yield out
                now = time.perf_counter_ns()
                last = self.line(self.said("", "", []), done=True)
                last |= self.context(job, tokens) | {
                    "done_reason": "length" if reason == "length" else "stop",
                    "total_duration": now - self.began, "load_duration": loaded - self.began,
                    "prompt_eval_count": usage.prompt_tokens, "prompt_eval_duration": first - submitted,
                    "eval_count": usage.completion_tokens, "eval_duration": now - first,
                }  # fmt: skip
                yield [last]

    def line(self, said: dict[str, Any], *, done: bool) -> dict[str, Any]:
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return {"model": self.body.model, "created_at": at, **said, "done": done}

    def context(self, job: Any, tokens: list[int]) -> dict[str, Any]:
        return {}

    async def moved(self) -> dict[str, Any]:
        """Load or unload the model."""
        inside, name = house(self.request), self.body.model
        if self.keep_alive == 0:
            if getattr(self.request.state, "scope", "admin") != "admin":
                raise Refused("unloading a model needs an admin's key.", 403, "permission_error")
            await inside.unload(name)
        else:
            await inside.load(name, keep_alive=self.keep_alive)
        reason = "unload" if self.keep_alive == 0 else "load"
        return {**self.line(self.said("", "", []), done=True), "done_reason": reason}

    async def stream(self) -> AsyncGenerator[bytes, None]:
        async for lines in self.lines():
            yield "".join(f"{dumps(line)}\n" for line in lines).encode()

    async def whole(self) -> Response:
        return reply(folded([line async for lines in self.lines() for line in lines]), self.headers)


class Chatting(Asked):
    """A conversation."""

    body: ChatRequest

    @property
    def empty(self) -> bool:
        return not self.body.messages

    def prepare(self, model: Any, options: dict[str, Any]) -> Any:
        tools, choice = choose([tool.model_dump(exclude_none=True) for tool in self.body.tools or ()], None)
        return model.prepare_chat(
            rows_of(self.body.messages or [], reads_of(model)), tools=tools, tool_choice=choice, **options,
            **thought(model, thinking_of(self.body.think), {}),
        )  # fmt: skip

    def said(self, text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        more = {"thinking": thinking, "tool_calls": calls}
        return {"message": {"role": "assistant", "content": text, **{k: v for k, v in more.items() if v}}}


class Continuing(Asked):
    """A prompt: as it stands, as a chat's only message, or to be filled in the middle."""

    body: GenerateRequest

    @property
    def empty(self) -> bool:
        return not self.body.prompt and self.body.suffix is None

    def prepare(self, model: Any, options: dict[str, Any]) -> Any:
        body, prompt = self.body, self.body.prompt or ""
        rows = [{"role": "system", "content": body.system}] if body.system else []
        if isinstance(model, Elsewhere):
            if body.raw or body.suffix is not None or body.context:
                raise Refused(f"{model.target} answers conversations; leave raw, suffix and context out.")
            rows.append({"role": "user", "content": with_pictures(prompt, body.images or (), reads_of(model))})
            return model.prepare_chat(rows, **options, **thought(model, thinking_of(body.think), {}))
        if body.images:
            raise Refused("images are given, and this model reads text alone.", code="unsupported_content")
        if body.suffix is not None:
            job = model.prepare(infill(model.tokenizer, prompt, body.suffix), **options)
        elif body.raw or model.tokenizer.template is None:
            job = model.prepare(f"{body.system}\n\n{prompt}" if body.system and not body.raw else prompt, **options)
        else:
            rows.append({"role": "user", "content": prompt})
            job = model.prepare_chat(rows, **options, **thought(model, thinking_of(body.think), {}))
        if body.context and not body.raw:
            vocab = model.network.config.vocab_size
            if not all(0 <= i < vocab for i in body.context):
                raise OptionError(f"context holds ids that this model has not; its own go from 0 to {vocab - 1}.")
            job = replace(job, prompt=[*body.context, *job.prompt])
        return job

    def said(self, text: str, thinking: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
        return {"response": text, **({"thinking": thinking} if thinking else {})}

    def context(self, job: Any, tokens: list[int]) -> dict[str, Any]:
        known = [*job.prompt, *tokens]
        return {} if self.body.raw or not known else {"context": known}


class Calls:
    """Tool calls by pieces → each whole, when the next one begins or the answer ends."""

    def __init__(self) -> None:
        self.index, self.open = -1, {"id": "", "name": "", "arguments": ""}

    def add(self, piece: Piece) -> list[dict[str, Any]]:
        """The calls that this piece completes."""
        found = []
        for delta in piece.calls:
            if delta.index != self.index:
                found += self.close()
                self.index = delta.index
            self.open["id"] += delta.id or ""
            self.open["name"] += delta.name or ""
            self.open["arguments"] += delta.arguments
        return found + (self.close() if piece.finish_reason else [])

    def close(self) -> list[dict[str, Any]]:
        call, self.open = self.open, {"id": "", "name": "", "arguments": ""}
        if not call["name"]:
            return []
        try:
            arguments = json.loads(call["arguments"] or "{}")
        except ValueError:  # cut by max_tokens
            arguments = {}
        return [{"id": call["id"], "function": {"index": self.index, "name": call["name"], "arguments": arguments}}]


def folded(lines: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """All lines as one object: the last one's fields, and what was said by all."""
    found: dict[str, Any] = {}
    text = thinking = ""
    calls: list[Any] = []
    logprobs: list[Any] = []
    for found in lines:
        inner = found.get("message", found)
        text += inner.get("content", inner.get("response", ""))
        thinking += inner.get("thinking", "")
        calls += inner.get("tool_calls", ())
        logprobs += found.get("logprobs", ())
    inner = found.get("message", found)
    inner["content" if "message" in found else "response"] = text
    inner |= {name: value for name, value in (("thinking", thinking), ("tool_calls", calls)) if value}
    return {**found, "logprobs": logprobs} if logprobs else found


def written_options(body: Writing, user: str, adapter: str | None) -> dict[str, Any]:
    """GenerateOptions' keyword arguments, and whose job it is. Raises Refused."""
    o = body.options or Options.model_validate({})
    for name, off in (("mirostat", 0), ("typical_p", 1), ("tfs_z", 1)):
        if getattr(o, name) not in (None, off):
            raise Refused(f"options.{name} is {getattr(o, name)}; it is not done here, so leave it out.")
    found: dict[str, Any] = {
        "max_tokens": o.num_predict if o.num_predict is not None and o.num_predict > 0 else None, "seed": o.seed,
        "temperature": o.temperature, "top_k": o.top_k, "top_p": o.top_p, "min_p": o.min_p,
        "repetition_penalty": None if o.repeat_last_n == 0 else o.repeat_penalty,
        "presence_penalty": o.presence_penalty, "frequency_penalty": o.frequency_penalty, "stop": o.stop or None,
        "logprobs": body.top_logprobs or 0 if body.logprobs else None,
    }  # fmt: skip
    if body.format == "json":
        found["json_schema"] = json.dumps(ANY_OBJECT)
    elif isinstance(body.format, dict):
        found["json_schema"] = json.dumps(body.format)
    elif body.format:
        raise Refused(f"format is {body.format!r:.40}; expected json or a JSON Schema.", param="format")
    return {**{name: value for name, value in found.items() if value is not None}, "user": user, "adapter": adapter}


def within(job: Any, most: int | None) -> Any:
    """The job, prompt and answer within so many tokens. Raises ContextTooLong: nothing is cut in silence."""
    if most is None or not job.prompt:  # elsewhere the context is as large as it is
        return job
    room = most - len(job.prompt)
    if room < 1:
        raise ContextTooLong(f"the prompt has {len(job.prompt)} tokens, and num_ctx is {most}; raise it or shorten it.")
    return replace(job, options=replace(job.options, max_tokens=min(job.options.max_tokens or room, room)))


def thinking_of(think: bool | str | None) -> Thinking:
    """How to think; nothing where the client says nothing."""
    return Thinking(think, told=True) if isinstance(think, str) else Thinking(wanted=think, told=bool(think))


def with_pictures(text: str, images: Iterable[str], reads: Reads) -> Any:
    """A text and pictures, each base64, as a content. Raises Refused."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for image in images:
        if "image" not in reads.kinds:
            raise reads.cannot("images", "image")
        try:
            kind = media_type(b64decode(image[:64], validate=True))
        except ValueError:
            kind = ""
        if not kind.startswith("image/"):
            raise Refused("images hold what is no base64 of a JPEG, PNG, GIF or WebP.", code="invalid_media")
        parts.append(reads.image({"url": f"data:{kind};base64,{image}"}, "images", "image"))
    return reads.joined(parts)


def rows_of(messages: Iterable[Message], reads: Reads) -> list[dict[str, Any]]:
    """A conversation as `prepare_chat` takes it. Calls have no ids here, so results belong to calls in their order."""
    rows: list[dict[str, Any]] = []
    open_calls: list[str] = []
    for n, message in enumerate(messages):
        content = with_pictures(message.content or "", message.images or (), reads)
        row: dict[str, Any] = {"role": message.role, "content": content}
        if message.thinking:
            row["reasoning_content"] = message.thinking
        if message.tool_calls:
            row["tool_calls"] = []
            for i, call in enumerate(message.tool_calls):
                open_calls.append(call.id or f"call_{n}_{i}")
                said = call.function.arguments
                function = {"name": call.function.name, "arguments": said if isinstance(said, str) else dumps(said)}
                row["tool_calls"].append({"id": open_calls[-1], "type": "function", "function": function})
        if message.role == "tool":
            first = open_calls.pop(0) if open_calls else f"call_{n}"
            row["tool_call_id"] = message.tool_call_id or first
            if message.tool_name:
                row["name"] = message.tool_name
        rows.append(row)
    return rows


def seconds(said: float | str | None) -> float | None:
    """A duration as Go writes it (10m, 1h30m, 500ms) or a number of seconds; below 0: for ever. Raises OptionError."""
    if said is None:
        return None
    found = duration(said) if isinstance(said, str) else float(said)
    if found is None or found != found:
        raise OptionError(f"keep_alive is {said!r:.40}; expected seconds, or a duration like 10m.")
    return found if found < LONGEST else -1.0


def duration(text: str) -> float | None:
    """Seconds; None where the text is no duration."""
    sign, text = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    if re.fullmatch(r"\d+(\.\d*)?", text, re.ASCII):
        return sign * float(text)
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", text, re.ASCII)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sign * sum(float(number) * UNITS[unit] for number, unit in parts)


def in_stream(error: Exception) -> bytes:
    """An error as the last line of a stream."""
    return f"{dumps({'error': str(told(error))})}\n".encode()
