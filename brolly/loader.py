"""Reference to Model. Without torch until the files are known to be sound, so that a mistake is told at once."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, cast

from brolly import hub
from brolly.checkpoint import Mapped
from brolly.errors import OptionError
from brolly.identity import examine
from brolly.kernels.pages import Populator
from brolly.remote import is_remote
from brolly.remote.meant import check
from brolly.verbs import Remotely

if TYPE_CHECKING:
    import torch

    from brolly.model import Model

log = logging.getLogger("brolly")


def load(
    reference: str | Path,
    *,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    fused: bool = True,
    **remote: Unpack[Remotely],
) -> Model:
    """The model of a path, a hub name or a URL, ready for its verbs; or one that runs elsewhere (openai:gpt-5,
    https://host/v1#model), which is a `brolly.remote.Remote` with the same verbs and takes RemoteOptions.

    `device` is torch's word (default: CUDA, then MPS, then CPU); `dtype` is "float32", "bfloat16" or "float16"
    (default: the checkpoint's own where this device computes in it natively). `fused=False` keeps every module torch's
    own, to be changed or trained. Raises brolly.errors.BrollyError.
    """
    if is_remote(reference):
        from brolly.remote import Remote

        if device is not None or dtype is not None:
            raise OptionError(f"{reference} runs elsewhere; device and dtype are for models on this disk.")
        return cast("Model", Remote(str(reference), **remote))
    if remote:
        raise OptionError(f"{min(remote)} is for models that run elsewhere; {reference} is on this disk.")
    check(reference)
    card = examine(hub.resolve(reference))
    found = card.recognised
    mapped = Mapped(card.header)
    populator = Populator(mapped.all())
    populator.start()

    with no_collection():
        from brolly.fill import choose_device, choose_dtype, fill
        from brolly.model import Model

        place = choose_device(device)
        kind = choose_dtype(dtype, card.header, place)
        network, sources = fill(found, mapped, place, kind)
    log.info("%s on %s in %s", card.header.path, place, str(kind).removeprefix("torch."))

    def release(name: str) -> None:
        populator.stop = True
        mapped.release(sources[name])

    return Model(card, network, release, fused=fused)


@contextmanager
def no_collection() -> Iterator[None]:
    """What is imported and built here stays; to look for garbage in it took as long as loading."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
