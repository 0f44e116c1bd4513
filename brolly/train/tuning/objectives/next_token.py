"""The next token, of texts, completions and conversations; prompts are read and not learnt.

Examples pass in one row of tokens without padding, and none sees another. N tokens, C dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from brolly.rows import Completion, Conversation, Row, RowFault, Text
from brolly.train.tuning.entropy import IGNORED, token_losses
from brolly.train.tuning.objectives import by_parts
from brolly.train.tuning.packing import Packed, positions
from brolly.verbs import TuneOptions


class Tokens(NamedTuple):
    """An example: its ids, and for each whether it is learnt (the first never is: nothing stands before it)."""

    ids: list[int]
    learnt: list[bool]


class NextToken:
    name, together = "next-token", False

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.model, self.network, self.options = model, model.network, options
        self.context = min(options.context or model.network.config.context, model.network.config.context)

    def example(self, row: Row) -> Tokens:
        match row.value:
            case Text(text):
                ids = self.model.tokenizer.encode(text) + self.end()
                found = Tokens(ids, [True] * len(ids))
            case Completion(prompt, completion):
                found = self.continued(prompt, completion)
            case Conversation():
                raise RowFault(row.where, "conversations are not here yet")
            case _:
                raise RowFault(row.where, f"it is a {type(row.value).__name__}, which has no next token")
        found = Tokens(found.ids[: self.context], [False, *found.learnt[1 : self.context]])
        if not any(found.learnt):
            raise RowFault(row.where, f"its prompt alone fills the context of {self.context} tokens")
        return found

    def continued(self, prompt: str, completion: str) -> Tokens:
        """A prompt as `generate` reads it, and what should be written behind it."""
        tokenizer = self.model.tokenizer
        before = self.model._prompt_ids(prompt)
        whole = self.model._prompt_ids(prompt + completion)
        after = whole[len(before) :] if whole[: len(before)] == before else tokenizer.encode(completion, special=False)
        after = after + self.end()
        return Tokens([*before, *after], [self.options.train_on == "all"] * len(before) + [True] * len(after))

    def end(self) -> list[int]:
        eos = self.model.tokenizer.eos_id
        return [] if eos is None else [eos]

    def size(self, example: Tokens) -> int:
        return len(example.ids)

    def weight(self, example: Tokens) -> float:
        return sum(example.learnt)

    def losses(self, part: Sequence[Tokens]) -> Tensor:
        """Σ of a part's token losses."""
        device = self.model.device
        ids = torch.tensor([i for one in part for i in one.ids], device=device)
        learnt = torch.tensor([on for one in part for on in (*one.learnt[1:], False)], device=device)
        targets = torch.where(learnt, ids.roll(-1), IGNORED)
        lengths = [len(one.ids) for one in part]
        hidden = self.network(ids[None], positions(lengths, device), Packed(self.network.config, lengths))[0]
        return token_losses(hidden, self.network.output.weight, targets).sum()

    def backward(self, parts: Sequence[Sequence[Tokens]], total: float) -> Tensor:
        return by_parts(self.losses, parts, total)

    @torch.no_grad()
    def measure(self, part: Sequence[Tokens]) -> dict[str, tuple[float, float]]:
        return {"loss": (float(self.losses(part)), sum(map(self.weight, part)))}
