"""How likely a language model finds texts: tokens' log-probabilities of a text, or of what follows a prompt.

B sequences side by side, T tokens of the longest. None is masked: a causal network's token knows nothing of those
behind it, so that what fills a shorter row changes no number that is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any, NamedTuple

import torch

from brolly.engine.adapters import Adapter, applied, logits_of
from brolly.engine.cache import Causal
from brolly.errors import BrollyError, ContextTooLong, TemplateError
from brolly.rows import Completion, Conversation, Text

TOKENS = 4096  # of a pass, fillers counted
CHUNK = 512  # positions whose logits exist at one time


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


class Part(NamedTuple):
    """Tokens, the place of the first one that is told of, and how many bytes those are."""

    ids: list[int]
    first: int
    n_bytes: int = 0


class Likelihood:
    """Of a language model's texts."""

    def __init__(self, model: Any) -> None:
        self.model, self.tokenizer = model, model.tokenizer
        self.context: int = model.network.config.context
        start = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
        self.start = [start] if start is not None else []

    def of(self, values: Sequence[Text | Completion | Conversation]) -> list[Told | BrollyError]:
        """Texts as wholes, completions given their prompts, conversations' answers given what stands before each; an
        error in the place of what the model cannot hold, or its template not write."""
        parts: list[list[Part] | BrollyError] = []
        for value in values:
            try:
                parts.append(self.parts(value))
            except BrollyError as error:
                parts.append(error)
        found = iter(self.told([part for some in parts if isinstance(some, list) for part in some]))
        out: list[Told | BrollyError] = []
        for some in parts:
            if isinstance(some, BrollyError):
                out.append(some)
            else:
                each = [next(found) for _ in some]
                out.append(sum(each[1:], each[0]))
        return out

    def parts(self, value: Text | Completion | Conversation) -> list[Part]:
        """What is told of a value, as the network is given it. Raises ContextTooLong, TemplateError."""
        if isinstance(value, Text):
            return list(self.windows(value.text))
        return [self.completion(value)] if isinstance(value, Completion) else self.answers(value)

    def windows(self, text: str) -> Iterator[Part]:
        """Every token of a text, the first one given the model's start token.

        A text longer than the context passes in windows that overlap by half, and each token counts in the first
        window that has it, so that all but the first window's are told with half a context before them or more.
        """
        ids = self.model.prompt_ids(text, None)
        ids = ids if ids[: len(self.start)] == self.start or not self.start else [*self.start, *ids]
        if len(ids) < 2:
            raise ContextTooLong("it is one token, and nothing stands before it that would tell of it")
        told, n_bytes = 1, len(text.encode())
        while told < len(ids):
            begin = max(0, told - self.context // 2) if told > 1 else 0
            window = ids[begin : begin + self.context]
            yield Part(window, told - begin, n_bytes)
            told, n_bytes = begin + len(window), 0

    def behind(self, before: Sequence[int], after: Sequence[int], n_bytes: int = 0) -> Part:
        """Tokens behind others. Raises ContextTooLong."""
        ids = [*(before or self.start), *after]
        if len(ids) > self.context:
            raise ContextTooLong(f"it has {len(ids):,} tokens, and the model holds {self.context:,}")
        return Part(ids, len(ids) - len(after), n_bytes)

    def told(self, parts: Sequence[Part]) -> list[Told]:
        """Of each part, by passes of several that are about as long."""
        found: list[Told | None] = [None] * len(parts)
        name = self.model.prepare(self.start or parts[0].ids[:1]).adapter if parts else None
        adapter = self.model.adapter(name) if name is not None else None
        if adapter is not None and not isinstance(adapter, Adapter):
            return [self._alone(part) for part in parts]
        batch: list[int] = []
        for i in sorted(range(len(parts)), key=lambda i: len(parts[i].ids)):
            if batch and (len(batch) + 1) * len(parts[i].ids) > TOKENS:
                self._pass(batch, parts, adapter, found)
                batch = []
            batch.append(i)
        if batch:
            self._pass(batch, parts, adapter, found)
        return [one for one in found if one is not None]

    @torch.inference_mode()
    def _pass(
        self, batch: Sequence[int], parts: Sequence[Part], adapter: Adapter | None, found: list[Told | None]
    ) -> None:
        """Several parts side by side."""
        network, device = self.model.network, self.model.device
        longest = max(len(parts[i].ids) for i in batch)
        ids = torch.zeros(len(batch), longest, dtype=torch.long)  # (B, T)
        for row, i in enumerate(batch):
            ids[row, : len(parts[i].ids)] = torch.tensor(parts[i].ids)
        ids = ids.to(device)
        places = torch.arange(longest, device=device).expand(len(batch), -1)
        with applied([(adapter, slice(None))]) if adapter is not None else nullcontext():
            hidden = network(ids, places, Causal(network.config))  # (B, T, C)
        rows = [(row, at) for row, i in enumerate(batch) for at in range(parts[i].first, len(parts[i].ids))]
        who, where = torch.tensor(rows, device=device).T
        hidden, targets = hidden[who, where - 1], ids[who, where]
        own, best = [], []
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            some = hidden[part]
            shares = logits_of(network, some, [adapter] * len(some)).log_softmax(-1)
            own += shares.gather(-1, targets[part, None])[:, 0].double().tolist()
            best += (shares.argmax(-1) == targets[part]).tolist()
        at = 0
        for i in batch:
            n = len(parts[i].ids) - parts[i].first
            found[i] = Told(sum(own[at : at + n]), n, parts[i].n_bytes, all(best[at : at + n]))
            at += n

    def _alone(self, part: Part) -> Told:
        """By `Model.score`, which knows every kind of adapter."""
        score = self.model.score(part.ids, top=1)
        own = [p for p in score.logprobs[part.first :] if p is not None]
        best = [i in top for i, top in zip(score.tokens[part.first :], score.top[part.first :], strict=True)]
        return Told(float(sum(own)), len(own), part.n_bytes, all(best))

    def completion(self, value: Completion) -> Part:
        """The completion's tokens with the one that ends it, behind the prompt's as `generate` reads them."""
        before = self.model.prompt_ids(value.prompt, None)
        after = self.continued(before, value.prompt, value.completion)
        end = self.tokenizer.eos_id if self.tokenizer.eos_id is not None else min(self.model.stop_ids, default=None)
        return self.behind(before, after + ([] if end is None else [end]), len(value.completion.encode()))

    def continued(self, before: list[int], prompt: str, completion: str) -> list[int]:
        """A completion's tokens behind a prompt's."""
        whole: list[int] = self.model.prompt_ids(prompt + completion, None)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        found: list[int] = self.tokenizer.encode(completion, special=False)  # a token spans the two
        return found

    def answers(self, value: Conversation) -> list[Part]:
        """Each of the assistant's messages that count, as the template writes it behind those before it."""
        messages = value.bare
        tools = list(value.tools) or None
        parts: list[Part] = []
        for i, message in enumerate(value.messages):
            if message["role"] != "assistant" or not message.get("weight", 1):
                continue
            begun = self.tokenizer.prompt(messages[:i], tools=tools, add_generation_prompt=True)
            whole = self.tokenizer.prompt(messages[: i + 1], tools=tools, add_generation_prompt=False)
            at = len(commonprefix([begun, whole]))
            before = self.tokenizer.encode(whole[:at], special=False)
            ids = self.tokenizer.encode(whole, special=False)
            parted = ids[: len(before)] != before
            after = self.tokenizer.encode(whole[at:], special=False) if parted else ids[len(before) :]
            while after and after[-1] not in self.model.stop_ids and any(i in self.model.stop_ids for i in after):
                after.pop()  # a line's end that templates write behind an answer's own
            if not after:
                raise TemplateError("the chat template writes nothing for the answer")
            parts.append(self.behind(before, after, len((message.get("content") or whole[at:]).encode())))
        return parts
