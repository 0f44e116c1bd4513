"""OpenAI's file_search in a response: what was asked is looked up, shown to the model as quoted data, and cited."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from fastapi import Request

from brolly.adapt.prompt.quote import quoter_of
from brolly.adapt.retrieve.answer import SYSTEM, layout
from brolly.adapt.retrieve.cited import CITED, Checked, numbers
from brolly.adapt.retrieve.context import Source, harmless
from brolly.adapt.retrieve.embedder import about_tokens
from brolly.serve.desk import owner_of
from brolly.serve.elsewhere import Elsewhere
from brolly.serve.shelves import Passage, Shelf, Shelves
from brolly.serve.wire.responses import ResponseRequest, ResponseTool
from brolly.serve.words.vector_stores import allowing, shelves

MOST = 20  # passages, where nothing is said
CONTEXT = 32_768  # tokens of a model of which nobody tells


@dataclass
class Searching:
    """The searches that a request asks for."""

    inside: Shelves
    tools: list[tuple[ResponseTool, list[Shelf]]]
    told: bool  # whether what was found is told in full

    @classmethod
    def of(cls, body: ResponseRequest, request: Request) -> Searching | None:
        """None where no file is searched. Raises Refused where a store is not there."""
        owner = owner_of(request)
        tools = [tool for tool in body.tools or () if tool.type == "file_search"]
        if not tools:
            return None
        inside = shelves(request)
        found = [(tool, [inside.find(id, owner) for id in tool.vector_store_ids or ()]) for tool in tools]
        return cls(inside, found, "file_search_call.results" in (body.include or ()))

    async def search(self, items: Sequence[dict[str, Any]]) -> Searched:
        """Look up what the last message of the user asks."""
        question = next((_words(item) for item in reversed(items) if item.get("role") == "user"), "")
        passages: list[Passage] = []
        for tool, stores in self.tools:
            least = tool.ranking_options.score_threshold or 0.0 if tool.ranking_options else 0.0
            if question.strip():
                most = tool.max_num_results or MOST
                passages += await self.inside.search(stores, question[:8192], most, allowing(tool.filters), least)
        return Searched(question, passages, self.told)


class Searched:
    """What was found for a question. `checked` lets through citations of what was shown alone."""

    def __init__(self, question: str, passages: Sequence[Passage], told: bool) -> None:
        self.passages = list(passages)
        self.checked = Checked(len(self.passages))
        rows = [
            {"file_id": one.file_id, "filename": one.filename, "score": round(one.score, 6), "text": one.text,
             "attributes": one.attributes}
            for one in passages
        ]  # fmt: skip
        self.item: dict[str, Any] = {
            "type": "file_search_call", "id": f"fs_{uuid4().hex}", "queries": [question[:8192]], "status": "completed",
            "results": rows if told else None,
        }  # fmt: skip

    def show(self, messages: list[dict[str, Any]], model: Any) -> None:
        """Put what was found before the last message of the user, as much as a third of the context holds."""
        away, shown = isinstance(model, Elsewhere), []
        quoter: Any = quoter_of(model)
        control = () if away else model.tokenizer.control.keys()
        room = ((model.traits.context or CONTEXT) if away else model.network.config.context) // 3
        for number, one in enumerate(self.passages, 1):
            words = harmless(one.text, control, quoter)
            text = layout(Source(number, one.hit, words, one.hit.start, one.hit.end), control, quoter)
            plain = {"special": False, "parse_special": False}
            room -= about_tokens(text) if away else len(model.tokenizer.encode(text, **plain))
            if room < 0:
                break
            shown.append(text)
        self.checked.n_sources = len(shown)
        at = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=None)
        if at is not None:
            about = "\n\n".join(shown) if shown else "(The files hold nothing about this.)"
            asked, before = messages[at]["content"], f"{about}\n\nQuestion: "
            with_parts = [{"type": "text", "text": before}, *asked] if isinstance(asked, list) else before + asked
            messages[at] = messages[at] | {"content": with_parts}
            if messages[0]["role"] == "system" and isinstance(messages[0]["content"], str):
                messages[0] = messages[0] | {"content": f"{messages[0]['content']}\n\n{SYSTEM}"}
            else:
                messages.insert(0, {"role": "system", "content": SYSTEM})

    def annotations(self, text: str) -> list[dict[str, Any]]:
        """OpenAI's file citations, where a text cites by number."""
        found = []
        for mark in CITED.finditer(text):
            for number in numbers(re.sub(r"[^\d,–-]", "", mark[1])):
                if 1 <= number <= self.checked.n_sources:
                    one = self.passages[number - 1]
                    found.append(
                        {"type": "file_citation", "index": mark.end(), "file_id": one.file_id, "filename": one.filename}
                    )
        return found


def _words(item: dict[str, Any]) -> str:
    content = item.get("content") or ""
    return content if isinstance(content, str) else " ".join(str(part.get("text", "")) for part in content)
