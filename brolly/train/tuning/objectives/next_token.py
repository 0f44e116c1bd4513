"""The next token, of texts, completions and conversations; prompts are read and not learnt.

Examples pass in one row of tokens without padding, and none sees another. N tokens, C dim, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brolly.errors import TokenizerError
from brolly.rows import Completion, Conversation, Row, RowFault, Text
from brolly.train.tuning.entropy import IGNORED, token_losses
from brolly.train.tuning.examples import Tokens
from brolly.train.tuning.objectives import by_parts
from brolly.train.tuning.objectives.conversation import tokens_of, written
from brolly.train.tuning.packing import Packed, positions
from brolly.verbs import TuneOptions


class NextToken:
    name, together = "next-token", False

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.model, self.network, self.options = model, model.network, options
        self.context = min(options.context or model.network.config.context, model.network.config.context)
        self.lost = 0  # answers that the template writes otherwise once others follow

    def example(self, row: Row) -> Tokens:
        try:
            ids, learnt = self._tokens(row)
        except TokenizerError as error:
            raise RowFault(row.where, str(error)) from None
        if len(ids) < 2:
            raise RowFault(row.where, "it is empty: there is nothing to learn")
        if max(ids) >= self.network.config.vocab_size:
            raise RowFault(
                row.where, f"it holds token {max(ids)}; this model's end at {self.network.config.vocab_size}"
            )
        found = Tokens(ids[: self.context], [False, *learnt[1 : self.context]], len(ids) > self.context)
        if not any(found.learnt):
            why = f"what is to be learnt begins behind the context's {self.context} tokens" if any(learnt) else (
                "nothing in it is learnt: no answer, or all weights are 0"
            )  # fmt: skip
            raise RowFault(row.where, why)
        return found

    def _tokens(self, row: Row) -> tuple[list[int], list[bool]]:
        """A row's ids and which are learnt, however many."""
        all_of_it, tokenizer = self.options.train_on == "all", self.model.tokenizer
        match row.value:
            case Text(text):
                ids = self.read(text) + self.end()
                return ids, [True] * len(ids)
            case Completion(prompt, completion):
                before, after = self.continued(prompt, completion)
                return before + after, [all_of_it] * len(before) + [True] * len(after)
            case Conversation() as said:
                text, spans, lost = written(tokenizer, said, row.where)
                self.lost += lost
                return tokens_of(tokenizer, text, [(0, len(text))] if all_of_it else spans, self.model.stop_ids)
        raise RowFault(row.where, f"it is a {type(row.value).__name__}, which has no next token")

    def continued(self, prompt: str, completion: str) -> tuple[list[int], list[int]]:
        """A prompt as `generate` reads it, and what should be written behind it."""
        before, whole = self.read(prompt), self.read(prompt + completion)
        parted = whole[: len(before)] != before
        after = self.model.tokenizer.encode(completion, special=False) if parted else whole[len(before) :]
        return before, after + self.end()

    def read(self, text: str) -> list[int]:
        """A prompt's ids, of no more text than the context can hold."""
        return self.model.prompt_ids(text[: (self.context + 1) * self.model.tokenizer.longest], most=None)

    def end(self) -> list[int]:
        """The token that ends an answer."""
        eos = self.model.tokenizer.eos_id
        return [eos] if eos is not None else sorted(self.model.stop_ids)[:1]

    def size(self, example: Tokens) -> int:
        return len(example.ids)

    def weight(self, example: Tokens) -> float:
        return int(np.count_nonzero(example.learnt))

    def losses(self, part: Sequence[Tokens], temperature: float = 1.0) -> Tensor:
        """Each token's loss, of those that are learnt: (N,), 0 at the others."""
        device = self.model.device
        ids = torch.from_numpy(np.concatenate([np.asarray(one.ids, np.int64) for one in part])).to(device)
        learnt = torch.from_numpy(np.concatenate([np.append(one.learnt[1:], False) for one in part])).to(device)
        targets = torch.where(learnt, ids.roll(-1), IGNORED)
        lengths = [len(one.ids) for one in part]
        hidden = self.network(ids[None], positions(lengths, device), Packed(self.network.config, lengths))[0]
        return token_losses(hidden if temperature == 1 else hidden / temperature, self.network.output.weight, targets)

    def backward(self, parts: Sequence[Sequence[Tokens]], total: float) -> Tensor:
        return by_parts(lambda part: self.losses(part).sum(), parts, total)

    @torch.no_grad()
    def measure(self, part: Sequence[Tokens]) -> dict[str, tuple[float, float]]:
        weight = sum(map(self.weight, part))
        return {"loss": (float(self.losses(part).sum()), weight)}
