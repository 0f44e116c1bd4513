"""Documents in the order in which they answer a query, by a network that reads both at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from brolly.errors import ContextTooLong, OptionError, UnsupportedTask
from brolly.layers.transformer import Spans
from brolly.tasks.embed import Encoder, broken, embed, gather, similarities
from brolly.tasks.late import late_of
from brolly.verbs import EmbedOptions, Ranked, RerankOptions


class Pair(NamedTuple):
    """A query and a document as a network reads them: which of the two each token is of, and how many were cut."""

    ids: list[int]
    types: list[int]
    cut: int = 0


def rerank(model: Encoder, query: str, documents: Sequence[str], options: RerankOptions) -> list[Ranked]:
    """The best first; equal ones in the order given. Raises ContextTooLong where nothing may be cut."""
    for text in (query, *documents):
        if not isinstance(text, str):
            raise OptionError(f"a query or a document is {type(text).__name__}; expected texts.")
    late = late_of(model.network.config) is not None
    found = dict(met(model, query, documents, options) if late else read_together(model, query, documents, options))
    order = sorted(found, key=lambda i: (-found[i], i))[: options.top]
    return [Ranked(i, found[i], documents[i]) for i in order]


def met(
    model: Encoder, query: str, documents: Sequence[str], options: RerankOptions
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """Late interaction's scores: each of the query's tokens finds its best in a document, and all add up."""
    if options.instruction is not None:
        raise OptionError("this model compares tokens and takes no instruction; leave it out.")
    asked, told = (
        gather(embed(model, texts, EmbedOptions(role=role, truncate=options.truncate, batch_size=options.batch_size)))
        for role, texts in (("query", [query]), ("document", documents))
    )
    return enumerate(similarities(asked, told)[0].tolist() if documents else [])


def read_together(
    model: Encoder, query: str, documents: Sequence[str], options: RerankOptions
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """The scores of a network that reads the query and a document as one text."""
    config = model.network.config
    if hasattr(model.network, "next_words"):
        pairs = asked(model, query, documents, options.instruction)
    elif options.instruction is None:
        pairs = [Pair(*row) for row in model.tokenizer.encode_pairs(query, documents, config.context)]
    else:
        raise OptionError("this model judges pairs as it was trained to and takes no instruction; leave it out.")
    if longer := [document for document, pair in zip(documents, pairs, strict=True) if pair.cut]:
        what = f"{longer[0][:60]!r} with its query is longer than the {config.context} tokens that the model reads"
        if not options.truncate:
            raise ContextTooLong(f"{what}; shorten it.")
        also = f" {len(longer) - 1} more are too long." if len(longer) > 1 else ""
        warnings.warn(f"{what}; its end was cut.{also}", stacklevel=4)
    return scores(model, pairs, options.batch_size)


def scores(model: Encoder, pairs: Sequence[Pair], batch_size: int) -> Iterator[tuple[int, float]]:
    """Each pair's score, the longest pairs first, in batches without padding."""
    config = model.network.config
    order = sorted(range(len(pairs)), key=lambda i: -len(pairs[i].ids))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        ids = torch.tensor([x for i in places for x in pairs[i].ids], device=model.device)
        types = torch.tensor([x for i in places for x in pairs[i].types], device=model.device)
        if int(ids.max()) >= config.vocab_size:
            raise UnsupportedTask(
                f"{model.tokenizer.source} makes token {int(ids.max())}, and the network has {config.vocab_size}."
            )
        spans = Spans([len(pairs[i].ids) for i in places], model.device)
        with torch.inference_mode():
            found = judged(model, ids, spans, types).float()
        if not found.isfinite().all():
            raise broken(model)
        yield from zip(places, (found.sigmoid() if config.sigmoid else found).tolist(), strict=True)


def judged(model: Encoder, ids: Tensor, spans: Spans, types: Tensor) -> Tensor:
    """The score of each pair before the sigmoid: (B,)."""
    if not hasattr(model.network, "next_words"):
        return model.network.scores(ids, spans, types)[:, 0]
    yes, no = model.network.config.words or (model.tokenizer.token_id(word) for word in ("yes", "no"))
    logits = model.network.next_words(ids, spans)
    return logits[:, yes] - logits[:, no]


# A language model that judges ----------------------------------------------------------------------------------------

WEB = "Given a web search query, retrieve relevant passages that answer the query"
BEFORE = (
    "<|im_start|>system\nEncoder whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
)
BEHIND = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"  # Qwen3-Reranker's own words, which it learnt by


def asked(model: Encoder, query: str, documents: Sequence[str], instruction: str | None) -> list[Pair]:
    """Qwen3-Reranker's question about each document, whose answer begins with yes or no."""
    tokenizer, context = model.tokenizer, model.network.config.context
    before, behind = (tokenizer.encode(text, special=False) for text in (BEFORE, BEHIND))
    room = context - len(before) - len(behind)
    pairs = []
    for document in documents:
        text = f"<Instruct>: {instruction or WEB}\n<Query>: {query}\n<Document>: {document}"
        ids = tokenizer.encode(text, special=False, parse_special=False)
        whole = [*before, *ids[: max(room, 0)], *behind]
        pairs.append(Pair(whole, [0] * len(whole), max(len(ids) - room, 0)))
    return pairs
