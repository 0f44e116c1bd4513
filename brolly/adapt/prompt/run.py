"""Rows through a prompt and a model: prepared, written together, read back; pictures sorted the same way."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from brolly.adapt.prompt.cache import Cache, fingerprint, key_of, repeatable
from brolly.adapt.prompt.layout import messages, plain, title, unfolded
from brolly.adapt.prompt.quote import CUT, quoter_of
from brolly.adapt.prompt.select import TOGETHER, Nearest, fixed
from brolly.errors import BrollyError, Filtered, OptionError
from brolly.media.text.answers import render_chat
from brolly.tasks.flow import ENDS, in_order
from brolly.verbs import Usage, gather

if TYPE_CHECKING:
    from brolly.adapt.prompt.prompt import Example, Prompt, Result
    from brolly.engine.job import Job
    from brolly.remote.ask import Ask


class Asking:
    """A prompt to one model: rows and their examples as jobs."""

    def __init__(self, prompt: Prompt, model: Any, adapter: Any = None) -> None:
        from brolly.adapt.prompt.prompt import USUAL

        self.prompt, self.model = prompt, model
        self.adapter = getattr(adapter, "path", adapter)  # of what `brolly.tune` gives
        self.elsewhere = hasattr(model, "target")
        self.chats = self.elsewhere or model.tokenizer.template is not None
        self.quoter = quoter_of(model)
        usual = model.usual if self.elsewhere else USUAL
        self.options = usual | dict(prompt.options) | prompt.answer.limits("" if self.chats else " ")
        if self.elsewhere and prompt.answer.type != "text":  # JSON has these kinds; a pattern not every vendor keeps to
            self.options = usual | dict(prompt.options) | {"json_schema": json.dumps({"type": prompt.answer.type})}
        # a thinking model has no temperature; who asked for none wants the likeliest answer of it, too
        self.greedy = self.elsewhere and not prompt.options.get("temperature", 0.0)
        if not self.chats and prompt.answer.free:
            heads = [title(prompt.answer.name), *(title(v.name) for v in prompt.variables)]
            own = self.options.get("stop", ())
            ends = ["\n\n", *(f"\n{head}:" for head in heads)]
            self.options["stop"] = (*([own] if isinstance(own, str) else own), *ends)

    def messages(self, row: Mapping[str, Any], examples: Sequence[Example]) -> tuple[list[dict[str, str]], Any]:
        """The turns with their data quoted, and which markers that broke."""
        said, broken = [], dict[str, None]()
        for message in messages(self.prompt, row, examples):
            text, found = self.quoter.quote(message["content"])
            broken |= dict.fromkeys(found)
            said.append({**message, "content": text})
        return said, tuple(broken)

    def text(self, row: Mapping[str, Any], examples: Sequence[Example]) -> tuple[str, tuple[str, ...]]:
        """The prompt as the model reads it, with its cuts, and which markers were broken."""
        if not self.chats:
            return self.quoter.quote(plain(self.prompt, row, examples))
        said, broken = self.messages(row, examples)
        model = self.model
        if self.elsewhere:
            return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in said), broken
        return render_chat(model.tokenizer.template, model.answers, said, tools=[], extra=None), broken

    def job(self, row: Mapping[str, Any], examples: Sequence[Example]) -> tuple[Any, tuple[str, ...]]:
        """What the engine or the vendor takes; where nothing was broken, the same as by Model.chat or .generate."""
        model = self.model
        if self.chats:
            said, broken = self.messages(row, examples)
            job = model.prepare_chat(said, adapter=self.adapter, **self.options)
            if any(CUT in message["content"] for message in said):
                text, _ = self.text(row, examples)
                job = replace(job, prompt=self.quoter.encode(text))  # type: ignore[union-attr]
            return job, broken
        text, broken = self.text(row, examples)
        first, *rest = text.split(CUT)
        job = model.prepare(first, adapter=self.adapter, **self.options)
        ids = list(job.prompt)
        for piece in rest:
            ids += model.tokenizer.encode(piece, special=False)
        return replace(job, prompt=ids, after=ids), broken

    def read(self, text: str, reason: str) -> Any:
        """The answer of what was written. Raises OptionError."""
        answer = self.prompt.answer
        if reason == "length" and not answer.free:
            most = self.options["max_tokens"]
            thoughts = " (its thoughts count)" if self.elsewhere else ""
            try:  # the last token may have made it whole
                if answer.regex and not answer.fits(text.strip()):
                    raise OptionError("it cannot be told")
                return answer.read(text)
            except OptionError:
                raise OptionError(
                    f"the answer was cut at {most} tokens{thoughts}, or at the end of the context, before it was "
                    f"whole: {text[-60:]!r}; raise max_tokens in [options], or bound the schema (maxLength, maxItems)."
                ) from None
        return answer.read(text if self.chats or not answer.free else unfolded(text))


def shown(prompt: Prompt, model: Any, given: Any, embedder: Any) -> str:
    """The prompt of one row, or the texts that pictures are compared with."""
    if prompt.kind == "classify":
        if hasattr(model, "target"):  # it has no classifier, and says so
            model.classify()
        around = prompt.templates or model.templates
        return "\n".join(text.replace("{}", label) for label in prompt.answer.choice for text in around)
    row = prompt.values(given)
    examples = fixed(prompt, row)
    if prompt.select.by == "nearest" and embedder is not None:
        (examples,) = Nearest(prompt, embedder).choose([row])
    return Asking(prompt, model).text(row, examples)[0].replace(CUT, "⁝")


def written(
    prompt: Prompt, model: Any, rows: Iterable[Any], *, adapter: Any, embedder: Any, cache: Cache | None
) -> Iterator[Result]:  # fmt: skip
    """The result of each row in order, by a model that writes. Raises what is wrong with prompt, model and adapter."""
    from brolly.adapt.prompt.prompt import Result

    asking = Asking(prompt, model, adapter)
    # a shape that is refused, an adapter of another model, a model that does not write: told before the rows
    first = model.prepare("a", adapter=asking.adapter, **asking.options)
    if asking.elsewhere:
        model.check(first)
    nearest = Nearest(prompt, embedder) if embedder is not None and prompt.select.by == "nearest" else None
    told = fingerprint(model, asking.adapter) if cache else ""

    over: Exception | None = None

    def asked() -> Iterator[tuple[tuple[Result, bytes], Job | Ask | None]]:
        for row, examples, place in _with_examples(prompt, rows, nearest):
            if over is not None:
                return
            if isinstance(row, Exception):
                yield (Result(place, error=row), b""), None
                continue
            try:
                job, broken = asking.job(row, examples)
            except BrollyError as error:
                yield (Result(place, error=error), b""), None
                continue
            key = key_of(told, job) if cache and (asking.greedy or repeatable(job)) else b""
            kept = cache.get(key) if cache and key else None
            if kept:
                yield (_read(asking, Result(place, cached=True, broken=broken), *kept), b""), None
            else:
                yield (Result(place, broken=broken), key), job

    for (result, key), pieces, error in in_order(model.submit, asked()):
        if error is not None:
            if not isinstance(error, Exception):
                raise error
            if isinstance(error, ENDS):
                over = over or error  # what is being answered now is paid for, and kept for the next time
            elif over is None:
                yield replace(result, error=error)
        elif not pieces:
            if over is None:
                yield result
        else:
            found = gather(pieces, False)
            if cache and key and found.finish_reason != "content_filter":
                cache.put(key, found.text, found.finish_reason, found.usage)
            if over is None:
                yield _read(asking, result, found.text, found.finish_reason, found.usage)
    if over is not None:
        raise over


def _read(asking: Asking, result: Result, text: str, reason: str, usage: Usage) -> Result:
    result = replace(
        result, text=text, finish_reason=reason, tokens=(usage.prompt_tokens, usage.completion_tokens)
    )  # fmt: skip
    if reason == "content_filter":
        return replace(result, error=Filtered("the vendor's rules kept the answer, or the rest of it, back."))
    try:
        return replace(result, value=asking.read(text, reason))
    except OptionError as error:
        return replace(result, error=error)


def _with_examples(
    prompt: Prompt, rows: Iterable[Any], nearest: Nearest | None
) -> Iterator[tuple[dict[str, Any] | Exception, list[Example], int]]:
    """Each row's values or what is wrong with them, its examples and its number from 1 on."""
    from brolly.adapt.prompt.prompt import batches

    place = 0
    for some in batches(rows, TOGETHER if nearest else 1):
        read = [_values(prompt, row) for row in some]
        good = [row for row in read if not isinstance(row, Exception)]
        found = iter(nearest.choose(good) if nearest else [fixed(prompt, row) for row in good])
        for row in read:
            place += 1
            yield row, [] if isinstance(row, Exception) else next(found), place


def _values(prompt: Prompt, row: Any) -> dict[str, Any] | Exception:
    if isinstance(row, Exception):
        return row
    try:
        return prompt.values(row)
    except OptionError as error:
        return error


def classified(prompt: Prompt, model: Any, rows: Iterable[Any]) -> Iterator[Result]:
    """The result of each row in order, by a model that compares pictures with the labels' texts."""
    from brolly.adapt.prompt.prompt import Result, batches

    place, labels = 0, prompt.answer.choice
    variable = prompt.variables[0].name
    for some in batches(rows, TOGETHER):
        read = [_values(prompt, row) for row in some]
        images = [row[variable] for row in read if not isinstance(row, Exception)]
        found = iter(model.stream_classify(images, labels, templates=prompt.templates or None) if images else ())
        for row in read:
            place += 1
            one: Any = row if isinstance(row, Exception) else next(found)
            if isinstance(one, Exception):
                yield Result(place, error=one)
                continue
            shares = dict(zip(one.labels, one.probabilities, strict=True))
            yield Result(place, one.label, one.label, finish_reason="stop", probabilities=shares)
