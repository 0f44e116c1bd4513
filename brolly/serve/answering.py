"""One request for a response: read, prepared, written by a scribe, kept; with a client who waits or without."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any
from uuid import uuid4

from fastapi import Request
from fastapi.responses import Response

from brolly.errors import Busy, ContextTooLong
from brolly.serve.app import house
from brolly.serve.ask import Thinking, template_of
from brolly.serve.desk import desk, owner_of
from brolly.serve.elsewhere import Elsewhere, prepared, reads_of, thought
from brolly.serve.errors import Refused, noted
from brolly.serve.items import given_items, messages_of_items, options_of, tools_of_response, wants_logprobs
from brolly.serve.provenance import provenance
from brolly.serve.scribe import Scribe
from brolly.serve.searching import Searched, Searching
from brolly.serve.store import Stored
from brolly.serve.streams import Pieces
from brolly.serve.tell import reply, share
from brolly.serve.threads import in_turn
from brolly.serve.wire.responses import ResponseRequest
from brolly.verbs import Usage

FINISHED = ("completed", "failed", "cancelled", "incomplete")


class Answering:
    """One request: read, written by a scribe, kept, told."""

    def __init__(self, body: ResponseRequest, request: Request) -> None:
        self.body, self.house, self.desk, self.owner = body, house(request), desk(request), owner_of(request)
        for name in ("prompt", "moderation"):
            if getattr(body, name) is not None:
                raise Refused(f"{name} is not served here; leave it out.", param=name)
        said = body.conversation
        self.conversation = said if isinstance(said, str) or said is None else said.id
        if self.conversation and body.previous_response_id:
            raise Refused(
                "previous_response_id and conversation both say what came before; leave one of them out.",
                param="previous_response_id",
            )
        self.kept = body.store is not False
        if body.background and not self.kept:
            raise Refused("A response in the background is read later, so it must be stored.", param="store")
        self.options = options_of(body)
        self.tools, self.choice = tools_of_response(body.tools, body.tool_choice)
        told = body.reasoning.summary if body.reasoning else None
        self.thinking = Thinking(body.reasoning.effort if body.reasoning else None, told=told is not None)
        self.template = template_of(body.chat_template_kwargs)
        self.priority = min(0, -(body.priority or 0), -1 if body.service_tier == "flex" else 0)
        self.user = share(body.user)
        self.headers: dict[str, str] = {}
        self.response = self._response()
        self.scribe = Scribe(self.response, logprobs=wants_logprobs(body))
        self.items: list[dict[str, Any]] = []
        self.before: list[dict[str, Any]] = []  # items of the responses that this one continues
        self.log: list[bytes] = []
        self.task: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._stopped = False
        self.searching = Searching.of(body, request)
        self.searched: Searched | None = None

    @property
    def stored(self) -> Stored:
        return Stored(self.response, self.items, self.owner, self.log)

    async def read(self) -> None:
        """The items of this request and of those before it. Raises Refused."""
        body, previous = self.body, self.body.previous_response_id
        given = [] if isinstance(body.input, str) else body.input
        referring = any(item.type == "item_reference" or not (item.type or item.role) for item in given)
        store = await self.desk.store() if previous or referring else None
        if store and previous:
            chain = await asyncio.to_thread(store.chain, previous, self.owner)
            if chain is None:
                raise Refused(
                    f"Previous response with id '{previous:.80}' not found, or one that it continues.",
                    code="previous_response_not_found", param="previous_response_id",
                )  # fmt: skip
            self.before = [item for one in chain for item in (*one.input, *one.response["output"])]
        if self.conversation:
            self.before = (await self.desk.conversation(self.conversation, self.owner)).items
        known = {item["id"]: item for item in self.before}
        find = (lambda id: known.get(id) or store.item(id, self.owner)) if store else known.get
        self.items = await in_turn(given_items, body.input, find)
        if not self.items and not self.before:
            raise Refused("There is no input.", param="input")

    def prepare(self, model: Any, adapter: str | None) -> Any:
        """The job, by reading the conversation with the model's template, which takes its time; or the ask."""
        messages = messages_of_items([*self.before, *self.items], reads_of(model))
        if isinstance(model, Elsewhere):
            model.plain(self.body.text.verbosity if self.body.text else None)
        if self.body.instructions:
            messages.insert(0, {"role": "system", "content": self.body.instructions})
        if self.searched is not None:
            self.searched.show(messages, model)
        if self.body.truncation != "auto" or isinstance(model, Elsewhere):
            return self._ask(model, adapter, messages)
        # each point at which the conversation may begin, but for its instructions: never with a tool's answer
        starts = [0, *(at for at in range(1, len(messages)) if messages[at]["role"] != "tool")]
        wanted = min(self.body.max_output_tokens or 16, 1024)

        def fits(start: int) -> bool:
            try:
                job = self._ask(model, adapter, _from(messages, start))
            except ContextTooLong:
                return False
            return model.network.config.context - len(job.prompt) >= wanted

        first = bisect_left(starts, True, hi=len(starts) - 1, key=fits)
        return self._ask(model, adapter, _from(messages, starts[first]))

    def _ask(self, model: Any, adapter: str | None, messages: list[dict[str, Any]]) -> Any:
        return model.prepare_chat(
            messages, tools=self.tools, tool_choice=self.choice, adapter=adapter,
            parallel_tool_calls=self.body.parallel_tool_calls is not False, priority=self.priority, user=self.user,
            **self.options, **thought(model, self.thinking, self.template),
        )  # fmt: skip

    async def write(self) -> AsyncGenerator[list[bytes], None]:
        """The events, as they come; the last ones when the response is kept."""
        begun = False
        if self.kept:
            await self.desk.store()  # before any work, if there is none
        try:
            if self.searching is not None:  # before the model is held, as the embedder may need its room
                if not self.items:
                    await self.read()
                self.searched = await self.searching.search([*self.before, *self.items])
            async with self.house.use(self.body.model, "chat", self.priority) as use:
                origin = provenance(use)
                self.headers.update(origin.headers)
                if not self.items:
                    await self.read()
                job = await prepared(self.prepare, use.model, use.adapter)
                self.response["system_fingerprint"] = origin.fingerprint
                for name in ("temperature", "top_p"):
                    chosen = getattr(job.options, name)
                    self.response[name] = 1.0 if chosen is None else chosen
                self.scribe.tokenizer = use.model.tokenizer
                reason, usage = "stop", Usage(len(job.prompt), 0)
                async with Pieces(use.model, job, stream=bool(self.body.stream)) as pieces:
                    begun = True
                    begun_events = [*([] if self.task else self.scribe.begin()), *self.scribe.start()]
                    if self.searched is not None:
                        begun_events += self.scribe.search(self.searched)
                    yield self._note(begun_events)
                    async for batch in pieces.batches():
                        yield self._note([event for piece in batch for event in self.scribe.push(piece)])
                        reason = batch[-1].finish_reason or reason
                        usage = batch[-1].usage or usage
            last = self._note(self.scribe.end(reason, usage))
            if self.conversation:
                store, more = await self.desk.store(), [*self.items, *self.response["output"]]
                await asyncio.to_thread(store.lengthen, self.conversation, more, self.owner)
        except Exception as error:
            if not begun or not (self.body.stream or self.body.background):
                raise
            noted(error, "POST", "/v1/responses")
            last = self._note(self.scribe.fail(error))
        await self.keep()
        yield last

    async def keep(self) -> None:
        """Onto the disk, if it is to be stored."""
        if self.kept:
            await asyncio.to_thread((await self.desk.store()).put, self.stored)

    async def whole(self) -> Response:
        """All of it at once."""
        async for _ in self.write():
            pass
        return reply(self.response, self.headers)

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Event by event; several that wait go out in one write."""
        async for events in self.write():
            yield b"".join(events)

    async def leave(self) -> None:
        """Write in the background from here on; on return the response is kept as queued."""
        if len(self.desk.running) >= self.desk.settings.waiting:
            raise Busy(f"{len(self.desk.running)} responses are being written in the background; try again later.", 5)
        self.house.find(self.body.model)
        await self.read()
        self.response["status"] = "queued"
        self._note(self.scribe.begin())
        await self.keep()
        self.desk.running[self.response["id"]] = self
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            async for _ in self.write():
                pass
        except asyncio.CancelledError:
            if self._stopped:
                self.scribe.cancel()
            else:
                self._note(self.scribe.fail(Refused("The server stopped while it wrote this.", 503, "server_error")))
            await asyncio.shield(self.keep())
        except Exception as error:
            if self.response["status"] not in FINISHED:
                self._note(self.scribe.fail(error))
                await self.keep()
        finally:
            self.desk.running.pop(self.response["id"], None)
            self._more.set()

    async def stop(self) -> None:
        """Cancel what is written in the background; on return that is kept."""
        assert self.task is not None
        self._stopped = True
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task
        if self.response["status"] not in FINISHED:  # it had not even begun
            self.scribe.cancel()
            await self.keep()
            self.desk.running.pop(self.response["id"], None)

    async def follow(self, at: int = 0) -> AsyncGenerator[bytes, None]:
        """The events from a number on, as they come, to whoever listens."""
        yield b""
        while True:
            more = self._more
            if at < len(self.log):
                events, at = self.log[at:], len(self.log)
                yield b"".join(events)
            elif self.task is None or self.task.done() or self.response["id"] not in self.desk.running:
                return
            else:
                await more.wait()

    def _note(self, events: list[bytes]) -> list[bytes]:
        if self.kept:
            self.log += events
            woken, self._more = self._more, asyncio.Event()
            woken.set()
        return events

    def _response(self) -> dict[str, Any]:
        body = self.body
        reasoning = body.reasoning.model_dump() if body.reasoning else {"effort": None, "summary": None}
        format = body.text.format if body.text else None
        told = format.model_dump(by_alias=True, exclude_none=True) if format else {"type": "text"}
        tools = [
            {"description": None, "parameters": None, "strict": None, **tool.model_dump(exclude_none=True)}
            for tool in body.tools or ()
        ]
        choice: Any = body.tool_choice or "auto"
        if not isinstance(choice, str):
            choice = choice.model_dump(exclude_none=True)
        return {
            "id": f"resp_{uuid4().hex}", "object": "response", "created_at": int(time.time()), "completed_at": None,
            "status": "in_progress", "background": bool(body.background), "error": None, "incomplete_details": None,
            "instructions": body.instructions, "model": body.model, "output": [],
            "previous_response_id": body.previous_response_id,
            "conversation": {"id": self.conversation} if self.conversation else None,
            "max_output_tokens": body.max_output_tokens, "max_tool_calls": body.max_tool_calls,
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "top_p": 1.0 if body.top_p is None else body.top_p, "presence_penalty": body.presence_penalty or 0.0,
            "frequency_penalty": body.frequency_penalty or 0.0, "top_logprobs": body.top_logprobs or 0,
            "reasoning": reasoning, "text": {"format": told}, "tools": tools,
            "tool_choice": choice,
            "truncation": body.truncation or "disabled", "store": self.kept,
            "service_tier": "flex" if body.service_tier == "flex" else "default", "metadata": body.metadata or {},
            "user": body.user, "safety_identifier": body.safety_identifier, "prompt_cache_key": body.prompt_cache_key,
            "usage": None, "system_fingerprint": None,
        }  # fmt: skip


def _from(messages: list[dict[str, Any]], start: int) -> list[dict[str, Any]]:
    """The conversation from one of its messages on, and the instructions before it."""
    return [m for m in messages[:start] if m["role"] in ("system", "developer")] + messages[start:]
