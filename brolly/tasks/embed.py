"""Texts and pictures → vectors, in batches: texts in a row without padding, pictures while the next are decoded."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from brolly.errors import BrollyError, CheckpointError, ContextTooLong, MediaError, TokenizerError, UnsupportedTask
from brolly.layers.transformer import Spans
from brolly.media.image import Preprocess, ahead, open_image
from brolly.media.text import Tokenizer
from brolly.tasks.late import kept, late_of, longest, queries
from brolly.verbs import Embedding, Embeddings, EmbedOptions


class Encoder(Protocol):
    """A network that offers `texts`, `images` or both, and what stands before them. `Model` is one."""

    network: Any
    device: torch.device
    dtype: torch.dtype

    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def preprocess(self) -> Preprocess: ...
    def prompted(self, text: str, role: str | None) -> str: ...


def embed(model: Encoder, inputs: Sequence[Any], options: EmbedOptions) -> Iterator[Embedding]:
    """Every input's vector or error, as they come: strings are texts, lists the ids of one, all else is a picture."""

    def found(i: int, kind: str, row: Tensor | BrollyError, n_tokens: int = 0) -> Embedding:
        if isinstance(row, BrollyError):
            return Embedding(i, kind, error=row)
        if not row.isfinite().all():
            return Embedding(i, kind, error=broken(model), n_tokens=n_tokens)
        row = row[..., : options.dimensions]
        vector = F.normalize(row, dim=-1) if normalizes(model) else row
        return Embedding(i, kind, vector.cpu().numpy(), n_tokens)

    texts = {i: text for i, text in enumerate(inputs) if isinstance(text, (str, list))}
    late = late_of(model.network.config)
    role = options.role or ("document" if late else None)
    rows, errors = read_texts(model, texts, options.truncate, role)
    for i, error in errors.items():
        yield found(i, "text", error)
    asks = late is not None and role == "query"
    for i, vector in queries(model, late, rows) if late and asks else embed_rows(model, rows, options.batch_size):
        vector = vector[kept(model.tokenizer, late, rows[i])] if late and not asks else vector
        yield found(i, "text", vector, len(rows[i]))
    places = [i for i in range(len(inputs)) if i not in texts]
    seen = see(model, model.network.images, [inputs[i] for i in places], options.batch_size) if sees(model) else None
    blind = UnsupportedTask("this model reads texts alone; it has no eye for pictures.")
    for i in places:
        yield found(i, "image", next(seen) if seen else blind)


def gather(found: Iterable[Embedding]) -> Embeddings:
    """All vectors in the order of their inputs. Raises the first error."""
    import numpy as np

    rows = []
    for one in found:
        if one.error:
            raise one.error
        rows.append(one)
    rows.sort(key=lambda one: one.index)
    vectors: Any = [one.vector for one in rows]
    if all(v.ndim == 1 for v in vectors):
        vectors = np.stack(vectors) if vectors else np.zeros((0, 0), np.float32)
    return Embeddings(vectors, tuple(one.kind for one in rows), sum(one.n_tokens for one in rows))


def similarities(a: Embeddings, b: Embeddings) -> Any:
    """The cosine of each pair, (len a, len b) float32; of a vector a token, each of a's finds its best and all add."""
    import numpy as np

    def unit(vectors: Any) -> Any:
        return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)

    if isinstance(a.vectors, np.ndarray) and isinstance(b.vectors, np.ndarray):
        return unit(a.vectors) @ unit(b.vectors).T
    pairs = [[(unit(q) @ unit(d).T).max(axis=1).sum() for d in b.vectors] for q in a.vectors]
    return np.array(pairs, np.float32)


def normalizes(model: Encoder) -> bool:
    """Whether vectors have length 1: as a text embedder's files say, always in a space of texts and pictures."""
    said = getattr(model.network.config, "normalize", None)
    return hasattr(model.network, "texts") if said is None else bool(said)


def broken(model: Encoder) -> CheckpointError:
    """What a network's answer means that is no number."""
    dtype = str(model.dtype).removeprefix("torch.")
    return CheckpointError(
        f"the network's answer is no finite number; its weights are broken, or {dtype} is too narrow for them: "
        "use float32, or pull the model again."
    )


# Texts ----------------------------------------------------------------------------------------------------------------


def read_texts(
    model: Encoder, texts: Mapping[int, str | list[int]], truncate: bool, role: str | None = None
) -> tuple[dict[int, list[int]], dict[int, BrollyError]]:
    """Token ids of each text that the model can read, and the errors of the others; what was cut is warned of once.

    A text that comes as ids is read as it is, with nothing put around it.
    """
    rows: dict[int, list[int]] = {}
    errors: dict[int, BrollyError] = {}
    cut: list[BrollyError] = []
    if not texts or not reads(model):
        return {}, dict.fromkeys(texts, UnsupportedTask("this model sees pictures alone; it reads no text."))
    asked = {i: model.prompted(text, role) for i, text in texts.items() if isinstance(text, str)}
    ready = {i: ids for i, ids in texts.items() if not isinstance(ids, str)}
    for i, ids in {**encoded(model.tokenizer, asked), **ready}.items():
        try:
            if isinstance(ids, BrollyError):
                raise ids
            text = asked.get(i, f"ids {ids[:8]}")
            rows[i], longer = fitted(model, ids, text, longest(model.network.config, role))
            if longer and not truncate:
                raise ContextTooLong(f"{longer} Shorten it.")
            cut += [longer] if longer else []
        except BrollyError as error:
            rows.pop(i, None)
            errors[i] = error
    if cut:
        also = f" {len(cut) - 1} more are too long." if len(cut) > 1 else ""
        warnings.warn(f"{cut[0]} Its end was cut.{also}", stacklevel=4)
    return rows, errors


def encoded(tokenizer: Tokenizer, texts: Mapping[int, str]) -> dict[int, list[int] | BrollyError]:
    """The ids of all texts at once, or, where one of them is at fault, of one at a time."""
    try:
        return dict(zip(texts, tokenizer.encode_many(list(texts.values())), strict=True))
    except BrollyError as error:
        if len(texts) == 1:
            return dict.fromkeys(texts, error)
    return {i: found for i, text in texts.items() for found in encoded(tokenizer, {i: text}).values()}


def fitted(model: Encoder, ids: list[int], text: str, most: int) -> tuple[list[int], ContextTooLong | None]:
    """The ids of a text with what goes around it, cut to what the model reads (`most`), and the error that a cut is."""
    config, tokenizer = model.network.config, model.tokenizer
    longer = None
    if len(ids) > most:
        longer = ContextTooLong(f"{text[:60]!r} has {len(ids)} tokens, and the model reads {most}.")
        end = ids[-1:] if tokenizer.is_special(ids[-1]) else []
        ids = ids[: most - len(end)] + end
    if max(ids, default=0) >= config.vocab_size:
        raise UnsupportedTask(f"{tokenizer.source} makes token {max(ids)}, and the network has {config.vocab_size}.")
    tower: Any = getattr(config, "text", None)
    if getattr(tower, "pool", "") == "eos" and tower.eos_id not in ids:
        what = f"{tokenizer.source} puts no token {tower.eos_id} behind a text, where this network gathers its meaning"
        raise TokenizerError(f"{what}; put the model's own tokenizer beside it.")
    if getattr(tower, "padded", False):
        filler = next(i for i in (tokenizer.pad_id, tokenizer.eos_id, 0) if i is not None)
        ids = ids + [filler] * (config.context - len(ids))
    if not ids:
        raise UnsupportedTask("the text is empty, and this model's tokenizer puts nothing around it.")
    return ids, longer


def embed_rows(model: Encoder, rows: Mapping[int, Sequence[int]], batch_size: int) -> Iterator[tuple[int, Tensor]]:
    """The vector of each row of ids, the longest first: neighbours of equal length are one batch of attention."""
    order = sorted(rows, key=lambda i: -len(rows[i]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        ids = torch.tensor([token for i in places for token in rows[i]], device=model.device)
        with torch.inference_mode():
            vectors = model.network.texts(ids, Spans([len(rows[i]) for i in places], model.device))
            found = vectors.float() if isinstance(vectors, Tensor) else [v.float() for v in vectors]  # a vector a token
        yield from zip(places, found, strict=True)


def reads(model: Encoder) -> bool:
    """Whether the network has a text tower."""
    return hasattr(model.network, "texts") and getattr(model.network.config, "text", True) is not None


def sees(model: Encoder) -> bool:
    """Whether the network has an eye."""
    return hasattr(model.network, "images") and getattr(model.network.config, "vision", True) is not None


# Pictures -------------------------------------------------------------------------------------------------------------


def prepared(model: Encoder, source: Any) -> Any:
    """A picture as the network takes it: (3, H, W) float32. Raises MediaError."""
    name = str(source) if isinstance(source, (str, Path)) else f"an image given as {type(source).__name__}"
    pixels, least = model.preprocess(open_image(source, name), name), model.network.config.vision.patch_size
    if min(pixels.shape[1:]) < least:
        height, width = pixels.shape[1:]
        raise MediaError(f"{name} would be read at {width} × {height} pixels; the model's patches have {least}.")
    return pixels


def see(
    model: Encoder, network: Callable[[Any], Tensor], sources: Iterable[Any], batch_size: int
) -> Iterator[Tensor | BrollyError]:
    """`network`'s row for each picture, in order; one that cannot be read keeps its error."""

    def rows(batch: list[Any]) -> Iterator[Tensor | BrollyError]:
        good = [torch.from_numpy(array).to(model.device) for array in batch if not isinstance(array, BrollyError)]
        pixels = torch.stack(good) if len({t.shape for t in good}) == 1 else good
        with torch.inference_mode():
            seen = iter(network(pixels).float() if good else ())
        return (array if isinstance(array, BrollyError) else next(seen) for array in batch)

    arrays = ahead(partial(prepared, model), sources, depth=2 * batch_size)
    while batch := list(islice(arrays, batch_size)):
        yield from rows(batch)
