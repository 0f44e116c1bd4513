"""C beside its torch reference; nobody else imports ctypes."""

from __future__ import annotations


def status() -> str:
    """Which fused passes run here, and why not, in one line."""
    from brolly.kernels import decoder, encoder

    if isinstance(lib := decoder.library(), str):
        return f"none: {lib}; torch does the work"
    told = f"fused steps, {lib.brolly_lanes()} floats a vector" + ", AMX for prompts" * bool(lib.brolly_amx())
    why = encoder.library()
    return told + (f"; encoders by torch: {why}" if isinstance(why, str) else "; fused encoders in bfloat16")
