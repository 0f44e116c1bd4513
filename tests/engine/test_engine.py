"""The engine at work: what many get together is what each gets alone, whatever comes, goes, fails or is short."""

from __future__ import annotations

import gc
import random
import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brolly.engine.engine import Engine, Event, blocks_for, write_all
from brolly.engine.job import Job
from brolly.engine.pages import BLOCK, Pages
from brolly.engine.runner import Runner
from brolly.errors import Busy, ContextTooLong, OptionError
from brolly.tasks.generate import stream
from brolly.verbs import GenerateOptions, Generation, Piece, ToolDelta, gather
from tests.kernels.test_decoder import VOCABULARY, gpt2, llama

NETWORKS = {"llama": llama, "gpt2": gpt2, "windows": lambda: llama(windows=(40, 33))}
CONTEXT = 400


class Letters:
    """A tokenizer whose token i is one character."""

    def stream(self, *, skip_special: bool = True, after: Sequence[int] = ()) -> Letters:
        return self

    def push(self, token: int) -> str:
        return chr(0x100 + token)

    def finish(self) -> str:
        return ""

    def token_text(self, token: int) -> str:
        return self.push(token)


class Bench:
    """An engine, and each job written alone by the network beside it."""

    def __init__(self, network: nn.Module, n_blocks: int = 64, **options: Any) -> None:
        config: Any = network.config
        window = None if None in config.windows else max(config.windows)
        self.pages, self.runner = Pages(network, n_blocks), Runner(network)
        given = {"context": CONTEXT, "stop_ids": [0], "window": window} | options
        self.engine = Engine(self.pages, Letters(), **given)
        self.context = given["context"]

    def alone(self, job: Job) -> Generation:
        return gather(stream(self.runner, Letters(), job, context=self.context, stop_ids=[0]), True)

    def together(self, jobs: Sequence[Job]) -> list[Generation]:
        return [gather(pieces, True) for pieces in write_all(self.engine, jobs)]

    def at_rest(self) -> None:
        """Nothing is held, and the books add up."""
        for _ in range(500):
            if not self.engine.scheduler.users and not self.engine._tasks:
                break
            threading.Event().wait(0.01)
        self.engine.scheduler.check()
        assert self.engine.blocks.free == self.engine.blocks.n_blocks
        assert not self.engine._queued and not self.engine._tasks


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(network: nn.Module | None = None, n_blocks: int = 64, **options: Any) -> Bench:
        made.append(Bench(network if network is not None else llama(), n_blocks, **options))
        return made[-1]

    yield make
    for one in made:
        one.engine.close()


def job(prompt: Sequence[int], *, n: int = 1, best_of: int | None = None, **rest: Any) -> Job:
    own = {k: rest.pop(k) for k in ("guide", "split", "user", "priority", "adapter") if k in rest}
    return Job(list(prompt), GenerateOptions(**({"temperature": 0, "max_tokens": 12} | rest)), n=n, best_of=best_of, **own)  # fmt: skip # noqa: E501


def drawn(draw: random.Random, longest: int) -> Job:
    """A request of any length, often with a beginning that others have."""
    beginning = [draw.choice((7, 8))] * draw.choice((0, 0, 0, 40, 70))
    prompt = [*beginning, *(draw.randrange(1, VOCABULARY) for _ in range(draw.randrange(1, longest)))]
    return job(
        prompt, max_tokens=draw.choice((1, 3, 6, 10, 80)), user=draw.choice("ab"), priority=draw.choice((0, 0, 2))
    )


class Sink:
    """Where a job's pieces go; `gone` is set behind the last."""

    def __init__(self) -> None:
        self.got: list[Piece | BaseException] = []
        self.ends: SimpleQueue[None] = SimpleQueue()

    def __call__(self, piece: Piece | BaseException) -> None:
        self.got.append(piece)
        if isinstance(piece, BaseException) or piece.finish_reason:
            self.ends.put(None)

    def wait(self, count: int = 1) -> list[Any]:
        for _ in range(count):
            self.ends.get(timeout=30)
        return self.got


# Equal ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_two_hundred_requests_get_together_what_each_gets_alone(name: str, bench: Callable[..., Bench]) -> None:
    """Of mixed length, arriving and cancelled at random, in a cache that is too small for them."""
    made, draw = bench(NETWORKS[name](), 8, most=16, budget=64, queue=1000), random.Random(1)
    jobs = [drawn(draw, 40) for _ in range(200)]
    sinks, tickets, left = [Sink() for _ in jobs], {}, set(range(200))
    for i, (one, sink) in enumerate(zip(jobs, sinks, strict=True)):
        tickets[i] = made.engine.submit(one, sink)
        if draw.random() < 0.15:
            gone = draw.choice(sorted(left & tickets.keys()))
            tickets[gone].cancel()
            left.discard(gone)
        if draw.random() < 0.3:
            threading.Event().wait(draw.random() * 0.02)
    for i in sorted(left):
        pieces = sinks[i].wait()
        alone = made.alone(jobs[i])
        found = gather(pieces, True)
        assert (found.tokens, found.text, found.finish_reason) == (alone.tokens, alone.text, alone.finish_reason), i
    made.at_rest()
    stats = made.engine.stats()
    assert stats.prefix_hits and len(left) > 150 and (stats.preemptions or name == "windows")


def test_seeds_give_the_same_text_alone_and_together(bench: Callable[..., Bench]) -> None:
    made = bench()
    jobs = [job([3, 4, i + 1], temperature=1.0, top_p=0.95, seed=i % 3, max_tokens=30) for i in range(12)]
    together, again = made.together(jobs), made.together(jobs[::-1])[::-1]
    assert [g.tokens for g in together] == [made.alone(one).tokens for one in jobs] == [g.tokens for g in again]


def test_options_mean_the_same_alone_and_together(bench: Callable[..., Bench]) -> None:
    made = bench()
    text = made.alone(job([5, 6, 7], max_tokens=30)).text
    several: list[dict[str, Any]] = [
        {"stop": (text[6:8],)}, {"stop": (text[10],)}, {"logprobs": 3}, {"presence_penalty": 1.0}, {"min_tokens": 20},
        {"repetition_penalty": 1.3}, {"logit_bias": {0: 100}}, {"logit_bias": {0: 100}, "ignore_eos": True},
        {"logit_bias": {0: 100}, "min_tokens": 7}, {"temperature": 0.7, "seed": 1, "min_p": 0.1},
        {"stop": (text[3],), "min_tokens": 9},
    ]  # fmt: skip
    jobs = [job([5, 6, 7], **({"max_tokens": 30} | options)) for options in several]
    for options, one, found in zip(several, jobs, made.together(jobs), strict=True):
        alone = made.alone(one)
        assert (found.tokens, found.text, found.finish_reason) == (alone.tokens, alone.text, alone.finish_reason), options  # fmt: skip # noqa: E501
        assert [x.logprob for x in found.logprobs or ()] == pytest.approx([x.logprob for x in alone.logprobs or ()], abs=1e-4)  # fmt: skip # noqa: E501


def test_min_tokens_hold_back_an_end_and_ignore_eos_passes_over_it(bench: Callable[..., Bench]) -> None:
    made = bench()
    eager = {"logit_bias": {0: 100}}
    ended, late, never = made.together(
        [job([5], **eager), job([5], min_tokens=7, **eager), job([5], ignore_eos=True, max_tokens=9, **eager)]
    )
    assert (len(ended.tokens), ended.finish_reason) == (0, "stop")
    assert (len(late.tokens), late.finish_reason) == (7, "stop") and 0 not in late.tokens
    assert (never.tokens, never.finish_reason) == ([0] * 9, "length")


# Several answers -----------------------------------------------------------------------------------------------------


def by_index(pieces: Sequence[Piece]) -> dict[int, list[int]]:
    tokens = defaultdict(list)
    for piece in pieces:
        tokens[piece.index] += piece.tokens
    return tokens


def test_n_answers_are_those_of_their_seeds_and_the_prompt_is_computed_once(bench: Callable[..., Bench]) -> None:
    made = bench()
    sink = Sink()
    made.engine.submit(job(range(1, 101), n=5, temperature=1.0, seed=3), sink)
    pieces = sink.wait(5)
    found = by_index(pieces)
    assert sorted(found) == [0, 1, 2, 3, 4] and len({tuple(t) for t in found.values()}) == 5
    assert found[0] == made.alone(job(range(1, 101), temperature=1.0, seed=3)).tokens
    again = Sink()
    made.engine.submit(job(range(1, 101), n=5, temperature=1.0, seed=3), again)
    assert by_index(again.wait(5)) == found
    ends = [piece for piece in pieces if piece.finish_reason]
    assert all(end.usage and end.usage.prompt_tokens == 100 for end in ends)
    made.at_rest()
    assert made.engine.stats().tokens_in == 100 + 100 - 96


def test_n_answers_beyond_the_rows_there_are(bench: Callable[..., Bench]) -> None:
    made = bench(None, 12, most=3)
    sink = Sink()
    made.engine.submit(job(range(1, 60), n=8, temperature=1.0, seed=3), sink)
    found = by_index(sink.wait(8))
    roomy, other = bench(), Sink()
    roomy.engine.submit(job(range(1, 60), n=8, temperature=1.0, seed=3), other)
    assert found == by_index(other.wait(8)) and len(found) == 8
    made.at_rest()


def test_best_of_gives_the_likeliest(bench: Callable[..., Bench]) -> None:
    made = bench()
    every, best = Sink(), Sink()
    made.engine.submit(job([1, 2], n=6, temperature=1.0, seed=3, logprobs=0), every)
    made.engine.submit(job([1, 2], n=2, best_of=6, temperature=1.0, seed=3), best)
    means, pieces = {}, every.wait(6)
    for index in range(6):
        own = [x.logprob for piece in pieces for x in piece.logprobs if piece.index == index]
        means[index] = sum(own) / len(own)
    order = sorted(means, key=lambda index: -means[index])
    all_of, found = by_index(pieces), by_index(best.wait(2))
    assert found == {0: all_of[order[0]], 1: all_of[order[1]]}


# What goes wrong -----------------------------------------------------------------------------------------------------


class Breaks:
    """A guide that fails at its third token; the mask allows all."""

    complete = False

    def __init__(self) -> None:
        self.n = 0

    def mask(self, logits: Tensor) -> None: ...

    def accept(self, token: int) -> None:
        self.n += 1
        if self.n == 3:
            raise ValueError("no such token")


def test_one_that_fails_ends_alone(bench: Callable[..., Bench]) -> None:
    made = bench()
    bad, bias, good, deaf = Sink(), Sink(), Sink(), Sink()

    def breaks(piece: Piece | BaseException) -> None:
        deaf(piece)
        raise RuntimeError("a client that is gone")

    made.engine.submit(job([1, 2, 3], guide=Breaks), bad)
    made.engine.submit(job([1, 2, 3], logit_bias={VOCABULARY + 5: 1.0}), bias)
    made.engine.submit(job([1, 2, 3]), breaks)
    made.engine.submit(job([1, 2, 3]), good)
    assert isinstance(bad.wait()[-1], ValueError)
    assert isinstance(bias.wait()[-1], OptionError)
    assert gather(good.wait(), True).tokens == made.alone(job([1, 2, 3])).tokens
    assert len(deaf.got) == 1
    made.at_rest()


def test_a_failure_of_the_network_ends_those_who_run_and_no_later_ones(bench: Callable[..., Bench]) -> None:
    made = bench()
    whole, calls = made.pages.forward, []

    def forward(stretches: Sequence[Any]) -> Tensor:
        calls.append(len(stretches))
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return whole(stretches)

    made.pages.forward = forward  # type: ignore[method-assign]
    first = Sink()
    made.engine.submit(job([1, 2, 3]), first)
    assert isinstance(first.wait()[-1], RuntimeError)
    assert made.together([job([1, 2, 3])])[0].tokens == made.alone(job([1, 2, 3])).tokens
    made.at_rest()


def test_our_own_mistake_ends_those_who_are_there_and_no_later_ones(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, first = bench(), Sink()
    monkeypatch.setattr(made.engine.scheduler, "advance", lambda plan: [][1])
    made.engine.submit(job([1, 2, 3], n=3), first)
    assert isinstance(first.wait()[-1], IndexError)
    assert made.together([job([1, 2, 3])])[0].tokens == made.alone(job([1, 2, 3])).tokens
    made.at_rest()


def test_of_several_answers_that_fail_at_once_one_is_told(bench: Callable[..., Bench]) -> None:
    made, bad = bench(), Sink()
    made.engine.submit(job([1, 2, 3], guide=Breaks, n=4), bad)
    assert isinstance(bad.wait()[-1], ValueError)
    made.together([job([1])])
    assert sum(isinstance(piece, BaseException) for piece in bad.got) == 1
    made.at_rest()


def test_an_adapter_that_comes_anew_finds_nothing_of_the_old_one(bench: Callable[..., Bench]) -> None:
    there = {"x": Breaks()}  # any object does, as the network never sees it
    made = bench(adapter=there.__getitem__)
    made.pages.forward = without_adapters(made.pages.forward)  # type: ignore[method-assign]

    def cached() -> int:
        return made.together([job(range(1, 70), adapter="x")])[0].usage.cached_tokens

    assert (cached(), cached()) == (0, 64)
    there["x"] = Breaks()
    assert (cached(), cached()) == (0, 64)


def without_adapters(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda stretches: forward([stretch._replace(adapter=None) for stretch in stretches])


def test_what_never_fits_is_told_at_once(bench: Callable[..., Bench]) -> None:
    made = bench(None, 4)
    with pytest.raises(ContextTooLong, match="holds 400"):
        made.engine.submit(job([1] * 400), Sink())
    with pytest.raises(ContextTooLong, match=f"holds {4 * BLOCK}"):
        made.engine.submit(job([1] * (4 * BLOCK + 1)), Sink())
    for wrong in (job([]), job([1], n=0), job([1], n=3, best_of=2), job([1], priority=99), job([1], adapter="x")):
        with pytest.raises(OptionError):
            made.engine.submit(wrong, Sink())
    (found,) = made.together([job([1] * (4 * BLOCK - 5), max_tokens=50, logit_bias={0: -100})])
    assert (len(found.tokens), found.finish_reason) == (6, "length")


def test_a_full_queue_is_busy_and_says_when_to_come_again(bench: Callable[..., Bench]) -> None:
    made = bench(queue=3, most=1)
    held = threading.Event()
    first = Sink()

    def slow(piece: Piece | BaseException) -> None:
        held.wait(20)
        first(piece)

    made.engine.submit(job([1]), slow)
    while made.engine.stats().steps == 0:
        threading.Event().wait(0.005)
    sinks = [Sink() for _ in range(3)]
    for sink in sinks:
        made.engine.submit(job([1]), sink)
    with pytest.raises(Busy) as refused:
        made.engine.submit(job([1]), Sink())
    assert 1 <= refused.value.retry_after <= 60
    turns = [refused.value.retry_after]
    for _ in range(2000):
        with pytest.raises(Busy) as refused:
            made.engine.submit(job([1]), Sink())
        turns.append(refused.value.retry_after)
    assert turns == sorted(turns) and turns[20] > 2 and turns[-1] == 60, "each comes behind those refused before"
    held.set()
    for sink in (first, *sinks):
        sink.wait()
    assert len(made.together([job([i + 1]) for i in range(20)])) == 20, "a list never overfills the queue itself"


def test_cancelling_frees_and_nothing_more_comes(bench: Callable[..., Bench]) -> None:
    made = bench(context=2000)
    sink = Sink()
    ticket = made.engine.submit(job([1], n=3, temperature=1.0, max_tokens=1500, logit_bias={0: -100}), sink)
    while len(sink.got) < 5:
        threading.Event().wait(0.005)
    ticket.cancel()
    made.at_rest()
    count = len(sink.got)
    made.together([job([2])])
    assert len(sink.got) == count


def test_closing_ends_everybody_with_an_error_and_the_thread(bench: Callable[..., Bench]) -> None:
    made = bench(context=2000)
    sink = Sink()
    made.engine.submit(job([1], max_tokens=1500, logit_bias={0: -100}), sink)
    thread = made.engine._thread
    made.engine.close()
    made.engine.close()
    assert "closed" in str(sink.wait()[-1]) and thread is not None and not thread.is_alive()
    with pytest.raises(Exception, match="closed"):
        made.engine.submit(job([1]), sink)


def test_events_and_numbers_tell_what_happened(bench: Callable[..., Bench]) -> None:
    made, told = bench(), defaultdict(list)

    def observe(event: Event) -> None:
        told[event.name].append(event)

    made.engine.observe = observe
    made.together([job(range(1, 40), max_tokens=5, logit_bias={0: -100}) for _ in range(3)])
    made.at_rest()
    assert {name: len(events) for name, events in told.items()} == {"queue": 3, "first": 3, "between": 12, "whole": 3}
    assert all(event.seconds >= 0 for events in told.values() for event in events)
    assert {event.outcome for event in told["whole"]} == {"length"}
    stats = made.engine.stats()
    assert (stats.running, stats.waiting, stats.tokens_out) == (0, 0, 15)
    assert stats.tokens_in + stats.prefix_tokens == 3 * 39 and stats.blocks_cached


# Guides and splitters ------------------------------------------------------------------------------------------------


class Counts:
    """A guide that wants the tokens 9, 8, 7 and nothing else."""

    def __init__(self) -> None:
        self.rest = [9, 8, 7]

    @property
    def complete(self) -> bool:
        return not self.rest

    def mask(self, logits: Tensor) -> None:
        keep = logits[self.rest[0]].clone()
        logits.fill_(-torch.inf)
        logits[self.rest[0]] = keep

    def accept(self, token: int) -> None:
        assert token == self.rest.pop(0)


class Halves:
    """A splitter: the first four characters are thought, the next called, the others said; one is held back."""

    def __init__(self) -> None:
        self.n, self.held = 0, ""

    def push(self, text: str) -> Piece:
        held, self.held = self.held + text[:-1], text[-1]
        found = [self.one(c) for c in held]
        return Piece(
            "".join(t for t, _, _ in found), reasoning="".join(r for _, r, _ in found),
            calls=tuple(c for _, _, calls in found for c in calls),
        )  # fmt: skip

    def one(self, c: str) -> tuple[str, str, tuple[ToolDelta, ...]]:
        self.n += 1
        if self.n <= 4:
            return "", c, ()
        return (c, "", ()) if self.n != 5 else ("", "", (ToolDelta(0, c, "id", "name"),))

    def finish(self) -> Piece:
        text, reasoning, calls = self.one(self.held)
        return Piece(text, reasoning=reasoning, calls=calls)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_guide_decides_and_its_end_is_the_answers(temperature: float, bench: Callable[..., Bench]) -> None:
    made, one = bench(), job([1, 2], guide=Counts, temperature=temperature, min_tokens=3)
    for found in (*made.together([one, one]), made.alone(one)):
        assert (found.tokens, found.finish_reason) == ([9, 8, 7], "stop")


def test_answers_are_taken_apart_alone_as_together(bench: Callable[..., Bench]) -> None:
    made = bench()
    one = job([5, 6, 7], split=Halves, min_tokens=11, ignore_eos=True)
    plain = made.alone(job([5, 6, 7], min_tokens=11, ignore_eos=True)).text
    for found in (*made.together([one, one]), made.alone(one)):
        assert (found.reasoning, found.text) == (plain[:4], plain[5:])
        assert found.tool_calls[0].arguments == plain[4] and found.tool_calls[0].id == "id"
        assert len(found.tokens) == 12 and found.usage.reasoning_tokens in (4, 5)


# A model of its own --------------------------------------------------------------------------------------------------


def test_a_model_that_is_garbage_leaves_no_thread() -> None:
    import brolly

    model = brolly.load("mini-llm", device="cpu")
    found = model.generate(["Once upon a time", "The hen"], max_tokens=4)
    assert len(found) == 2
    thread, gone = model.engine._thread, weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None and thread is not None and not thread.is_alive()


def test_blocks_come_from_the_bytes_that_are_given() -> None:
    cpu = torch.device("cpu")
    assert blocks_for(1000, 1000, cpu, 50_000) == 50
    assert blocks_for(100, 2**10, cpu) == 2**16 // BLOCK, "a small context: memory for many"
    with pytest.raises(OptionError, match="8,000 at least"):
        blocks_for(1000, 1000, cpu, 5000)
