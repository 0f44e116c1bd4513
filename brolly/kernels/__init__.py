"""C beside its torch reference; nobody else imports ctypes."""

from __future__ import annotations


def status() -> str:
    """Which fused passes run here, and why not, in one line."""
    from brolly.kernels import batch, decoder, encoder

    if isinstance(lib := decoder.library(), str):
        return f"none: {lib}; torch does the work"
    told = f"fused steps, {lib.brolly_lanes()} floats a vector" + ", AMX for prompts" * bool(lib.brolly_amx())
    for what, why in (("encoders", encoder.library()), ("batches", batch.library())):
        told += f"; {what} by torch: {why}" if isinstance(why, str) else f"; fused {what} in bfloat16"
    return told
