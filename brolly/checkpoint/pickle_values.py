"""What stands on a scanned pickle's stack, and what some calls make of it."""

from __future__ import annotations

from typing import Any, NamedTuple


class Name(NamedTuple):
    """A global that the pickle imports."""

    module: str
    name: str


class Stretch(NamedTuple):
    """A long text or any bytes: where they lie in the tape."""

    start: int
    size: int


class Call(NamedTuple):
    """What calling `what` would give."""

    what: Any
    arguments: Any


LOADER, ENCODER = Name("torch.storage", "_load_from_bytes"), Name("_codecs", "encode")
SPELT = {b"\xc2\x80\x02", b"\xc2\x80\x03", b"\xc2\x80\x04", b"\xc2\x80\x05"}  # \x80 and a protocol, in UTF-8
MAKERS = {Name(m, n) for m in ("builtins", "__builtin__") for n in ("bytes", "bytearray", "list", "tuple", "set")}
ARRAY = Name("joblib.numpy_pickle", "NumpyArrayWrapper")


def is_latin(arguments: Any) -> bool:
    """Whether an encoding leaves each letter the byte that it stands for."""
    named = arguments[1:2] if isinstance(arguments, tuple) else ()
    return named in (("latin1",), ("latin-1",), ("iso-8859-1",))


def is_huge(arguments: tuple[Any, ...]) -> bool:
    """Whether a container is asked for more than a GiB of nothing, or for all numbers up to a high one."""
    first = arguments[0] if arguments else None
    if isinstance(first, Call) and first.what.name in ("range", "xrange") and isinstance(first.arguments, tuple):
        return any(isinstance(n, int) and n > 2**27 for n in first.arguments)
    return type(first) is int and first > 2**30


def item_size(dtype: Any) -> int | None:
    """Bytes of one item of numpy.dtype("f8", …); nought for objects, which are pickled."""
    if not isinstance(dtype, Call) or not isinstance(dtype.arguments, tuple) or not dtype.arguments:
        return None
    word = dtype.arguments[0]
    if not isinstance(word, str) or len(word) < 2 or word[0] not in "biufcSUVMmO" or not word[1:].isdigit():
        return None
    return 0 if word[0] == "O" else int(word[1:]) * (4 if word[0] == "U" else 1)
