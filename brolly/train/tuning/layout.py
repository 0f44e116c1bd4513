"""What a tuning is written as: a folder in PEFT's layout, or a whole model in the layout of its base."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brolly import models
from brolly.card import Recognised, TensorInfo
from brolly.checkpoint import Mapped, write_safetensors
from brolly.checkpoint.names import rename
from brolly.errors import CheckpointError
from brolly.families.heads import Headed
from brolly.families.peft import SETTINGS, WEIGHTS, peft_name
from brolly.fill import DTYPES, fingerprint, shared_out, view
from brolly.hub import SMALL
from brolly.train.export import as_bytes, write_whole
from brolly.train.tuning import four_bits, heads
from brolly.train.tuning.lora import LoraLinear
from brolly.train.tuning.words import LearntRows
from brolly.verbs import Lora

ROWS = "token_adapter.trainable_tokens_delta"
SHARD = 5 * 10**9  # bytes of a file of a model that needs several
OURS = ("config.json", "README.md", "*.index.json", SETTINGS, "generation_config.json", "recipe.toml", "run.json")
TASKS = {"next-token": "CAUSAL_LM"}  # an objective's task by PEFT's word; PEFT needs none of the others
Row = tuple[str, str, tuple[int, ...], Callable[[], Any]]
Changed = Callable[[str, Tensor], Tensor | None]


def write_adapter(
    folder: Path, card: Recognised, base: str, lora: Lora, network: nn.Module, objective: str,
    head: Headed | None = None,
) -> None:  # fmt: skip
    """A network's LoRA as PEFT writes it, and its new classifier; the file says of which numbers it is.

    Raises DiskFull, CheckpointError.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, LoraLinear)}
    names = {module: peft_name(card, module) for module in layers}
    names = {module: head.theirs(name) for module, name in names.items()} if head else names
    rows: list[Row] = []
    for module, layer in layers.items():
        parts = {"lora_A.weight": layer.lora_A, "lora_B.weight": layer.lora_B}
        if layer.magnitude is not None:
            parts["lora_magnitude_vector"] = layer.magnitude
        for part, tensor in parts.items():
            told = f"base_model.model.{names[module]}.{part}"
            rows.append((told, "F32", tuple(tensor.shape), partial(as_bytes, tensor.detach(), torch.float32)))
    tokens = {}
    for name, module in network.named_modules():
        if isinstance(module, LearntRows):
            told = peft_name(card, name)
            tokens[told.rpartition(".")[2]] = module.ids.tolist()  # type: ignore[operator]
            data = partial(as_bytes, module.rows.detach(), torch.float32)
            rows.append((f"base_model.model.{told}.{ROWS}", "F32", tuple(module.rows.shape), data))
    ranks = {names[module]: len(layer.lora_A) for module, layer in layers.items()}
    alphas = {names[m]: round(layer.scale * (len(layer.lora_A) ** (0.5 if lora.rslora else 1)), 9)
              for m, layer in layers.items()}  # fmt: skip
    rank, alpha = Counter(ranks.values()).most_common(1)[0][0], Counter(alphas.values()).most_common(1)[0][0]
    ways = {how for _, how in rename(card.header.tensors, card.family.names(card.header)).values()}
    config = {
        "peft_type": "LORA", "task_type": TASKS.get(objective), "base_model_name_or_path": base, "inference_mode": True,
        "r": rank, "lora_alpha": int(alpha) if alpha == int(alpha) else alpha, "lora_dropout": lora.dropout,
        "rank_pattern": {name: r for name, r in ranks.items() if r != rank},
        "alpha_pattern": {name: a for name, a in alphas.items() if a != alpha},
        "use_rslora": lora.rslora, "use_dora": lora.dora, "bias": "none", "fan_in_fan_out": "transpose" in ways,
        "init_lora_weights": True, "target_modules": endings(names, network),
    }  # fmt: skip
    if tokens:
        config["trainable_token_indices"] = tokens if len(tokens) > 1 else next(iter(tokens.values()))
    marks = {"format": "pt", "brolly.base": base, "brolly.mark": fingerprint(card)}
    if head:
        rows += heads.whole_rows(head, network.get_parameter, "base_model.model.")
        config |= heads.settings(head)
        marks |= heads.metadata(head)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS[0], rows, marks)
    write_whole(folder / SETTINGS, json.dumps(config, indent=1) + "\n")


def endings(names: Mapping[str, str], network: nn.Module) -> list[str]:
    """target_modules: the last words of some modules' names, where these name no other layer; else the whole names."""
    if any(not told.endswith(name) for name, told in names.items()):  # nor are the last words ours
        return sorted(names.values())
    last = {name.rpartition(".")[2] for name in names}
    linear = {name for name, module in network.named_modules() if isinstance(module, (nn.Linear, LoraLinear))}
    meant = {name for name in linear if name.rpartition(".")[2] in last}
    return sorted(last) if meant == names.keys() else sorted(names.values())


def write_model(
    folder: Path, card: Recognised, changed: Changed, dtype: str | None, bits: int | None = None,
    head: tuple[Headed, Callable[[str], Tensor]] | None = None,
) -> None:  # fmt: skip
    """A whole model in its base's layout: tensors that `changed(name, old)` gives anew, by the network's names, and the
    others as they are; `dtype` makes all of another, `bits` packs the blocks (4), and a base in 4 bits is unpacked
    without. One is in memory at a time. Raises DiskFull, CheckpointError, OptionError."""
    header = card.header
    if header.format not in ("safetensors", "torch") or "model_type" not in header.config:
        raise CheckpointError(
            f"{header.path} is in {header.format}'s layout, in which no changed model is written here; take the same "
            "model in Hugging Face's layout (config.json and safetensors) as the base."
        )
    with Mapped(header) as mapped:
        with torch.device("meta"):
            expected: dict[str, Tensor] = dict(models.build(card.config).named_parameters())
        rows: list[Row] = []
        renamed = rename(header.tensors, card.family.names(header))
        packed = four_bits.Written(card, mapped, changed, dtype, bits)
        for source, (targets, how) in renamed.items():
            if not targets:
                continue  # a head that is the embedding, an old buffer
            info = header.tensors[source]
            if of_bits := packed.rows(source, info, targets, how, expected):
                rows += of_bits
                continue
            word = WORDS[dtype] if dtype and info.dtype in ("F64", "F32", "F16", "BF16") else info.dtype
            parts = list(zip(targets, shared_out(info, targets, expected), strict=True))
            shapes = [expected[target].shape for target in targets]
            rows.append((source, word, info.shape, partial(data_of, mapped, info, parts, shapes, how, word, changed)))
        folder.mkdir(parents=True, exist_ok=True)
        if head:
            rows = heads.of_body(rows, {name: targets for name, (targets, _) in renamed.items()}, head[0])
            rows += heads.whole_rows(*head)
        elif "sentence_transformers" in header.config:
            rows = heads.write_modules(Path(header.folder), folder, rows)
        write_shards(folder, rows)
    config = packed.config(header.config)
    config.pop("sentence_transformers", None)  # what other files say
    if head:
        config |= head[0].config
    if dtype:
        config = {k: v for k, v in config.items() if k != "torch_dtype"} | {"dtype": dtype}
    write_whole(folder / "config.json", json.dumps(config, indent=1, ensure_ascii=False) + "\n")
    copy_neighbours(Path(header.folder), folder)
    for name in heads.SENTENCES if head else ():
        (folder / name).unlink(missing_ok=True)  # it embeds no more


WORDS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def data_of(
    mapped: Mapped, info: TensorInfo, parts: list[tuple[str, TensorInfo]], shapes: list[torch.Size], how: str,
    word: str, changed: Changed,
) -> Any:  # fmt: skip
    """A tensor's bytes as its base's file orders them."""
    found = []
    for (target, part), shape in zip(parts, shapes, strict=True):
        stored = view(mapped, part)
        inner = stored.t() if how == "transpose" else stored.reshape(shape)
        given = changed(target, inner)
        found.append(inner if given is None else given)
    tensor = found[0] if len(found) == 1 else torch.cat([t.float() for t in found])
    return as_bytes(tensor.t() if how == "transpose" else tensor.reshape(info.shape), DTYPES[word])


def write_shards(folder: Path, rows: list[Row]) -> None:
    """One file, or several and their index."""
    files: list[list[Row]] = [[]]
    filled = 0
    for row in rows:
        n_bytes = size_of(row)
        if files[-1] and filled + n_bytes > SHARD:
            files.append([])
            filled = 0
        files[-1].append(row)
        filled += n_bytes
    if len(files) == 1:
        write_safetensors(folder / "model.safetensors", rows, {"format": "pt"})
        return
    placed: dict[str, str] = {}
    for i, part in enumerate(files):
        name = f"model-{i + 1:05d}-of-{len(files):05d}.safetensors"
        write_safetensors(folder / name, part, {"format": "pt"})
        placed |= {row[0]: name for row in part}
    index = {"metadata": {"total_size": sum(map(size_of, rows))}, "weight_map": placed}
    write_whole(folder / "model.safetensors.index.json", json.dumps(index, indent=1) + "\n")


def size_of(row: Row) -> int:
    return torch.Size(row[2]).numel() * DTYPES[row[1]].itemsize


def copy_neighbours(base: Path, folder: Path) -> None:
    """The tokenizer, templates, licences and settings that stand beside a model's weights."""
    for path in sorted(base.iterdir()) if base.is_dir() else ():
        wanted = any(fnmatch(path.name, pattern) for pattern in SMALL)
        if path.is_file() and wanted and not any(fnmatch(path.name, pattern) for pattern in OURS):
            shutil.copyfile(path, folder / path.name)
    for name in ("generation_config.json",):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def copy_card(base: Path, adapter: Path | None, folder: Path) -> None:
    """What was said of a base and of its adapter stands beside their sum."""
    if adapter is None:
        if (base / "README.md").is_file():
            shutil.copyfile(base / "README.md", folder / "README.md")
        return
    for source, name in ((adapter / "README.md", "README.md"), (base / "README.md", "BASE.md")):
        if source.is_file():
            shutil.copyfile(source, folder / name)
    if not (folder / "README.md").exists() and (folder / "BASE.md").exists():
        shutil.move(folder / "BASE.md", folder / "README.md")
    if (adapter / "generation_config.json").is_file():
        shutil.copyfile(adapter / "generation_config.json", folder / "generation_config.json")
