"""A card's network with the checkpoint's numbers: build on meta, rename, fill, check. Also a LoRA's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brolly import models
from brolly.card import Header, Recognised, TensorInfo
from brolly.checkpoint import Mapped
from brolly.checkpoint.names import rename
from brolly.engine.adapters import Adapter, LowRank, Rows
from brolly.errors import CheckpointError, OptionError
from brolly.families.heads import with_head
from brolly.families.peft import Pair, read_lora
from brolly.layers.linear import Linear
from brolly.layers.quantized import NF4Linear, from_parts

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
COMPUTE = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | None) -> torch.device:
    """The device named, or the best one here."""
    if device is None:
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        place = torch.device(device)
        if place.type == "meta":
            raise NotImplementedError("it holds shapes without numbers")
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(f"device {device!r} is not available here ({str(error).splitlines()[0]:.80}).") from None
    return place


def choose_dtype(dtype: str | torch.dtype | None, header: Header, device: torch.device) -> torch.dtype:
    """The dtype named, or the checkpoint's; on a CPU never float16, and bfloat16 only where it is native."""
    if isinstance(dtype, str):
        if dtype not in COMPUTE:
            raise OptionError(f"dtype {dtype!r} is not known; expected {', '.join(COMPUTE)}.")
        return COMPUTE[dtype]
    if dtype is not None:
        return dtype
    sizes: dict[str, int] = {}
    for info in header.tensors.values():
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
    stored = DTYPES.get(max(sizes, key=lambda k: sizes[k]), torch.float32) if sizes else torch.float32
    if stored not in COMPUTE.values():
        return torch.float32
    if device.type == "cpu" and stored != torch.float32:
        return torch.bfloat16 if native_bf16() else torch.float32
    return stored


def native_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX); elsewhere it would be emulated."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check)


def fill(
    card: Recognised, mapped: Mapped, device: torch.device, dtype: torch.dtype
) -> tuple[nn.Module, dict[str, TensorInfo]]:
    """The card's network, and where each parameter came from; on a CPU they stay mapped where they can."""
    with torch.device("meta"):
        network = models.build(card.config)
    sources = places(card, dict(network.named_parameters()))
    modules, unfilled = dict(network.named_modules()), dict(network.named_parameters())
    for target, (info, how) in sources.items():
        owner, _, leaf = target.rpartition(".")
        if info.dtype == "NF4":
            modules[owner] = in_four_bits(modules[owner], mapped, info, device, dtype)
            network.set_submodule(owner, modules[owner])
            continue
        tensor = read(mapped, info, unfilled[target].shape, how, getattr(card.config, "head_dim", 0))
        exact = torch.float32 if tensor.numel() == 1 else dtype  # a temperature alone costs nothing and rounds badly
        parameter = nn.Parameter(tensor.to(device, exact), requires_grad=False)
        modules[owner].register_parameter(leaf, parameter)
    return network.eval(), {target: info for target, (info, _) in sources.items()}


def in_four_bits(
    linear: nn.Module, mapped: Mapped, info: TensorInfo, device: torch.device, dtype: torch.dtype
) -> NF4Linear:
    """The layer that multiplies by a packed weight, in a linear layer's place. Raises CheckpointError."""
    if type(linear) is not Linear:
        raise CheckpointError(f"{info.file}: {info.name} is in 4 bits, and its network has no linear layer there.")
    try:
        packed = from_parts({piece.name.removeprefix(info.name): view(mapped, piece) for piece in info.shards})
        if packed.shape != linear.weight.shape:
            raise ValueError(f"it is {packed.shape}; the config makes it {tuple(linear.weight.shape)}")
    except ValueError as error:
        raise CheckpointError(f"{info.file}: {info.name}: {error}.") from None
    bias = None if linear.bias is None or linear.bias.is_meta else linear.bias
    return NF4Linear(packed.to(device), bias, dtype)


def places(card: Recognised, expected: dict[str, Tensor]) -> dict[str, tuple[TensorInfo, str]]:
    """Which tensor fills which parameter. Raises CheckpointError with both sides where they differ."""
    header = card.header
    found: dict[str, tuple[TensorInfo, str]] = {}
    for source, (targets, how) in rename(header.tensors, card.family.names(header)).items():
        for target, info in zip(targets, shared_out(header.tensors[source], targets, expected), strict=True):
            if target in found:
                raise CheckpointError(f"{header.path}: {found[target][0].name!r} and {source!r} are both {target!r}.")
            found[target] = info, how
    missing, unused = expected.keys() - found.keys(), found.keys() - expected.keys()
    if missing or unused:
        raise CheckpointError(
            f"{header.path} does not fit a {card.family.name} of its config: the network lacks {some(missing)}; "
            f"the file has no use for {some(unused)}."
        )
    return found


def shared_out(info: TensorInfo, targets: tuple[str, ...], expected: dict[str, Tensor]) -> list[TensorInfo]:
    """A joined tensor's rows, as many for each target as its parameter has: views, nothing is copied."""
    if len(targets) < 2 or any(target not in expected for target in targets):
        return [info] * len(targets)
    rows = [expected[target].shape[0] if expected[target].dim() else 1 for target in targets]
    if not info.shape or sum(rows) != info.shape[0] or info.shards:
        raise CheckpointError(f"{info.file}: {info.name} is {info.shape}; its config makes it {sum(rows)} rows.")
    row = info.strides[0] if info.strides else info.n_elements // info.shape[0]
    parts, start = [], 0
    for n in rows:
        offset = info.offset + start * row * DTYPES[info.dtype].itemsize
        nbytes = info.nbytes // info.shape[0] * n
        parts.append(info._replace(shape=(n, *info.shape[1:]), offset=offset, nbytes=nbytes))
        start += n
    return parts


def fill_adapter(folder: Path, base: Recognised, network: nn.Module) -> Adapter:
    """The LoRA of a folder in PEFT's layout, for the network of a card. Raises NotFound, CheckpointError."""
    weight = max(network.parameters(), key=lambda p: p.numel())
    linear = {
        name: (module.out_features, module.in_features)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"  # `logits` reads the head's weight itself
    }
    lora = read_lora(folder, base, linear, table_shapes(network))
    check_base(lora.header, base)
    updates = {}
    with Mapped(lora.header) as mapped:
        for name, pair in lora.pairs.items():
            infos = (pair.a, pair.b) if pair.magnitude is None else (pair.a, pair.b, pair.magnitude)
            a, b, *length = (view(mapped, info).to(weight.device, torch.float32, copy=True) for info in infos)
            b *= pair.scale
            if length:
                length[0] /= (weight_of(network, name).float() + b @ a).norm(dim=1)
                b *= length[0][:, None]
            updates[name] = LowRank(*(t.to(weight.dtype) for t in (a, b.t().contiguous(), *length)))
            if not all(bool(t.isfinite().all()) for t in updates[name] if t is not None):
                raise CheckpointError(
                    f"{lora.header.path}: what it adds to {name!r} is not finite in {weight.dtype}; it is broken."
                )
        rows = {}
        for name, given in lora.rows.items():
            own = view(mapped, given.info).to(weight.device, weight.dtype, copy=True)
            rows[name] = placed(torch.tensor(given.ids, device=weight.device), own, table_shapes(network)[name][0])
            if not bool(own.isfinite().all()):
                raise CheckpointError(f"{lora.header.path}: its rows of {name!r} are not finite; it is broken.")
    return Adapter(network, updates, folder, rows)


@dataclass(eq=False)
class Merged:
    """A network with an adapter's numbers in it: what they do not change is shared with its base."""

    folder: Path
    base: Recognised  # with the config of a new head, where the adapter brings one
    network: nn.Module
    n_bytes: int  # that it holds of its own
    model: Any = None  # of this network, once somebody wants it


def merged(folder: Path, base: Recognised, network: nn.Module) -> Merged:
    """An encoder with the LoRA of a folder in PEFT's layout, and its classifier. Raises NotFound, CheckpointError."""
    linear = {n: (m.out_features, m.in_features) for n, m in network.named_modules() if isinstance(m, nn.Linear)}
    lora = read_lora(folder, base, linear, heads=True)
    check_base(lora.header, base)
    headed = with_head(base, lora.labels) if lora.whole else None
    own = {ours: lora.whole.get(theirs) for ours, theirs in headed.names.items()} if headed else {}
    found, shared, n_bytes = headed.base if headed else base, dict(network.named_parameters()), 0
    weight = max(shared.values(), key=lambda p: p.numel())
    with torch.device("meta"):
        copy = models.build(found.config)
    with Mapped(lora.header) as mapped:
        for name, expected in list(copy.named_parameters()):
            pair = lora.pairs.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
            if name in own:
                info = own[name]
                if info is None or info.shape != tuple(expected.shape):
                    told = info and info.shape
                    raise CheckpointError(f"{lora.header.path}: {name} is {told}; expected {tuple(expected.shape)}.")
                tensor = view(mapped, info).to(weight.device, weight.dtype, copy=True)
            elif pair is not None:
                tensor = added(shared[name].detach(), pair, mapped).to(weight.dtype)
            else:
                tensor = shared[name].detach()
            if name in own or pair is not None:
                n_bytes += tensor.nbytes
                if not tensor.isfinite().all():
                    raise CheckpointError(f"{lora.header.path}: {name} is not finite with it; it is broken.")
            owner, _, leaf = name.rpartition(".")
            copy.get_submodule(owner).register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    return Merged(folder, found, copy.eval(), n_bytes)


def added(old: Tensor, pair: Pair, mapped: Mapped) -> Tensor:
    """W + scale · B A in float32, each row of the length that DoRA learnt."""
    a, b = (view(mapped, info).to(old.device, torch.float32) for info in (pair.a, pair.b))
    new = old.float() + pair.scale * (b @ a)
    if pair.magnitude is None:
        return new
    return new * (view(mapped, pair.magnitude).to(old.device, torch.float32) / new.norm(dim=1))[:, None]


def placed(ids: Tensor, rows: Tensor, n_tokens: int) -> Rows:
    """Rows, and where each token stands among them."""
    place = torch.full((n_tokens,), -1, dtype=torch.int64, device=ids.device)
    place[ids] = torch.arange(len(ids), device=ids.device)
    return Rows(ids, rows, place)


def table_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """A causal network's embedding and its own head, if it has one, by name: (V, C)."""
    named = {name: m for name, m in network.named_modules() if name in ("model.embed_tokens", "wte", "lm_head")}
    return {name: tuple(m.weight.shape) for name, m in named.items() if isinstance(m, (nn.Embedding, nn.Linear))}


def weight_of(network: nn.Module, name: str) -> Tensor:
    """A linear layer's numbers, in 4 bits or not."""
    layer: Any = network.get_submodule(name)
    found: Tensor = layer.weight
    return found


def fingerprint(card: Recognised) -> str:
    """Of which numbers a checkpoint is, by some bytes of each tensor: "layout-numbers"; equal layouts compare."""
    layout, numbers = hashlib.sha256(), hashlib.sha256()
    with Mapped(card.header) as mapped:
        for name, info in sorted(card.header.tensors.items()):
            layout.update(f"{name} {info.dtype} {info.shape}\n".encode())
            if info.nbytes and not info.shards and info.strides is None:
                held = memoryview(mapped.buffer(info)).cast("B")
                for share in range(4):
                    at = (len(held) - 1) * share // 4
                    numbers.update(held[at : at + 64])
                held.release()
    return f"{layout.hexdigest()[:16]}-{numbers.hexdigest()[:32]}"


def check_base(header: Header, base: Recognised) -> None:
    """An adapter that says of which numbers it is belongs to those. Raises CheckpointError, naming both."""
    told, name = header.metadata.get("brolly.mark", ""), header.metadata.get("brolly.base", "another model")
    own = fingerprint(base) if told else ""
    if told.split("-")[0] == own.split("-")[0] and told != own:
        raise CheckpointError(
            f"{header.path} was made for {name!r:.200}, whose numbers are not those of {base.header.path}; use it with "
            "its own base."
        )


def some(names: Iterable[str], most: int = 4) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + f" and {len(listed) - most} more" * (len(listed) > most) if listed else "nothing"


def read(mapped: Mapped, info: TensorInfo, shape: torch.Size, how: str, head_dim: int) -> Tensor:
    """One parameter of `shape`: its pieces joined, transposed or brought to half-split rotary order."""
    pieces = [view(mapped, piece) for piece in (info.shards or (info,))]
    wanted = shape[::-1] if how == "transpose" else shape
    if how == "reshape" and info.n_elements == shape.numel():
        wanted = torch.Size(info.shape)
    tensor = join(pieces, wanted, info)
    if how == "transpose":
        return tensor.t()
    if how == "reshape":
        return tensor.reshape(shape)
    return half_split(tensor, head_dim) if how == "rope" else tensor


def view(mapped: Mapped, info: TensorInfo) -> Tensor:
    """A tensor over the file's own bytes; nothing is read yet."""
    dtype = DTYPES[info.dtype]
    if 0 in info.shape:
        return torch.empty(info.shape, dtype=dtype)
    buffer = mapped.buffer(info)
    flat = torch.frombuffer(buffer, dtype=dtype)
    if info.offset % dtype.itemsize:
        flat = flat.clone()
    return flat.as_strided(info.shape, info.strides) if info.strides is not None else flat.view(info.shape)


def join(pieces: list[Tensor], shape: torch.Size, info: TensorInfo) -> Tensor:
    """Model-parallel pieces, joined along the dimension in which they are smaller than the network's parameter."""
    first = pieces[0]
    if first.shape == shape:
        return first
    split = [d for d in range(min(len(shape), first.dim())) if first.shape[d] != shape[d]]
    total = sum(p.shape[split[0]] for p in pieces) if first.dim() == len(shape) and len(split) == 1 else 0
    if len(pieces) == 1 or not total or total != shape[split[0]]:
        raise CheckpointError(
            f"{info.file}: {info.name} is {tuple(first.shape)}{f' in {len(pieces)} pieces' * (len(pieces) > 1)}; "
            f"its config makes it {tuple(shape)}."
        )
    return torch.cat(pieces, dim=split[0])


def half_split(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of interleaved rotary pairs (0, 1), (2, 3) … to (0, D/2), (1, D/2 + 1) …, head by head."""
    heads = weight.unflatten(0, (-1, head_dim // 2, 2))
    return heads.transpose(1, 2).reshape(weight.shape)
