"""Write brolly/identity/data/plan_defaults.json: what transformers and diffusers take for a key that is left out.

Configs on the hub leave out what equals the default. A default that a class works out from another key is no default,
and is left out here too: it is found by doubling each number and looking what else changes.

    python scripts/plan_defaults.py
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
TARGET = ROOT / "brolly" / "identity" / "data" / "plan_defaults.json"
# Keys that say how a network is trained or run, and not how large it is.
NOISE = (
    "dropout", "_id", "_ids", "initializer", "init_", "_std", "_eps", "hidden_act", "output_hidden", "output_att",
    "return_dict", "dtype", "use_cache", "transformers_version", "_name_or_path", "problem_type", "chunk_size",
    "is_encoder_decoder", "_prob", "layerdrop", "rope", "_token", "_act", "label", "model_type", "sampling_rate",
    "activation", "drop_path", "loss", "_coefficient", "_cost", "epsilon", "seed", "temperature", "scale_embedding",
    "ctc_", "apply_spec", "mask_time_l", "mask_time_m", "mask_feature_l", "mask_feature_m", "reduction", "_weight",
    "layer_types", "sliding", "attn_impl",
)  # fmt: skip
NEEDED = (
    "mask_time_prob", "mask_feature_prob", "num_labels", "sr_ratios", "act_fn", "layer_scale_init_value",
    "activation_fn",
    "num_register_tokens", "activation_function", "hidden_act", "norm_eps", "use_mask_token", "num_detection_tokens",
    "attention_downsample_rate", "deepstack_visual_indexes",
    "num_query_tokens", "reduction_factor", "sampling_rate", "rope_scale",
)  # fmt: skip

BESIDE = ("trocr",)  # counted only as a part of another, whose config names it


def wanted(key: str) -> bool:
    return key in NEEDED or not (key.startswith("_") or any(noise in key for noise in NOISE))


def plain(value: Any) -> bool:
    """A value that a row may hold: a number, a text, a switch, or a short list of them."""
    if isinstance(value, (bool, int, float, str)):
        return True
    return isinstance(value, (list, tuple)) and len(value) <= 64 and all(plain(v) for v in value)


def row_of(cls: type) -> dict[str, Any]:
    """The defaults of a config class of transformers, without those that follow from others."""
    base = cls().to_dict()  # type: ignore[attr-defined]
    names = base.get("id2label") or {}
    found = {k: v for k, v in base.items() if plain(v) and wanted(k)}
    follows: set[str] = set()
    for key, value in list(found.items()):
        if type(value) is int and value > 1:
            try:
                other = cls(**{key: 2 * value}).to_dict()  # type: ignore[attr-defined]
            except Exception:  # a number that may not be doubled
                continue
            follows |= {k for k in found if k != key and other.get(k) != found[k]}
    if len(names) != 2:
        found["num_labels"] = len(names)
    return {k: v for k, v in sorted(found.items()) if k not in follows}


def diffusers_row(cls: type) -> dict[str, Any]:
    """The defaults of a network of diffusers: those of its constructor."""
    parameters = inspect.signature(cls.__init__).parameters.values()
    found = {p.name: p.default for p in parameters if p.default is not p.empty and p.default is not None}
    return {k: v for k, v in sorted(found.items()) if plain(v) and (wanted(k) or k in ("mid_block_type",))}


def main() -> None:
    import diffusers
    import transformers
    from transformers import CONFIG_MAPPING, PretrainedConfig

    from brolly.identity.plans import TABLE

    rows: dict[str, dict[str, Any]] = {name: row_of(CONFIG_MAPPING[name]) for name in BESIDE}
    for kind, row in TABLE.items():
        if kind[0].isupper():
            rows[kind] = diffusers_row(getattr(diffusers, kind))
            continue
        parts = [part.split(":") for part in row.split()[1:]]
        if kind in CONFIG_MAPPING and kind not in ("nomic_bert", "new"):  # published with the keys of their own code
            rows[kind] = row_of(CONFIG_MAPPING[kind])
            whole = CONFIG_MAPPING[kind]() if parts else None
            for key, name in parts:
                part = getattr(whole, key, None)
                cls = CONFIG_MAPPING[name] if name in CONFIG_MAPPING else type(part)
                if not issubclass(cls, PretrainedConfig):
                    sys.exit(f"{kind}: {key} is a {cls.__name__}; expected a config")
                rows[name] = row_of(cls)
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in sorted(rows.items()))
    versions = f"transformers {transformers.__version__}, diffusers {diffusers.__version__}"
    source = f"the config defaults of {versions} (Apache-2.0)"
    TARGET.write_text(f'{{"source": {json.dumps(source)}, "types": {{\n{lines}\n}}}}\n')
    print(f"{TARGET.relative_to(ROOT)}: {len(rows)} types, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
