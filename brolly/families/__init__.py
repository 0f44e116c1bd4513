"""What a checkpoint is. Each file here that defines FAMILY is one; they are found by listing the folder."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from brolly.card import Family, Header, Recognised
from brolly.checkpoint.nf4 import gathered, is_nf4
from brolly.errors import CheckpointError, UnknownModel

LOADABLE = ("safetensors", "torch", "torchscript", "meta", "gguf", "ggml", "llama2c")  # mapped from their files
DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}  # that torch computes with as they lie


@cache
def families() -> tuple[Family, ...]:
    """Every family of this folder, by file name."""
    names = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem != "__init__")
    modules = (import_module(f"{__name__}.{name}") for name in names)
    return tuple(m.FAMILY for m in modules if hasattr(m, "FAMILY"))


def recognise(header: Header) -> Recognised:
    """The one family that a header belongs to, and its config. Raises UnknownModel."""
    if header.format not in LOADABLE:
        raise UnknownModel(
            f"{header.path} is in the format {header.format or 'of none'}, which brolly tells and does not run; "
            f"it runs {', '.join(LOADABLE)} files of {_known()}."
        )
    if not header.tensors:
        raise CheckpointError(f"{header.path} holds no weights; there is nothing to run.", "")
    header = gathered(header)
    _unpacked(header)
    matches = [f for f in families() if f.match(header)]
    matches = [f for f in matches if not any(other.narrows is f for other in matches)]
    if not matches:
        raise UnknownModel(_unknown(header))
    assert len(matches) == 1, f"{header.path} matches {[f.name for f in matches]}; exactly one family may say yes"
    try:
        return Recognised(header, matches[0], matches[0].config(header))
    except LookupError as error:
        what = f"{header.path} is a {matches[0].name} by its names, and lacks {error}; it is incomplete."
        raise CheckpointError(what, "") from None
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        what = f"{header.path} is a {matches[0].name} by its names, and its shapes or its config are not ({error})."
        raise CheckpointError(what, "") from None


def _unpacked(header: Header) -> None:
    """Packed weights are told, and not run yet. Raises CheckpointError."""
    advice = "which cannot be run yet; use a file of the same model in BF16, F16 or F32."
    if packed := next((t for t in header.tensors.values() if t.dtype not in (*DTYPES, "NF4")), None):
        raise CheckpointError(f"{packed.file}: {packed.name} is stored as {packed.dtype}, {advice}", "")
    if is_nf4(header):
        return
    for key in ("quantization_config", "quantization"):
        if isinstance(said := header.config.get(key), dict):
            method = said.get("quant_method") or f"{said.get('bits', '?')} bits"
            raise CheckpointError(f"{header.path} is quantised ({method!r:.40} in its config), {advice}", "")


def _known() -> str:
    return ", ".join(f.name for f in families() if f.narrows is None)


def _unknown(header: Header) -> str:
    known = _known()
    if header.format == "ggml":
        made = header.metadata.get("variant", "other")
        return (
            f"{header.path} is a {made} model in ggml's old format, of which brolly runs Whisper; convert it to GGUF."
        )
    kind = header.config.get("model_type") or header.metadata.get("general.architecture")
    if isinstance(kind, str):
        return f"{header.path} is a {kind[:60]!r} model, which brolly does not know; it knows {known}."
    if any(".lora_A." in name for name in header.tensors):
        return f"{header.path} is an adapter, which changes a model and is none; name its base, and --adapter with it."
    if not header.config and header.tensors:
        return f"{header.path} has tensors and no config.json or params.json beside them; add it, it tells the shape."
    return f"{header.path} says nothing of its architecture (no model_type in its config); brolly knows {known}."
