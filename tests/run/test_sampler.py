"""The sampler against transformers' logits processors, and against OpenAI's definitions worked out by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from brolly.engine.sampler import Sampler
from brolly.errors import CheckpointError, OptionError
from brolly.verbs import GenerateOptions

VOCAB = 200
PROMPT = [3, 5, 5, 7, 199]


def logits(seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * spread


def shares(options: GenerateOptions, scores: Tensor, prompt: list[int] = PROMPT) -> Tensor:
    """Our distribution over the whole vocabulary."""
    probabilities, ids = Sampler(options, prompt).distribution(scores)
    return torch.zeros(len(scores)).index_add(0, torch.from_numpy(ids), torch.from_numpy(probabilities))


def expected(options: dict[str, float], scores: Tensor) -> Tensor:
    """Theirs, in the order in which generate() applies them."""
    T = pytest.importorskip("transformers")
    kinds = {
        "repetition_penalty": T.RepetitionPenaltyLogitsProcessor, "temperature": T.TemperatureLogitsWarper,
        "top_k": T.TopKLogitsWarper, "top_p": T.TopPLogitsWarper, "min_p": T.MinPLogitsWarper,
    }  # fmt: skip
    row = scores[None].clone()
    for name, kind in kinds.items():
        if name in options:
            row = kind(options[name])(torch.tensor([PROMPT]), row)
    return row[0].softmax(0)


SINGLE = [
    {"temperature": 0.3}, {"temperature": 1.0}, {"temperature": 5.0}, {"top_k": 1}, {"top_k": 7}, {"top_k": VOCAB},
    {"top_k": 10 * VOCAB}, {"top_p": 0.0}, {"top_p": 0.05}, {"top_p": 0.7}, {"top_p": 0.999}, {"top_p": 1.0},
    {"min_p": 0.0}, {"min_p": 0.02}, {"min_p": 0.5}, {"min_p": 1.0}, {"repetition_penalty": 1.7},
    {"repetition_penalty": 0.6},
]  # fmt: skip
TOGETHER = [
    {"temperature": 0.5, "top_k": 20}, {"temperature": 2.0, "top_p": 0.8}, {"temperature": 1.5, "min_p": 0.05},
    {"top_k": 30, "top_p": 0.6}, {"top_k": 30, "min_p": 0.1}, {"top_p": 0.9, "min_p": 0.2},
    {"temperature": 0.7, "top_k": 40, "top_p": 0.95, "min_p": 0.05},
    {"repetition_penalty": 1.3, "temperature": 3.0, "top_k": 50, "top_p": 0.9, "min_p": 0.01},
]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("options", SINGLE + TOGETHER, ids=str)
def test_distribution_is_that_of_transformers(options: dict[str, float], seed: int) -> None:
    scores = logits(seed)
    ours, theirs = shares(GenerateOptions(**options), scores), expected(options, scores)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_zero_top_k_and_no_options_keep_the_whole_distribution() -> None:
    for options in (GenerateOptions(), GenerateOptions(top_k=0), GenerateOptions(repetition_penalty=1.0)):
        torch.testing.assert_close(shares(options, logits()), logits().softmax(0))


def test_draws_follow_the_distribution() -> None:
    """20,000 draws of a twelve-token nucleus: each count within five standard deviations."""
    options, scores, n = GenerateOptions(top_k=12, temperature=2.0, seed=1), logits(4), 20_000
    share, counts, sampler = shares(options, scores), Counter(), Sampler(options, PROMPT)
    for _ in range(n):
        counts[sampler.choose(scores)] += 1
    assert set(counts) <= set(share.nonzero().flatten().tolist())
    for token, p in enumerate(share.tolist()):
        assert abs(counts[token] - n * p) <= 5 * math.sqrt(n * p * (1 - p)) + 1e-9


# OpenAI: mu[j] -> mu[j] - c[j] * frequency - (c[j] > 0) * presence, where c counts the written tokens alone -----------


@pytest.mark.parametrize(("presence", "frequency"), [(0.5, 0.0), (0.0, 0.7), (1.5, -0.4), (-2.0, 2.0)])
def test_presence_and_frequency_count_what_was_written(presence: float, frequency: float) -> None:
    options = GenerateOptions(presence_penalty=presence, frequency_penalty=frequency, temperature=0)
    sampler, written = Sampler(options, PROMPT), Counter()
    for step in range(30):
        scores = logits(step % 3, spread=1.5)
        mu = [float(s) - written[j] * frequency - (written[j] > 0) * presence for j, s in enumerate(scores)]
        token = sampler.choose(scores)
        assert token == max(range(VOCAB), key=mu.__getitem__)
        written[token] += 1
    assert max(written.values()) > 1


def test_presence_and_frequency_leave_the_prompt_alone() -> None:
    options = GenerateOptions(presence_penalty=2.0, frequency_penalty=2.0)
    torch.testing.assert_close(shares(options, logits()), logits().softmax(0))


def test_repetition_penalty_counts_what_was_written() -> None:
    sampler = Sampler(GenerateOptions(repetition_penalty=100.0, temperature=0))
    scores = torch.tensor([3.0, 2.0, 1.0])
    assert [sampler.choose(scores) for _ in range(3)] == [0, 1, 2]


def test_logit_bias_is_added_to_the_logit() -> None:
    scores, bias = logits(), {3: 5.0, 17: -2.5}
    by_hand = scores.clone()
    by_hand[3] += 5.0
    by_hand[17] -= 2.5
    torch.testing.assert_close(shares(GenerateOptions(logit_bias=bias), scores), by_hand.softmax(0))


def test_logit_bias_bans_and_forces() -> None:
    scores = logits()
    best = int(scores.argmax())
    assert Sampler(GenerateOptions(temperature=0, logit_bias={best: -100})).choose(scores) != best
    assert Sampler(GenerateOptions(temperature=2, logit_bias={9: 100.0})).choose(scores) == 9


@pytest.mark.parametrize("token", [-1, VOCAB])
def test_logit_bias_outside_the_vocabulary_is_told(token: int) -> None:
    with pytest.raises(OptionError, match=f"token {token}; this vocabulary has 0 to {VOCAB - 1}"):
        Sampler(GenerateOptions(logit_bias={token: 1.0})).choose(logits())


def test_the_logits_given_are_not_changed() -> None:
    scores = logits()
    options = GenerateOptions(
        presence_penalty=1.0, frequency_penalty=1.0, repetition_penalty=2.0, logit_bias={1: 9.0}, top_p=0.5
    )
    sampler = Sampler(options, PROMPT)
    sampler.choose(scores)
    sampler.choose(scores)
    assert torch.equal(scores, logits())


# Seeds and extremes --------------------------------------------------------------------------------------------------


def draws(seed: int | None, n: int = 40) -> list[int]:
    sampler = Sampler(GenerateOptions(seed=seed, temperature=3.0))
    return [sampler.choose(logits()) for _ in range(n)]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**80])
def test_a_seed_repeats(seed: int) -> None:
    torch.manual_seed(0)
    first = draws(seed)
    torch.manual_seed(99)
    assert first == draws(seed)


def test_other_seeds_and_no_seed_differ() -> None:
    assert len({tuple(draws(seed)) for seed in (0, 1, 2, None, None)}) == 5


def test_sampling_leaves_torchs_own_generator_alone() -> None:
    before = torch.random.get_rng_state()
    draws(None)
    draws(3)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("temperature", [1e-5, 1e-30, 1e-300])
def test_a_tiny_temperature_takes_the_likeliest(temperature: float) -> None:
    assert Sampler(GenerateOptions(temperature=temperature)).choose(logits()) == int(logits().argmax())


@pytest.mark.parametrize("temperature", [0, 0.5, 1.0, 2.0])
def test_a_logit_that_is_minus_infinity_or_no_number_is_never_chosen(temperature: float) -> None:
    scores = torch.full((4,), -torch.inf)
    scores[1], scores[2] = -1e4, torch.nan
    sampler = Sampler(GenerateOptions(temperature=temperature, repetition_penalty=1.5), [0, 1])
    assert {sampler.choose(scores) for _ in range(50)} == {1}


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_without_a_number_are_an_error(temperature: float) -> None:
    with pytest.raises(CheckpointError, match="float32"):
        Sampler(GenerateOptions(temperature=temperature)).choose(torch.full((4,), torch.nan))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_sampled_in_float32(dtype: torch.dtype) -> None:
    scores = logits().to(dtype)
    torch.testing.assert_close(shares(GenerateOptions(), scores), scores.float().softmax(0))
