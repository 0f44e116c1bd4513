"""Pieces → a response of OpenAI's and the events that tell it; whole or streamed, it is the same writing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from brolly.serve.errors import told
from brolly.serve.seals import meaning, sealed
from brolly.serve.searching import Searched
from brolly.serve.streams import event
from brolly.serve.tell import token_rows
from brolly.verbs import Piece, TokenLogprob, ToolDelta, Usage


class Scribe:
    """Writes one response. `response` is its state at any time; each method returns the events of what it did."""

    def __init__(self, response: dict[str, Any], tokenizer: Any = None, logprobs: bool = False) -> None:
        self.response, self.tokenizer, self.logprobs = response, tokenizer, logprobs
        self.number = 0  # of the next event
        self.searched: Searched | None = None  # what the answer may cite
        self._item: dict[str, Any] | None = None  # the one that grows; the last of the output
        self._call = -1  # the tool call's index, where that is one
        self._opaque: list[Mapping[str, Any]] = []  # what a vendor wants back, and no item has yet

    def begin(self) -> list[bytes]:
        """The response is there."""
        queued = self.response["status"] == "queued"
        return [self._lifecycle("created"), *([self._lifecycle("queued")] if queued else [])]

    def start(self) -> list[bytes]:
        """It is being written."""
        self.response["status"] = "in_progress"
        return [self._lifecycle("in_progress")]

    def push(self, piece: Piece) -> list[bytes]:
        """More was written."""
        found: list[bytes] = []
        if piece.reasoning:
            found += self._open("reasoning")
            found.append(self._text("reasoning_text", piece.reasoning))
        self._opaque += piece.opaque
        text = self.searched.checked.push(piece.text) if self.searched else piece.text
        if text:
            found += self._open("message")
            found.append(self._text("output_text", text, piece.logprobs))
        for delta in piece.calls:
            found += self._called(delta)
        return found

    def search(self, searched: Searched) -> list[bytes]:
        """Files were searched for it; `searched` is told as an item of the output."""
        self.searched, item = searched, searched.item
        at = len(self.response["output"])
        self.response["output"].append(item)
        place = {"output_index": at, "item_id": item["id"]}
        found = [
            self._event("output_item.added", output_index=at, item=item | {"status": "in_progress", "results": None})
        ]
        found += [
            self._event(f"file_search_call.{what}", **place) for what in ("in_progress", "searching", "completed")
        ]
        return [*found, self._event("output_item.done", output_index=at, item=item)]

    def end(self, reason: str, usage: Usage) -> list[bytes]:
        """Nothing more will come."""
        why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(reason)
        cut, response = why is not None, self.response
        found: list[bytes] = []
        if self.searched and (rest := self.searched.checked.finish()):
            found += [*self._open("message"), self._text("output_text", rest)]
        if meaning(self._opaque) and (self._item is None or self._item["type"] != "reasoning"):
            found += self._open("reasoning")  # which seals it as it is closed
        found += [] if self._item or response["output"] else self._open("message")
        found += self._close("incomplete" if cut else "completed")
        response["usage"] = {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": usage.cached_tokens,
                "cache_write_tokens": usage.written_tokens,
            },
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        }
        response["status"] = "incomplete" if cut else "completed"
        if cut:
            response["incomplete_details"] = {"reason": why}
        else:
            response["completed_at"] = int(time.time())
        return [*found, self._lifecycle(response["status"])]

    def fail(self, error: BaseException) -> list[bytes]:
        """It went wrong."""
        refused = told(error)
        code = {429: "rate_limit_exceeded"}.get(refused.status, "invalid_prompt" if refused.status < 500 else "")
        self._close("incomplete")
        self.response["status"] = "failed"
        self.response["error"] = {"code": code or "server_error", "message": str(refused)}
        return [self._lifecycle("failed")]

    def cancel(self) -> None:
        """It was asked to stop, which has no event."""
        self._close("incomplete")
        self.response["status"] = "cancelled"

    def _open(self, kind: str) -> list[bytes]:
        """An item of this kind that grows: the one that does, or a new one."""
        if self._item is not None and self._item["type"] == kind:
            return []
        found = self._close("completed")
        item: dict[str, Any] = {"type": kind, "id": f"{'msg' if kind == 'message' else 'rs'}_{uuid4().hex}"}
        own: dict[str, Any] = {"summary": []} if kind == "reasoning" else {"role": "assistant"}
        item |= {**own, "status": "in_progress", "content": []}
        found += self._add(item)
        part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
        if kind == "message":
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        found.append(self._event("content_part.added", **self._place(), content_index=0, part=part))
        item["content"].append(part)
        return found

    def _add(self, item: dict[str, Any]) -> list[bytes]:
        self._item = item
        self.response["output"].append(item)
        at = len(self.response["output"]) - 1
        return [self._event("output_item.added", output_index=at, item=item)]

    def _text(self, kind: str, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> bytes:
        assert self._item is not None
        part = self._item["content"][0]
        part["text"] += text
        more: dict[str, Any] = {}
        if kind == "output_text":
            more["logprobs"] = token_rows(logprobs, self.tokenizer) if self.logprobs else []
            part["logprobs"] += more["logprobs"]
        return self._event(f"{kind}.delta", **self._place(), content_index=0, delta=text, **more)

    def _called(self, delta: ToolDelta) -> list[bytes]:
        found: list[bytes] = []
        if self._item is None or self._item["type"] != "function_call" or self._call != delta.index:
            found = self._close("completed")
            self._call = delta.index
            found += self._add(
                {
                    "type": "function_call",
                    "id": f"fc_{uuid4().hex}",
                    "call_id": delta.id or f"call_{uuid4().hex}",
                    "name": delta.name or "",
                    "arguments": "",
                    "status": "in_progress",
                }
            )
        assert self._item is not None
        if delta.arguments:
            self._item["arguments"] += delta.arguments
            found.append(self._event("function_call_arguments.delta", **self._place(), delta=delta.arguments))
        return found

    def _close(self, status: str) -> list[bytes]:
        """The item that grew is whole, or cut off."""
        item, found = self._item, []
        if item is None:
            return []
        item["status"], place = status, self._place()
        if item["type"] == "reasoning":
            seal, self._opaque = sealed(self._opaque), []
            item |= {"encrypted_content": seal} if seal else {}
        if item["type"] == "function_call":
            said = {"arguments": item["arguments"], "name": item["name"]}
            found.append(self._event("function_call_arguments.done", **place, **said))
        else:
            part = item["content"][0]
            kind = part["type"]
            if self.searched and kind == "output_text":
                part["annotations"] = self.searched.annotations(part["text"])
                for at, one in enumerate(part["annotations"]):
                    said = {"content_index": 0, "annotation_index": at, "annotation": one}
                    found.append(self._event("output_text.annotation.added", **place, **said))
            more = {"logprobs": part["logprobs"]} if kind == "output_text" else {}
            found.append(self._event(f"{kind}.done", **place, content_index=0, text=part["text"], **more))
            found.append(self._event("content_part.done", **place, content_index=0, part=part))
        found.append(self._event("output_item.done", output_index=place["output_index"], item=item))
        self._item = None
        return found

    def _place(self) -> dict[str, Any]:
        assert self._item is not None
        return {"item_id": self._item["id"], "output_index": len(self.response["output"]) - 1}

    def _lifecycle(self, what: str) -> bytes:
        return self._event(what, response=self.response)

    def _event(self, what: str, **said: Any) -> bytes:
        kind = f"response.{what}"
        self.number += 1
        return event({"type": kind, "sequence_number": self.number - 1, **said}, kind)
