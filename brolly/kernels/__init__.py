"""C beside its torch reference; nobody else imports ctypes."""

from __future__ import annotations


def status() -> str:
    """Whether the fused steps run here, and why not, in one line."""
    from brolly.kernels import decoder

    if isinstance(lib := decoder.library(), str):
        return f"none: {lib}; torch does the work"
    return f"fused steps, {lib.brolly_lanes()} floats a vector" + ", AMX for prompts" * bool(lib.brolly_amx())
