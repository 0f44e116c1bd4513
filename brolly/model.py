"""Model = card + network + processor, and the verbs: the API on one page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

from torch import nn

from brolly.checkpoint import json_object
from brolly.engine.cache import Causal
from brolly.engine.runner import Runner
from brolly.errors import CheckpointError, OptionError, TokenizerError, UnsupportedTask
from brolly.identity import Card
from brolly.media.text import Tokenizer, load_tokenizer
from brolly.tasks.generate import gather, stream
from brolly.tasks.score import score
from brolly.verbs import GenerateOptions, Generation, Piece, Score


class Options(TypedDict, total=False):
    """GenerateOptions as keyword arguments."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    presence_penalty: float
    frequency_penalty: float
    logit_bias: dict[int, float]
    seed: int | None
    stop: str | Sequence[str]
    logprobs: int | None


class Model:
    """A loaded model. `card` is what `identify` tells of it, `network` computes, `tokenizer` reads and writes text."""

    def __init__(self, card: Card, network: nn.Module, release: Callable[[str], None] | None = None) -> None:
        self.card, self.network, self._release = card, network, release
        some = max(network.parameters(), key=lambda p: p.numel())
        self.device, self.dtype = some.device, some.dtype

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        size = f"{self.card.header.n_params:,} parameters"
        return f"<{self.card.recognised.family.name} {self.card.header.path}: {size}, {dtype}, {self.device}>"

    @overload
    def generate(self, prompt: str, **options: Unpack[Options]) -> Generation: ...
    @overload
    def generate(self, prompt: list[str], **options: Unpack[Options]) -> list[Generation]: ...
    def generate(self, prompt: str | list[str], **options: Unpack[Options]) -> Generation | list[Generation]:
        """Continue a prompt, or each of a list of them. Raises ContextTooLong, OptionError, UnsupportedTask."""
        if isinstance(prompt, list):
            return [self.generate(one, **options) for one in prompt]
        ids = self._prompt_ids(prompt)
        return gather(self._run("generate", ids, ids, options), len(ids), options.get("logprobs") is not None)

    def stream(self, prompt: str, **options: Unpack[Options]) -> Iterator[Piece]:
        """The same continuation, piece by piece as it becomes certain."""
        ids = self._prompt_ids(prompt)
        return self._run("generate", ids, ids, options)

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[Options]) -> Generation:
        """Answer a conversation of {"role", "content"} messages by the model's own chat template."""
        ids = self._chat_ids(messages)
        return gather(self._run("chat", ids, (), options), len(ids), options.get("logprobs") is not None)

    def stream_chat(self, messages: Sequence[Mapping[str, Any]], **options: Unpack[Options]) -> Iterator[Piece]:
        """The same answer, piece by piece."""
        return self._run("chat", self._chat_ids(messages), (), options)

    def score(self, text: str) -> Score:
        """Log-probability of each token of a text given those before it."""
        self._require("score")
        ids = self._known(self.tokenizer.encode(text))
        texts = [self.tokenizer.token_text(i) for i in ids]
        network: Any = self.network
        return score(network, Causal(network.config), ids, texts, network.config.context, self.device)

    @cached_property
    def runner(self) -> Runner:
        """What steps a causal language model."""
        return Runner(self.network, self._release)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.card.header)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """generation_config.json, where there is one."""
        path: Path = self.card.header.folder / "generation_config.json"
        return json_object(path) if path.is_file() else {}

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the generation config's, the config's and the tokenizer's."""
        found: set[int] = set()
        for said in (
            self.defaults.get("eos_token_id"),
            self.card.header.config.get("eos_token_id"),
            self.tokenizer.eos_id,
        ):
            found.update(i for i in (said if isinstance(said, list) else [said]) if type(i) is int)
        return frozenset(found)

    def options(self, **given: Any) -> GenerateOptions:
        """What was asked for, then what the checkpoint recommends. Raises OptionError."""
        names = {f.name for f in fields(GenerateOptions)}
        if unknown := given.keys() - names:
            raise OptionError(f"{sorted(unknown)[0]!r} is no option; there are {', '.join(sorted(names))}.")
        asked = GenerateOptions(**{k: v for k, v in given.items() if v is not None})
        for name in ("max_tokens", "top_k", "seed", "logprobs"):
            if type(value := getattr(asked, name)) not in (int, type(None)):
                raise OptionError(f"{name} is {value!r}; it must be a whole number.")
        if not isinstance(asked.logit_bias, Mapping):
            raise OptionError(f"logit_bias is {asked.logit_bias!r:.80}; it must map token ids to numbers.")
        for token, bias in asked.logit_bias.items():
            if type(token) is not int or type(bias) not in (int, float) or not isfinite(bias):
                raise OptionError(f"logit_bias is {{{token!r}: {bias!r}}}; it must map token ids to finite numbers.")
        said = self.defaults
        known = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        advice: dict[str, Any] = {k: said[k] for k in known if type(said.get(k)) in (int, float)}
        if said.get("do_sample") is False or (said and "do_sample" not in said and "temperature" not in said):
            advice = {k: v for k, v in advice.items() if k == "repetition_penalty"}
        try:
            return replace(asked, **{k: v for k, v in advice.items() if getattr(asked, k) is None})
        except OptionError as error:
            raise CheckpointError(f"{self.card.header.folder / 'generation_config.json'}: {error}") from None

    def _prompt_ids(self, prompt: str) -> list[int]:
        self._require("generate")
        ids = self.tokenizer.encode(prompt)
        if (
            len(ids) > 1
            and ids[-1] == self.tokenizer.eos_id
            and self.tokenizer.encode(prompt, special=False)[-1:] != ids[-1:]
        ):
            ids = ids[:-1]  # a post-processor that ends every text would end this one before it began
        start = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
        return self._known(ids or ([start] if start is not None else []))

    def _chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        self._require("chat")
        return self._known(self.tokenizer.encode_chat([dict(m) for m in messages]))

    def _known(self, ids: list[int]) -> list[int]:
        """The same ids, if the network has a row for each."""
        config: Any = self.network.config
        if max(ids, default=0) >= config.vocab_size:
            raise TokenizerError(
                f"{self.tokenizer.source} makes token {max(ids)}, and the network has {config.vocab_size}; put this "
                "model's own tokenizer beside it."
            )
        return ids

    def _run(self, verb: str, ids: list[int], after: Sequence[int], options: Options) -> Iterator[Piece]:
        self._require(verb)
        config: Any = self.network.config
        return stream(
            self.runner, self.tokenizer, ids, self.options(**options),
            context=config.context, stop_ids=self.stop_ids, after=after, device=self.device,
        )  # fmt: skip

    def _require(self, verb: str) -> None:
        found = self.card.recognised
        if verb not in found.tasks:
            raise UnsupportedTask(
                f"{self.card.header.path} is a {found.family.name} ({', '.join(found.tasks)}); it cannot {verb}."
            )
