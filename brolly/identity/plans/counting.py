"""The few kinds of layer that networks are made of, counted; a config whose numbers are checked as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

MOST = 2**40  # of one number in a config; a hostile one may say anything
MOST_LISTED = 512  # numbers or names in a list of a config
MOST_LAYERS = 128  # counted one by one


class Untold(Exception):
    """The config does not tell enough for an exact count."""


class Given:
    """A config as its library reads it: what a key leaves out has the library's own default, where that is certain."""

    def __init__(self, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.config, self.defaults = config, defaults

    def get(self, *names: str) -> Any:
        """The value of the first name that the config has; else its default; None where there is neither."""
        for source in (self.config, self.defaults):
            for name in names:
                if source.get(name) is not None:
                    return source[name]
        return None

    def n(self, *names: str, default: int | None = None) -> int:
        """A whole number that is not negative. Raises Untold."""
        value = self.get(*names)
        value = default if value is None else value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or not 0 <= value <= MOST:
            raise Untold(names[0])
        return value

    def real(self, *names: str, default: float | None = None) -> float:
        """A number that is not negative. Raises Untold."""
        value = self.get(*names)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST:
            raise Untold(names[0])
        return float(value)

    def on(self, name: str, default: bool | None = None) -> bool:
        """A switch. Raises Untold."""
        value = self.config.get(name)  # a switch that is null is off
        if name not in self.config:
            value = self.defaults.get(name, default)
            if value is None:
                raise Untold(name)
        return bool(value)

    def word(self, name: str, default: str | None = None) -> str:
        """A text. Raises Untold."""
        value = self.get(name)
        value = default if value is None else value
        if not isinstance(value, str):
            raise Untold(name)
        return value

    def words(self, name: str) -> list[str]:
        """A list of texts. Raises Untold."""
        value = self.get(name)
        if not isinstance(value, (list, tuple)) or len(value) > MOST_LISTED:
            raise Untold(name)
        if not all(isinstance(v, str) for v in value):
            raise Untold(name)
        return list(value)

    def ns(self, name: str, times: int | None = None) -> list[int]:
        """A list of whole numbers; with `times`, one number stands for that many of it. Raises Untold."""
        value = self.get(name)
        if times is not None and type(value) is int and 0 <= times <= MOST_LISTED:
            value = [value] * times
        if not isinstance(value, (list, tuple)) or len(value) > MOST_LISTED:
            raise Untold(name)
        if not all(type(v) is int and 0 <= v <= MOST for v in value) or (times is not None and len(value) != times):
            raise Untold(name)
        return list(value)

    def pair(self, name: str) -> tuple[int, int]:
        """Height and width, of which one number stands for both. Raises Untold."""
        height, width = self.ns(name, 2)
        return height, width

    @property
    def n_labels(self) -> int:
        """Classes of a head: as many as have names."""
        names = self.config.get("id2label")
        return len(names) if isinstance(names, Mapping) else self.n("num_labels", "_num_labels", default=2)

    @property
    def architecture(self) -> str:
        """The class that the weights were saved from; empty where the config does not tell."""
        names = self.config.get("architectures")
        first = names[0] if isinstance(names, (list, tuple)) and names else ""
        return first if isinstance(first, str) else ""

    @property
    def tied(self) -> bool:
        return self.on("tie_word_embeddings", True)

    def patches(self, *, size: str = "image_size", patch: str = "patch_size") -> int:
        """Patches of an image."""
        (h, w), (p, q) = self.pair(size), self.pair(patch)
        return (h // over(p)) * (w // over(q))


def over(n: int) -> int:
    """A divisor. Raises Untold on zero."""
    if not n:
        raise Untold("a division by zero")
    return n


def layers(n: int) -> range:
    """Indices of a network's layers. Raises Untold where there are more than any network has."""
    if n > MOST_LAYERS:
        raise Untold("layers")
    return range(n)


def linear(n_in: int, n_out: int, bias: bool = True) -> int:
    return n_in * n_out + n_out * bias


def conv(n_in: int, n_out: int, kernel: int | tuple[int, ...], bias: bool = True, groups: int = 1) -> int:
    """Of a picture, whose kernel is square unless its sides are given; a transposed one counts the same."""
    size = kernel * kernel if isinstance(kernel, int) else prod(kernel)
    return n_in // over(groups) * n_out * size + n_out * bias


def conv1d(n_in: int, n_out: int, kernel: int, bias: bool = True, groups: int = 1) -> int:
    return conv(n_in, n_out, (kernel,), bias, groups)


def norm(dim: int, bias: bool = True) -> int:
    """A LayerNorm, GroupNorm or BatchNorm (whose running statistics are no parameters); RMSNorm has no bias."""
    return dim * (1 + bias)


def attention(dim: int, inner: int | None = None, context: int | None = None, bias: bool = True) -> int:
    """Query, key, value and output. `inner`: heads x head size; `context`: width of what keys and values come from."""
    inner = dim if inner is None else inner
    context = dim if context is None else context
    return linear(dim, inner, bias) + 2 * linear(context, inner, bias) + linear(inner, dim, bias)


def mlp(dim: int, hidden: int, out: int | None = None, bias: bool = True) -> int:
    return linear(dim, hidden, bias) + linear(hidden, dim if out is None else out, bias)


def gated(dim: int, hidden: int, bias: bool = False) -> int:
    """Gate, up and down: SwiGLU and its kin."""
    return 2 * linear(dim, hidden, bias) + linear(hidden, dim, bias)


def block(dim: int, hidden: int, bias: bool = True) -> int:
    """The transformer's usual layer: attention, MLP, two LayerNorms."""
    return attention(dim, bias=bias) + mlp(dim, hidden, bias=bias) + 2 * norm(dim)
