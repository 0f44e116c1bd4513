"""A conversation as its template writes it, and which of it the assistant wrote. No torch.

A template that marks the assistant's words ({% generation %}) is believed. Elsewhere the conversation is rendered up to
each of its answers, without it and with it: what the second adds is the answer, as the model will have to write it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from os.path import commonprefix
from typing import NamedTuple

from brolly.errors import BrollyError, TemplateError
from brolly.media.text import Tokenizer
from brolly.rows import Conversation, RowFault

Span = tuple[int, int]  # characters of a text


class Written(NamedTuple):
    """A conversation's text, the stretches of it that are answers to learn, and how many answers cannot be found."""

    text: str
    spans: list[Span]
    lost: int


def written(tokenizer: Tokenizer, value: Conversation, where: str) -> Written:
    """A conversation as the model reads it. Raises RowFault."""
    template = tokenizer.template
    assert template is not None
    tools = list(value.tools) or None
    messages = value.bare
    weights = [message.get("weight", 1) for message in value.messages]

    def render(upto: int, begun: bool) -> str:
        return template.render(messages[:upto], tools=tools, add_generation_prompt=begun)

    answers = [i for i, m in enumerate(messages) if m.get("role") == "assistant"]
    if not answers:
        raise RowFault(where, "no message is the assistant's, so there is nothing to learn")
    try:
        text = render(len(messages), False)
        marked = template.marked(messages, tools=tools)
        if marked is not None and len(marked) == len(answers):
            return Written(text, [span for i, span in zip(answers, marked, strict=True) if weights[i]], 0)
        spans, lost = [], 0
        for i in answers:
            if not weights[i]:
                continue
            span = added(text, render(i, True), render(i + 1, False))
            if span is None:
                lost += 1
            else:
                spans.append(span)
    except TemplateError as error:
        raise RowFault(where, str(error)) from None
    except BrollyError as error:
        raise RowFault(where, f"the chat template cannot write it ({error})") from None
    return Written(text, spans, lost)


def added(text: str, before: str, after: str) -> Span | None:
    """What `after` has behind `before`, if it stands so in the text."""
    if not text.startswith(after):
        return None
    start = len(commonprefix([before, after]))
    return (start, len(after)) if start < len(after) else None


def tokens_of(
    tokenizer: Tokenizer, text: str, spans: Sequence[Span], stops: Collection[int]
) -> tuple[list[int], list[bool]]:
    """A text's ids, and which of them the spans hold; an answer ends with its last stop token."""
    ends = sorted({0, len(text), *(at for span in spans for at in span)})
    starts = {start for start, _ in spans}
    ids: list[int] = []
    learnt: list[bool] = []
    for begin, end in zip(ends, ends[1:], strict=False):
        whole = tokenizer.encode(text[:end], special=False)
        more = whole[len(ids) :] if whole[: len(ids)] == ids else tokenizer.encode(text[begin:end], special=False)
        taught = len(more) if begin in starts else 0
        while taught and more[taught - 1] not in stops and any(i in stops for i in more[:taught]):
            taught -= 1  # a line's end that templates write behind an answer's own
        ids += more
        learnt += [True] * taught + [False] * (len(more) - taught)
    return ids, learnt
