"""The base in 4 bits (QLoRA, Dettmers et al. 2023): packed as it is loaded, a layer at a time; and written so.

Packed are the linear layers of the blocks. What stands outside them (embeddings, heads, norms) keeps its numbers.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brolly import hub, models
from brolly.card import Header, Recognised, TensorInfo
from brolly.checkpoint import Mapped
from brolly.checkpoint.nf4 import is_nf4
from brolly.errors import CheckpointError, OptionError
from brolly.fill import DTYPES, choose_device, choose_dtype, fill, view
from brolly.identity import Card, examine
from brolly.kernels.pages import trim
from brolly.layers.quantized import RUN, RUNS, NF4Linear, from_parts, pack, to_parts, unpack
from brolly.model import Model
from brolly.train.export import as_bytes

STATE = 512  # bytes of a written quant_state: its JSON and spaces, so that its size is known before its numbers


def load_packed(reference: Any, *, device: str | None = None, dtype: str | None = None) -> Model:
    """A model whose blocks are in 4 bits, in a network of torch's own modules. Raises as `load` does.

    Never more than one layer is there unpacked: the file is mapped, and each layer's pages are given back.
    """
    card = examine(hub.resolve(reference))
    place = choose_device(device)
    rest = card.header._replace(tensors={k: t for k, t in card.header.tensors.items() if t.dtype != "NF4"})
    kind = choose_dtype(dtype, rest, place)
    mapped = Mapped(card.header)
    network, sources = fill(card.recognised, mapped, torch.device("cpu"), as_stored(rest))
    pack_blocks(network, lambda name: mapped.release(sources[name]), place, kind)
    for name, parameter in list(network.named_parameters()):
        parameter.data = parameter.data.to(place, kind)
        if name in sources:
            mapped.release(sources[name])
    trim()
    return Model(card, network, None, fused=False)


def as_stored(header: Header) -> torch.dtype:
    """The dtype of most of a checkpoint's numbers, so that few are converted before they are packed."""
    return choose_dtype(None, header, torch.device("cuda"))  # which computes in all of them


def packable(network: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers within blocks that are not in 4 bits yet, by name."""
    lists = [f"{name}." for name, module in network.named_modules() if isinstance(module, nn.ModuleList)]
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
        and not isinstance(module, NF4Linear)
        and any(name.startswith(blocks) for blocks in lists)
        and module.in_features * module.out_features % 2 == 0
    }


def pack_blocks(
    network: nn.Module, release: Callable[[str], None], device: torch.device, dtype: torch.dtype
) -> None:  # fmt: skip
    """Put NF4 layers in the blocks, that compute in `dtype` on `device`; `release` gives a parameter's pages back."""
    found = packable(network)
    if not found and not any(isinstance(m, NF4Linear) for m in network.modules()):
        raise OptionError(f"a {type(network).__name__} has no linear layers in blocks; leave out --bits.")
    for name, layer in found.items():
        network.set_submodule(name, NF4Linear.of(layer, device, dtype))
        release(f"{name}.weight")
    for module in network.modules():
        if isinstance(module, NF4Linear):
            module.packed, module.dtype = module.packed.to(device), dtype
    gc.collect()


def refuse_whole(card: Card) -> None:
    """Numbers in 4 bits have no gradient. Raises OptionError."""
    if is_nf4(card.header):
        raise OptionError(
            f"{card.header.path} is in 4 bits, which a LoRA can be learnt beside, and nothing more; leave out --full, "
            "or unpack it by `brolly merge MODEL -o whole`."
        )


# Files.

PACKED = ("LlamaConfig", "GPT2Config")  # whose packed files transformers reads by the same names
WORDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
JSON = ".quant_state.bitsandbytes__nf4"
Row = tuple[str, str, tuple[int, ...], Callable[[], Any]]
Changed = Callable[[str, Tensor], Tensor | None]


class Written:
    """How a model's file holds what is, or shall be, in 4 bits."""

    def __init__(self, card: Recognised, mapped: Mapped, changed: Changed, dtype: str | None, bits: int | None) -> None:
        self.mapped, self.changed, self.dtype, self.bits = mapped, changed, dtype, bits
        self.wanted: set[str] = set()
        if bits:
            if (kind := type(card.config).__name__) not in PACKED:
                raise OptionError(f"{card.header.path} is a {kind.removesuffix('Config')}; leave out --bits, which "
                                  "packs Llama's and GPT-2's blocks alone.")  # fmt: skip
            with torch.device("meta"):
                self.wanted = {f"{name}.weight" for name in packable(models.build(card.config))}

    def rows(
        self, source: str, info: TensorInfo, targets: Sequence[str], how: str, shapes: Mapping[str, Tensor]
    ) -> list[Row]:  # fmt: skip
        """A tensor's rows, if it is or shall be packed; else none. Raises CheckpointError, OptionError."""
        if info.dtype != "NF4" and not self.wanted & set(targets):
            return []
        if len(targets) != 1 or how not in ("", "transpose"):
            raise OptionError(
                f"{info.file}: {source} holds several layers, which are not packed apart; leave out --bits."
            )
        (target,), shape = targets, tuple(shapes[targets[0]].shape)
        numbers = partial(self.numbers, info, target, how, shape)
        word = before(self.mapped, info) if info.dtype == "NF4" else info.dtype
        word = WORDS[self.dtype] if self.dtype else word
        if target in self.wanted:
            return Packing(shape, word, numbers).rows(source)
        turned = how == "transpose"
        return [(source, word, shape[::-1] if turned else shape, partial(whole, numbers, word, turned))]

    def numbers(self, info: TensorInfo, target: str, how: str, shape: tuple[int, ...]) -> Tensor:
        """A weight (out, in) as it shall be."""
        if info.dtype == "NF4":
            old = unpacked(self.mapped, info)
        else:
            old = view(self.mapped, info)
            old = old.t() if how == "transpose" else old.reshape(shape)
        new = self.changed(target, old)
        return old if new is None else new

    def config(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """config.json's values."""
        found = {key: value for key, value in base.items() if key != "quantization_config"}
        kept = base.get("quantization_config")
        if self.wanted:
            found["quantization_config"] = told(self.dtype or str(base.get("dtype") or base.get("torch_dtype")))
        elif kept is not None and not (isinstance(kept, Mapping) and kept.get("quant_method") == "bitsandbytes"):
            found["quantization_config"] = kept
        return found


def whole(numbers: Callable[[], Tensor], word: str, turned: bool) -> bytearray:
    tensor = numbers()
    return as_bytes(tensor.t() if turned else tensor, DTYPES[word])


def unpacked(mapped: Mapped, info: TensorInfo) -> Tensor:
    """A packed tensor's numbers in float32. Raises CheckpointError."""
    try:
        return unpack(from_parts({piece.name.removeprefix(info.name): view(mapped, piece) for piece in info.shards}))
    except ValueError as error:
        raise CheckpointError(f"{info.file}: {info.name}: {error}.") from None


def before(mapped: Mapped, info: TensorInfo) -> str:
    """A packed tensor's dtype before it was packed, by the file's word: what its state tells, or BF16."""
    try:
        said = json.loads(bytes(view(mapped, info.shards[-1]).tolist()))
    except (ValueError, RecursionError):
        return "BF16"  # `unpacked` tells what is wrong
    return WORDS.get(str(said.get("dtype")) if isinstance(said, dict) else "", "BF16")


class Packing:
    """One weight as the tensors of bitsandbytes' layout, packed when the first is asked for and kept to the last."""

    def __init__(self, shape: tuple[int, ...], word: str, numbers: Callable[[], Tensor]) -> None:
        self.shape, self.word, self.numbers = shape, word, numbers
        self.parts: dict[str, Tensor] = {}

    def rows(self, name: str) -> list[Row]:
        """A file's rows: names, dtypes and shapes are known before the numbers."""
        n = math.prod(self.shape)
        runs = -(-n // RUN)
        expected = {
            "": ("U8", (n // 2, 1)), ".absmax": ("U8", (runs,)), ".quant_map": ("F32", (16,)), JSON: ("U8", (STATE,)),
            ".nested_absmax": ("F32", (-(-runs // RUNS),)), ".nested_quant_map": ("F32", (256,)),
        }  # fmt: skip
        return [(name + part, word, shape, partial(self.data, part)) for part, (word, shape) in expected.items()]

    def data(self, part: str) -> bytearray:
        if part not in self.parts:
            self.parts = to_parts(pack(self.numbers()), DTYPES[self.word])
            said = bytes(self.parts[JSON].tolist())
            assert len(said) <= STATE
            self.parts[JSON] = torch.frombuffer(bytearray(said.ljust(STATE)), dtype=torch.uint8)
        tensor = self.parts.pop(part)
        return as_bytes(tensor, tensor.dtype)


def told(dtype: str) -> dict[str, Any]:
    """config.json's quantization_config, as transformers writes it."""
    return {
        "quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "_load_in_4bit": True,
        "_load_in_8bit": False, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype if dtype in WORDS else "float32", "bnb_4bit_quant_storage": "uint8",
        "llm_int8_threshold": 6.0, "llm_int8_skip_modules": None, "llm_int8_has_fp16_weight": False,
        "llm_int8_enable_fp32_cpu_offload": False,
    }  # fmt: skip


def learnt_beside(adapter: Path) -> int | None:
    """In how many bits the base was beside which an adapter was learnt, where its recipe tells."""
    if not (adapter / "recipe.toml").is_file():
        return None
    from brolly.train.tuning.recipe import read_recipe

    lora = read_recipe(adapter / "recipe.toml").get("lora") or {}
    bits = lora.get("bits")
    return bits if isinstance(bits, int) else None
