"""What every family must show: written in a publisher's layout it is recognised, loads strictly and computes the same.

`check_language_model` is the shared check for causal language models, `check_encoder` for what makes vectors of
pictures and texts, `check_speech_model` for what writes down speech; a new family calls one of them with its reference
network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from brolly.card import Recognised
from brolly.checkpoint import Mapped, read_header
from brolly.engine.cache import Causal
from brolly.engine.listen import Listener
from brolly.engine.runner import Runner
from brolly.families import families, recognise
from brolly.fill import fill
from brolly.identity import examine
from brolly.layers.transformer import Spans

CPU = torch.device("cpu")


def check_language_model(
    folder: Path, family: str, reference: Any, *, tolerance: float = 1e-4, n_greedy: int = 64
) -> Any:
    """A checkpoint against its reference in float32: recognition, logits, cache, batch, greedy. Returns our network."""
    card, network = loaded(folder, family)
    ids = torch.arange(3, 15)[None] % card.config.vocab_size
    positions = torch.arange(ids.shape[1])[None]
    expected = reference(ids).logits
    with torch.inference_mode():
        logits = network.logits(network(ids, positions, Causal(card.config)))
    assert (logits - expected).abs().max() < tolerance

    assert_cached_equals_uncached(network, ids, logits)
    assert_batch_equals_one_by_one(network)
    n_new = min(n_greedy, card.config.context - ids.shape[1])
    theirs = reference.generate(ids, max_new_tokens=n_new, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert greedy(network, ids, n_new) == theirs[0, ids.shape[1] :].tolist()
    return network


def loaded(path: Path, family: str) -> tuple[Recognised, Any]:
    """A checkpoint recognised as this family and no other, and its network in float32, strictly filled."""
    header = read_header(path)
    card = recognise(header)
    assert card.family.name == family
    others = [f.name for f in families() if f.match(header) and f is not card.family and f is not card.family.narrows]
    assert others == [], f"{path} is also a {others}"
    return card, fill(card, Mapped(header), CPU, torch.float32)[0]


def check_encoder(
    path: Path, family: str, tasks: tuple[str, ...], expected: Mapping[str, Tensor], pictures: Any = None,
    texts: Sequence[Sequence[int]] = (), *, tolerance: float = 1e-4,
) -> Any:  # fmt: skip
    """Vectors, and logits where they are `expected`, against the reference's on the same float32 weights.

    `expected` names what is compared: "images", "texts", "logits" (of their pairs), "classes" (a classifier's). The
    card that identify tells must offer `tasks`. Texts lie in a row, as long as each is. Returns our network.
    """
    card, network = loaded(path, family)
    told = examine(path)
    assert (told.kind.family, told.verbs) == (family, tasks), (told.kind, told.verbs_why)
    found: dict[str, Tensor] = {}
    with torch.inference_mode():
        if "images" in expected:
            found["images"] = network.images(pictures)
            one_by_one = torch.cat([network.images(p[None]) for p in pictures])
            assert (found["images"] - one_by_one).abs().max() < 1e-4
        if "classes" in expected:
            found["classes"] = network.classify(pictures)
        if texts:
            ids = torch.tensor([i for text in texts for i in text])
            found["texts"] = network.texts(ids, Spans([len(text) for text in texts]))
        if "logits" in expected:
            found["logits"] = network.logits(found["images"], found["texts"])
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values.shape == expected[name].shape, name
        assert (values - expected[name]).abs().max() < tolerance, name
    return network


def assert_cached_equals_uncached(network: Any, ids: Tensor, logits: Tensor) -> None:
    """The last logits of growing pieces equal those of one pass."""
    runner = Runner(network)
    cache = runner.new_cache(1, 4)
    for start, end in ((0, 5), (5, 6), (6, 7), (7, ids.shape[1])):
        last = runner.forward(ids[:, start:end], torch.arange(start, end)[None], cache)
        assert (last - logits[:, end - 1]).abs().max() < 1e-4


def assert_batch_equals_one_by_one(network: Any) -> None:
    """Rows of different lengths, padded on the right and then continued, equal each row alone."""
    runner, vocab = Runner(network), network.config.vocab_size
    rows = [[5, 6, 7, 8, 9], [11, 12], [20, 21, 22]]
    longest = max(map(len, rows))
    padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows]) % vocab
    cache = runner.new_cache(len(rows), 4)
    places = torch.arange(longest).expand(len(rows), -1)
    with torch.inference_mode():
        cache.begin(places)
        hidden = network(padded, places, cache)
    together = [network.logits(hidden[i, len(row) - 1]) for i, row in enumerate(rows)]
    new = torch.tensor([[30], [31], [32]]) % vocab
    after = runner.forward(new, torch.tensor([[len(row)] for row in rows]), cache).clone()
    for i, row in enumerate(rows):
        alone = runner.new_cache(1, 4)
        first = runner.forward(torch.tensor([row]) % vocab, torch.arange(len(row))[None], alone).clone()
        second = runner.forward(new[i : i + 1], torch.tensor([[len(row)]]), alone)
        assert (together[i] - first[0]).abs().max() < 1e-4
        assert (after[i] - second[0]).abs().max() < 1e-4


def greedy(network: Any, ids: Tensor, n_new: int) -> list[int]:
    """The likeliest continuation through the runner."""
    runner = Runner(network)
    cache, written = runner.new_cache(1, 8), []
    positions = torch.arange(ids.shape[1])[None]
    for _ in range(n_new):
        token = int(runner.forward(ids, positions, cache).argmax())
        written.append(token)
        ids, positions = torch.tensor([[token]]), positions[:, -1:] + 1
    return written


def check_speech_model(
    path: Path, hear: Callable[[Tensor], Tensor], write: Callable[[Tensor, Tensor], Tensor], *, tolerance: float = 1e-4
) -> Any:
    """A Whisper against its reference in float32: `hear(mels)` encodes, `write(audio, ids)` gives all logits.

    The windows together and alone; one pass, cached steps, rows that fork, go on from others and end. Returns ours.
    """
    card, network = loaded(path, "Whisper")
    told = examine(path)
    assert (told.kind.family, told.verbs) == ("Whisper", ("transcribe",)), (told.kind, told.verbs_why)
    draw = torch.Generator().manual_seed(5)
    config, listener = card.config, Listener(network)
    mels = torch.randn(2, config.n_mels, 2 * config.audio_context, generator=draw)
    heard, audio = listener.hear(mels), hear(mels)
    assert (heard.audio - audio).abs().max() < tolerance
    assert (listener.hear(mels[1:]).audio - heard.audio[1:]).abs().max() < tolerance

    prompt = torch.randint(config.vocab_size, (2, 3), generator=draw)
    writing = listener.begin(heard, prompt.tolist())
    expected = write(audio, prompt)
    assert all((writing.prompt_logits(i) - expected[:, i]).abs().max() < tolerance for i in range(3))
    rows = writing.fork(3)
    text, audio = prompt.repeat_interleave(3, dim=0), audio.repeat_interleave(3, dim=0)
    for order in ([0, 1, 2, 3, 4, 5], [2, 0, 0, 5, 4, 4], [0, 2, 1, 3, 3, 3]):
        new = torch.randint(config.vocab_size, (6,), generator=draw)
        rows.reorder(order)
        text = torch.cat([text[order], new[:, None]], dim=1)
        assert (rows.step(new) - write(audio, text)[:, -1]).abs().max() < tolerance
    again = writing.fork(1)  # the prompt as it was
    assert (again.step(text[::3, 3]) - write(audio[::3], text[::3, :4])[:, -1]).abs().max() < tolerance
    rows.keep([1])
    text, audio = torch.cat([text[3:], new[:3, None]], dim=1), audio[3:]
    assert (rows.step(new[:3]) - write(audio, text)[:, -1]).abs().max() < tolerance
    return network
