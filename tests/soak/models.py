"""The models of a soak: the bundled ones, small random ones that differ in size, an adapter, and a broken one."""

from __future__ import annotations

import json
from pathlib import Path

from tests.engine.test_adapters import write_adapter
from tests.run import checkpoints

BUNDLED = ("mini-llm", "mini-embed", "mini-clip", "mini-whisper")
WRITERS = ("mini-llm", "tiny", "tall", "tiny:polite")  # what can chat


def write(folder: Path) -> tuple[str, ...]:
    """Write those that are not bundled; the words with which `brolly serve` serves them all."""
    checkpoints.write_llama(folder / "tiny", max_position_embeddings=512)
    deep = dict(hidden_size=128, num_hidden_layers=6, intermediate_size=256, max_position_embeddings=1024)
    checkpoints.write_llama(folder / "tall", **deep)
    write_adapter(folder / "tiny", folder / "polite", r=4, target_modules=["q_proj", "up_proj"])
    checkpoints.write_llama(folder / "broken")
    weights = folder / "broken" / "model.safetensors"
    size = int.from_bytes(weights.read_bytes()[:8], "little")
    header = json.loads(weights.read_bytes()[8 : 8 + size])
    del header[next(name for name in header if name.endswith("q_proj.weight"))]
    text = json.dumps(header).encode().ljust(size)
    weights.write_bytes(len(text).to_bytes(8, "little") + text + weights.read_bytes()[8 + size :])
    names = [str(folder / name) for name in ("tiny", "tall", "broken")]
    return (*BUNDLED, *names, "--adapter", f"tiny:polite={folder / 'polite'}", "--dtype", "float32")
