"""bitsandbytes' 4-bit layout: a weight's codes and what they are multiplied by, brought together.

X.weight (n / 2, 1) U8 holds the codes; X.weight.absmax, .quant_map and, where magnitudes are in 8 bits themselves,
.nested_absmax and .nested_quant_map say what they mean; .quant_state.bitsandbytes__nf4 is JSON: shape, runs, offset.
"""

from __future__ import annotations

from collections.abc import Mapping

from brolly.card import Header, TensorInfo
from brolly.errors import CheckpointError

STATE = ".quant_state.bitsandbytes__nf4"
PARTS = {"absmax": ("F32", "U8"), "quant_map": ("F32",), "nested_absmax": ("F32",), "nested_quant_map": ("F32",)}
MOST_STATE = 4096  # bytes of JSON


def is_nf4(header: Header) -> bool:
    """Whether a header's config says so."""
    said = header.config.get("quantization_config")
    if not isinstance(said, Mapping) or said.get("quant_method") != "bitsandbytes":
        return False
    return bool(said.get("load_in_4bit") or said.get("_load_in_4bit")) and said.get("bnb_4bit_quant_type") == "nf4"


def gathered(header: Header) -> Header:
    """The same header with one tensor of dtype "NF4" a packed weight: its `shards` are the codes and the parts, in the
    order of PARTS, then the state. Its shape is the number of its numbers. Raises CheckpointError."""
    if not is_nf4(header):
        return header
    left = dict(header.tensors)
    for state in [name for name in left if name.endswith(STATE)]:
        stem = state.removesuffix(STATE)
        taken = [left.pop(stem, None), *(left.pop(f"{stem}.{part}", None) for part in PARTS), left.pop(state)]
        codes, absmax, quant_map, nested, nested_map, said = taken
        kinds = zip(taken[1:5], PARTS.values(), strict=True)
        if (
            codes is None or absmax is None or quant_map is None or said is None
            or (nested is None) != (nested_map is None)
            or codes.dtype != "U8" or said.dtype != "U8" or not 0 < said.nbytes <= MOST_STATE
            or any(one is not None and one.dtype not in allowed for one, allowed in kinds)
            or (absmax.dtype == "U8") != (nested is not None)
        ):  # fmt: skip
            raise CheckpointError(f"{header.path}: the 4-bit parts of {stem!r:.200} are incomplete; download it again.")
        shards = tuple(one for one in taken if one is not None)
        left[stem] = TensorInfo(
            stem,
            "NF4",
            (codes.n_elements * 2,),
            codes.file,
            codes.offset,
            sum(one.nbytes for one in shards),
            None,
            shards,
        )
    return header._replace(tensors=left)
