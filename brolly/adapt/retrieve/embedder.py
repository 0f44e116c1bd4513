"""An embedder as an index needs it: a model, its name, its fingerprint, its tokens counted, vectors in float16."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brolly.errors import OptionError, UnsupportedTask

REMEMBERED = 20_000  # vectors of short texts
LEAST = 512  # tokens that any embedder reads
AROUND = 8  # tokens kept free for what a tokenizer puts around a text


class Embedder:
    """`reference` is what `brolly.load` takes; a Model may stand for it. `embedder_of` knows those behind HTTP, too."""

    def __init__(self, reference: Any, *, pictures: bool = False) -> None:
        from brolly.model import Model

        if isinstance(reference, Model):
            self.model, self.reference = reference, str(reference.card.header.path)
        else:
            from brolly.loader import load

            self.reference = str(reference)
            self.model = load(reference, dtype=_dtype())
        if "embed" not in self.model.card.recognised.tasks:
            raise UnsupportedTask(f"{self.reference} is no embedder; expected one, such as mini-embed.")
        can = hasattr(self.model.network, "images") if pictures else hasattr(self.model.network, "texts")
        if not can:
            wanted = "a model of pictures and texts, such as mini-clip" if pictures else "an embedder of texts"
            raise UnsupportedTask(f"{self.reference} cannot embed {'pictures' if pictures else 'texts'}; use {wanted}.")
        probe = self.model.embed(["a"], role=None if pictures else "query").vectors
        if isinstance(probe, list):
            raise UnsupportedTask(f"{self.reference} gives a vector a token; an index keeps one a chunk.")
        self.dimensions = int(probe.shape[1])
        self.fingerprint = _fingerprint(self.model)
        self._short: dict[str, Any] = {}

    @property
    def reads(self) -> int:
        """Tokens of a text that the model reads, without what stands around it."""
        config: Any = self.model.network.config
        prefix = len(self.model.tokenizer.encode(self.model.prompted("", "document"), special=False))
        context = int(getattr(config, "reads", None) or config.context)
        return max(context - prefix - AROUND, 8)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self.model.tokenizer.encode_many([_readable(text) for text in texts])]

    def documents(self, texts: Sequence[str], batch_size: int = 32) -> Any:
        """(n, dimensions) float32, each of length 1."""
        return unit(
            self.model.embed([_readable(text) for text in texts], role="document", batch_size=batch_size).vectors
        )

    def remembered(self, texts: Sequence[str]) -> Any:
        """The vectors of short texts that come again and again, (n, dimensions): words, the best sources' sentences."""
        import numpy as np

        if len(self._short) > REMEMBERED:
            self._short.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._short]
        if new:
            self._short.update(zip(new, self.documents(new, batch_size=128), strict=True))
        return np.stack([self._short[text] for text in texts])

    def query(self, text: str) -> Any:
        """(dimensions,) float32, of length 1."""
        return unit(self.model.embed([_readable(text)], role="query").vectors)[0]

    def close(self) -> None:
        """Let go of what it holds."""


class Elsewhere(Embedder):
    """One that runs elsewhere: no tokenizer, so tokens are told by bytes; known by its vendor and its name there.

    `dimensions` is 0 until the first vector comes, or until the index that asks says how long its own are.
    """

    model: Any

    def __init__(self, model: Any) -> None:
        self.model, target = model, model.target
        self.reference, self.dimensions = str(target), 0
        self._roles = model.takes("role", "embed")  # UnsupportedTask where it does not embed at all
        self.fingerprint = hashlib.sha256(repr((target.vendor.name, target.model)).encode()).hexdigest()[:32]
        self._short = {}

    @property
    def reads(self) -> int:
        return max((self.model.traits.context or LEAST) - AROUND, 8)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [about_tokens(text) for text in texts]

    def documents(self, texts: Sequence[str], batch_size: int = 32) -> Any:
        return self._vectors(texts, "document")

    def query(self, text: str) -> Any:
        return self._vectors([text], "query")[0]

    def close(self) -> None:
        self.model.close()

    def _vectors(self, texts: Sequence[str], role: str) -> Any:
        how = {"role": role} if self._roles else {}
        found = unit(self.model.embed([_readable(text) for text in texts], **how).vectors)
        if self.dimensions not in (0, found.shape[1]):
            raise OptionError(
                f"{self.reference} gives {found.shape[1]} numbers a vector, and gave {self.dimensions} before; vectors "
                "of two lengths cannot be compared. Make the index anew."
            )
        self.dimensions = int(found.shape[1])
        return found


def embedder_of(reference: Any, *, pictures: bool = False, remote: Mapping[str, Any] | None = None) -> Embedder:
    """The embedder of a model or of what `brolly.load` takes; `remote` are RemoteOptions of one that runs elsewhere.

    Raises UnsupportedTask, NotFound.
    """
    from brolly.remote import Remote, is_remote

    model = Remote(reference, **(remote or {})) if is_remote(reference) else reference
    if not isinstance(model, Remote):
        return Embedder(model, pictures=pictures)
    if pictures:
        raise UnsupportedTask(f"{model.target} embeds no pictures here; use a model on this disk, such as mini-clip.")
    return Elsewhere(model)


def about_tokens(text: str) -> int:
    """Tokens of a text whose tokenizer nobody has: one every three bytes, which is rather too many."""
    return len(text.encode("utf-8", "replace")) // 3 + 1


def _dtype() -> str | None:
    """bfloat16 where the processor computes in it, which is faster: what is kept has no more digits than float16."""
    from brolly.fill import choose_device, native_bf16

    return "bfloat16" if choose_device(None).type == "cpu" and native_bf16() else None


def unit(vectors: Any) -> Any:
    """Rows of length 1."""
    import numpy as np

    return (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)).astype(np.float32)


def _readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode() or " "


def _fingerprint(model: Any) -> str:
    """Of some of a model's numbers, in bfloat16: another model has another one, another dtype of the same has not."""
    found = hashlib.sha256()
    for name, parameter in sorted(model.network.named_parameters()):
        some = parameter.detach().flatten()[:32].bfloat16().float().cpu().numpy()
        found.update(f"{name} {tuple(parameter.shape)}".encode() + some.tobytes())
    return found.hexdigest()[:32]


def check(kept: dict[str, str], given: Embedder, what: str, place: Path) -> None:
    """Raises OptionError where an index was made by another embedder."""
    name, dimensions, mark = (kept.get(f"{what}.{key}", "") for key in ("reference", "dimensions", "fingerprint"))
    if mark and mark != given.fingerprint:
        long = f" ({given.dimensions})" if given.dimensions else ""
        raise OptionError(
            f"{place} was made by {name} ({dimensions} numbers a vector), and {given.reference} is another model{long}"
            f"; vectors of two models cannot be compared. Use {name}, or make the index anew."
        )
    if mark and not given.dimensions:
        given.dimensions = int(dimensions)
