"""How likely a language model finds texts: tokens' log-probabilities of a text, or of what follows a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brolly.errors import ContextTooLong, TemplateError
from brolly.rows import Completion, Conversation, Text


@dataclass(frozen=True)
class Told:
    """Σ log p (nats) of tokens that stand for n_bytes of text, and whether each was the likeliest at its place."""

    logprob: float
    n_tokens: int
    n_bytes: int
    greedy: bool = False

    def __add__(self, other: Told) -> Told:
        return Told(
            self.logprob + other.logprob, self.n_tokens + other.n_tokens, self.n_bytes + other.n_bytes,
            self.greedy and other.greedy,
        )  # fmt: skip


Part = tuple[list[int], list[int], int]  # tokens before, tokens told of, and the bytes that these are


class Likelihood:
    """Of a model's texts, by `Model.score`."""

    def __init__(self, model: Any) -> None:
        self.model, self.tokenizer = model, model.tokenizer
        self.context: int = model.network.config.context
        start = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
        self.start = [start] if start is not None else []

    def of(self, value: Text | Completion | Conversation) -> Told:
        """A text as a whole, a completion given its prompt, a conversation's answers given what stands before each.

        Raises ContextTooLong, TemplateError.
        """
        if isinstance(value, Text):
            return self.text(value.text)
        parts = [self.completion(value)] if isinstance(value, Completion) else self.answers(value)
        found = [self.continuation(*part) for part in parts]
        return sum(found[1:], found[0])

    def text(self, text: str) -> Told:
        """Every token of a text, the first one given the model's start token.

        A text longer than the context passes in windows that overlap by half, and each token counts in the first
        window that has it, so that all but the first window's are told with half a context before them or more.
        """
        ids = self.model.prompt_ids(text, None)
        ids = ids if ids[: len(self.start)] == self.start or not self.start else [*self.start, *ids]
        total, told = Told(0.0, 0, len(text.encode()), True), 1
        while told < len(ids):
            begin = max(0, told - self.context // 2) if told > 1 else 0
            window = ids[begin : begin + self.context]
            total += self.tokens(window, told - begin)
            told = begin + len(window)
        return total

    def continuation(self, before: Sequence[int], after: Sequence[int], n_bytes: int = 0) -> Told:
        """Tokens behind others. Raises ContextTooLong."""
        ids = [*(before or self.start), *after]
        if len(ids) > self.context:
            raise ContextTooLong(f"it has {len(ids):,} tokens, and the model holds {self.context:,}")
        found = self.tokens(ids, len(ids) - len(after))
        return Told(found.logprob, found.n_tokens, n_bytes, found.greedy)

    def tokens(self, ids: Sequence[int], first: int) -> Told:
        """Those from the `first` one on, each given all before it."""
        score = self.model.score(ids, top=1)
        own = [p for p in score.logprobs[first:] if p is not None]
        best = all(i in top for i, top in zip(score.tokens[first:], score.top[first:], strict=True))
        return Told(float(sum(own)), len(own), 0, best)

    def completion(self, value: Completion) -> Part:
        """The prompt's tokens as `generate` reads them, and the completion's with the token that ends it."""
        before = self.model.prompt_ids(value.prompt, None)
        after = self.behind(before, value.prompt, value.completion)
        end = self.tokenizer.eos_id if self.tokenizer.eos_id is not None else min(self.model.stop_ids, default=None)
        return before, after + ([] if end is None else [end]), len(value.completion.encode())

    def behind(self, before: list[int], prompt: str, completion: str) -> list[int]:
        """A completion's tokens behind a prompt's."""
        whole: list[int] = self.model.prompt_ids(prompt + completion, None)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        found: list[int] = self.tokenizer.encode(completion, special=False)  # a token spans the two
        return found

    def answers(self, value: Conversation) -> list[Part]:
        """Each of the assistant's messages that count, as the template writes it behind those before it."""
        messages = bare(value.messages)
        tools = list(value.tools) or None
        parts: list[Part] = []
        for i, message in enumerate(value.messages):
            if message["role"] != "assistant" or not message.get("weight", 1):
                continue
            begun = self.tokenizer.prompt(messages[:i], tools=tools, add_generation_prompt=True)
            whole = self.tokenizer.prompt(messages[: i + 1], tools=tools, add_generation_prompt=False)
            at = next(
                (n for n, (a, b) in enumerate(zip(begun, whole, strict=False)) if a != b), min(len(begun), len(whole))
            )
            before = self.tokenizer.encode(whole[:at], special=False)
            ids = self.tokenizer.encode(whole, special=False)
            parted = ids[: len(before)] != before
            after = self.tokenizer.encode(whole[at:], special=False) if parted else ids[len(before) :]
            while after and after[-1] not in self.model.stop_ids and any(i in self.model.stop_ids for i in after):
                after.pop()  # a line's end that templates write behind an answer's own
            if not after:
                raise TemplateError("the chat template writes nothing for the answer")
            parts.append((before, after, len((message.get("content") or whole[at:]).encode())))
        return parts


def bare(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages without their weights, which templates do not know."""
    return [{key: value for key, value in message.items() if key != "weight"} for message in messages]
