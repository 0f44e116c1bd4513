"""OpenAI's older completions: prompts written on, echoed and scored, or filled in the middle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly.media.text.infill import infill
from brolly.remote.loop import together
from brolly.serve.app import house
from brolly.serve.ask import sampling
from brolly.serve.errors import Refused
from brolly.serve.provenance import Provenance, provenance
from brolly.serve.streams import DONE, Events, Pieces, Written, dumps, gathered, in_stream, unless_left
from brolly.serve.tell import finite, reply, share, total, usage_body
from brolly.serve.threads import in_turn
from brolly.serve.wire.common import streamed
from brolly.serve.wire.completions import Completion, CompletionRequest
from brolly.verbs import Piece, Score, Usage

if TYPE_CHECKING:
    from brolly.engine.job import Job

router = APIRouter(tags=["language"])
MOST_PROMPTS = 2048
JOBS = 64  # of one request that are written at a time


@router.post(
    "/v1/completions", response_model=Completion, responses=streamed(Completion, "text_completion objects, then [DONE]")
)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Write on from each prompt."""
    asked = Completing(body, request)
    if body.stream:
        return Events(asked.stream(), in_stream, asked.headers)
    return await unless_left(request, asked.whole())


class Completing:
    """One request: its prompts as jobs, and what was written as choices."""

    def __init__(self, body: CompletionRequest, request: Request) -> None:
        self.body, self.request = body, request
        self.id, self.created = f"cmpl-{uuid4().hex}", int(time.time())
        self.headers: dict[str, str] = {}
        self.n = body.n or 1
        if body.best_of is not None and body.best_of < self.n:
            raise Refused(f"best_of is {body.best_of} and n is {self.n}; best_of must not be less.", param="best_of")
        if body.stream and (body.best_of or 1) > self.n:
            raise Refused("best_of chooses when all are written, so it cannot be streamed.", param="best_of")
        if body.max_tokens == 0 and not body.echo:
            raise Refused("max_tokens is 0, so nothing would be written; set echo to score.", param="max_tokens")
        if body.suffix is not None and body.echo:
            raise Refused("echo shows a prompt as it stands, which suffix takes apart; leave one out.", param="suffix")
        self.options = sampling(body, 16 if body.max_tokens is None else body.max_tokens or 1, body.logprobs)
        self.prompts = prompts_of(body.prompt)
        self.priority = min(0, -(body.priority or 0))

    def prepare(self, model: Any, adapter: str | None) -> list[Job]:
        """A job for each prompt; takes its time."""
        common: dict[str, Any] = {
            "n": self.n, "best_of": self.body.best_of, "adapter": adapter, "priority": self.priority,
            "user": share(self.body.user), **self.options,
        }  # fmt: skip
        found = []
        for prompt in self.prompts:
            if self.body.suffix is not None:
                if not isinstance(prompt, str):
                    raise Refused("suffix goes with a prompt that is text, not tokens.", param="suffix")
                prompt = infill(model.tokenizer, prompt, self.body.suffix)
            elif isinstance(prompt, str) and self.body.add_special_tokens is False:
                prompt = model.tokenizer.encode(prompt, special=False, most=model.network.config.context)
            if not isinstance(prompt, str) and max(prompt, default=0) >= model.network.config.vocab_size:
                most = model.network.config.vocab_size - 1
                raise Refused(f"prompt holds {max(prompt)}; ids of this model go from 0 to {most}.", param="prompt")
            found.append(model.prepare(prompt, **common))
        return found

    async def whole(self) -> Response:
        """All of it at once."""
        async with house(self.request).use(self.body.model, "generate", self.priority) as use:
            origin = provenance(use)
            jobs = await in_turn(self.prepare, use.model, use.adapter)
            rows = await together((self.write(use.model, job) for job in jobs), JOBS)
            echoes = [await in_turn(self.echo, use.model, job) for job in jobs]
            told = partial(self.told, rows, echoes, Legacy(use.model.tokenizer, self.body), origin)
            return told() if self.body.logprobs is None else await asyncio.to_thread(told)  # maybe millions of numbers

    def told(
        self, rows: Sequence[Sequence[Written]], echoes: Sequence[Score | None], legacy: Legacy, origin: Provenance
    ) -> Response:  # fmt: skip
        written = [one for row in rows for one in row]
        usages = [total([one.usage for one in row]) for row in rows]
        found = {
            "id": self.id, "object": "text_completion", "created": self.created, "model": self.body.model,
            "choices": [legacy.choice(i, one, echoes[i // self.n]) for i, one in enumerate(written)],
            "usage": usage_body(_sum(usages)), "system_fingerprint": origin.fingerprint,
        }  # fmt: skip
        return reply(found, origin.headers)

    async def write(self, model: Any, job: Job) -> list[Written]:
        """What is written after one prompt; nothing where it is only to be scored."""
        if self.body.max_tokens == 0:
            return [Written(finish_reason="length", usage=Usage(len(job.prompt), 0)) for _ in range(job.n)]
        return await gathered(model, job)

    def echo(self, model: Any, job: Job) -> Score | None:
        """The prompt's own tokens, with their probabilities where they are asked for."""
        if not self.body.echo:
            return None
        if self.body.logprobs is None:
            return Score(list(job.prompt), [], [])
        found: Score = model.score(list(job.prompt), top=self.body.logprobs, adapter=job.adapter)
        return found

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Every prompt's answers side by side, chunk by chunk."""
        async with house(self.request).use(self.body.model, "generate", self.priority) as use:
            origin = provenance(use)
            self.headers.update(origin.headers)
            jobs = await in_turn(self.prepare, use.model, use.adapter)
            chunks = Chunks(self, origin.fingerprint, Legacy(use.model.tokenizer, self.body))
            if self.body.max_tokens == 0:
                yield b""
                for at, job in enumerate(jobs):
                    echo = await in_turn(self.echo, use.model, job)
                    usage = Usage(len(job.prompt), 0)
                    for k in range(self.n):
                        last = Piece("", finish_reason="length", index=k, usage=usage)
                        yield chunks.of(at, last, echo).encode()
            else:
                async for data in self._beside(use.model, jobs, chunks):
                    yield data
            yield chunks.end() + DONE

    async def _beside(self, model: Any, jobs: list[Job], chunks: Chunks) -> AsyncGenerator[bytes, None]:
        ready: asyncio.Queue[tuple[int, list[Piece], Score | None] | None | Exception] = asyncio.Queue()

        async def follow(at: int, job: Job) -> None:
            echo = await in_turn(self.echo, model, job)
            async with Pieces(model, job) as pieces:
                ready.put_nowait((at, [], None))
                async for batch in pieces.batches():
                    ready.put_nowait((at, batch, echo))

        async def all_of_them() -> None:
            try:
                await together((follow(at, job) for at, job in enumerate(jobs)), JOBS)
                ready.put_nowait(None)
            except Exception as error:
                ready.put_nowait(error)

        doing = asyncio.create_task(all_of_them())
        try:
            while (found := await ready.get()) is not None:
                if isinstance(found, Exception):
                    raise found
                at, batch, echo = found
                yield "".join([chunks.of(at, piece, echo) for piece in batch]).encode()
        finally:
            doing.cancel()


class Legacy:
    """The older shape of choices and log-probabilities."""

    def __init__(self, tokenizer: Any, body: CompletionRequest) -> None:
        self.tokenizer, self.wanted = tokenizer, body.logprobs
        self.by_id = bool(body.return_tokens_as_token_ids)

    def choice(self, index: int, written: Written, echo: Score | None) -> dict[str, Any]:
        before = self.text(echo)
        return {
            "text": before + written.text, "index": index,
            "logprobs": self.logprobs(written, echo, 0), "finish_reason": written.finish_reason,
        }  # fmt: skip

    def text(self, echo: Score | None) -> str:
        return self.tokenizer.decode(echo.tokens) if echo else ""

    def logprobs(self, found: Written | Piece, echo: Score | None, offset: int) -> dict[str, Any] | None:
        """Lists beside each other; `offset` is where the first token's text begins. The token that ended the answer
        is told, too, as OpenAI does: evaluators leave out what stands last."""
        if self.wanted is None:
            return None
        rows: list[tuple[int, float | None, dict[int, float]]] = []
        if echo:
            rows += zip(echo.tokens, echo.logprobs, echo.top, strict=True)
        rows += [(one.token, one.logprob, one.top) for one in found.logprobs]
        rows += [(found.end.token, found.end.logprob, found.end.top)] if found.end else []
        tokens = [self.name(token) for token, _, _ in rows]
        offsets, words = [], self.tokenizer.stream()
        for token, _, _ in rows:
            offsets.append(offset)
            offset += len(words.push(token))
        return {
            "tokens": tokens,
            "token_logprobs": [None if p is None else finite(p) for _, p, _ in rows],
            "top_logprobs": [self.top(*row) for row in rows] if self.wanted else None,
            "text_offset": offsets,
        }  # fmt: skip

    def top(self, token: int, logprob: float | None, top: dict[int, float]) -> dict[str, float] | None:
        """The likeliest tokens and the one that stands there; of two spelled alike, the likelier."""
        if logprob is None:
            return None
        found: dict[str, float] = {}
        for i, p in ({token: logprob} | top).items():
            name = self.name(i)
            found[name] = max(finite(p), found.get(name, finite(p)))
        return found

    def name(self, token: int) -> str:
        return f"token_id:{token}" if self.by_id else self.tokenizer.token_text(token)


class Chunks:
    """Pieces → text_completion events."""

    def __init__(self, asked: Completing, fingerprint: str, legacy: Legacy) -> None:
        self.n, self.legacy = asked.n, legacy
        options = asked.body.stream_options
        self.usage = bool(options and options.include_usage)
        said = {
            "id": asked.id, "object": "text_completion", "created": asked.created, "model": asked.body.model,
            "system_fingerprint": fingerprint,
        }  # fmt: skip
        self.head = f'data: {dumps(said)[:-1]},"choices":['
        self.tail = '],"usage":null}\n\n' if self.usage else "]}\n\n"
        self.offsets: dict[int, int] = {}
        self.usages: dict[int, list[Usage | None]] = {}

    def of(self, at: int, piece: Piece, echo: Score | None) -> str:
        """The event of one piece of the prompt `at`; the first of each answer shows the echo."""
        index, text = at * self.n + piece.index, piece.text
        begun = index in self.offsets
        if not begun:
            text = self.legacy.text(echo) + text
        logprobs = "null"
        if self.legacy.wanted is not None:
            found = self.legacy.logprobs(piece, None if begun else echo, self.offsets.get(index, 0))
            logprobs = dumps(found)
        self.offsets[index] = self.offsets.get(index, 0) + len(text)
        reason = f'"{piece.finish_reason}"' if piece.finish_reason else "null"
        if piece.finish_reason:
            self.usages.setdefault(at, []).append(piece.usage)
        if not text and reason == "null" and not piece.logprobs:
            return ""
        said = f'{{"text":{dumps(text)},"index":{index},"logprobs":{logprobs},"finish_reason":{reason}}}'
        return self.head + said + self.tail

    def end(self) -> bytes:
        """The usage, where it was asked for."""
        if not self.usage:
            return b""
        found = usage_body(_sum([total(some) for some in self.usages.values()]))
        return f'{self.head}],"usage":{dumps(found)}}}\n\n'.encode()


def prompts_of(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """The prompts one by one. Raises Refused."""
    found: list[Any] = [given]
    if isinstance(given, list) and not (given and isinstance(given[0], int)):
        found = list(given)
    if not found or len(found) > MOST_PROMPTS:
        raise Refused(f"prompt holds {len(found)} prompts; expected 1 to {MOST_PROMPTS:,}.", param="prompt")
    return found


def _sum(usages: Sequence[Usage]) -> Usage:
    """Of several prompts."""
    found = Usage(0, 0)
    for u in usages:
        found = replace(
            found, prompt_tokens=found.prompt_tokens + u.prompt_tokens,
            completion_tokens=found.completion_tokens + u.completion_tokens,
            cached_tokens=found.cached_tokens + u.cached_tokens,
            reasoning_tokens=found.reasoning_tokens + u.reasoning_tokens,
        )  # fmt: skip
    return found
