"""`brolly identify` beside the field's header readers and scanners: whole processes, in turn, on the same files.

    pip install '.[test,bench]'
    python benchmarks/identify.py [--rounds 9] [--models 1000]

Files are made here: true headers with holes where the numbers would be. The physical limit of a command is the start
of the interpreter that it runs in, measured in the same run. hf-mem knows one address alone, huggingface.co: its
requests are sent to the same local hub as ours. The transformers route is what its users do: AutoConfig, then the
network on meta.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import common

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.identity.hollow import (  # noqa: E402
    HollowHub,
    hollow_files,
    llama_gguf,
    llama_shapes,
    serve_hollow,
    write_hollow,
)

BROLLY = [sys.executable, "-m", "brolly", "identify"]
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "num_key_value_heads": 8, "head_dim": 128, "hidden_act": "silu",
}  # fmt: skip
SIZES = {  # dim, layers, kv, hidden, heads
    "8B": (4096, 32, 1024, 14336, 32), "70B": (8192, 80, 1024, 28672, 64), "405B": (16384, 126, 1024, 53248, 128),
}  # fmt: skip

HF_MEM = """
import httpx2 as httpx, os, sys
base = httpx.URL(os.environ["HF_ENDPOINT"])
send = httpx.AsyncClient.send
async def here(self, request, **rest):
    request.url = request.url.copy_with(scheme=base.scheme, host=base.host, port=base.port)
    return await send(self, request, **rest)
httpx.AsyncClient.send = here
from hf_mem.cli import main
sys.argv = ["hf-mem", "--model-id", sys.argv[1], "--json-output"]
main()
"""
CONFIG_ROUTE = """
import sys, torch, transformers
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
with torch.device("meta"):
    network = transformers.AutoModelForCausalLM.from_config(config)
print(sum(p.numel() for p in network.parameters()))
"""
CONFIG_ALONE = "import sys, transformers; print(transformers.AutoConfig.from_pretrained(sys.argv[1]).model_type)"
HUB_LOCAL = """
import sys, glob, huggingface_hub as h
total = 0
for path in sorted(glob.glob(sys.argv[1] + "/*.safetensors")):
    meta = h.parse_local_safetensors_file_metadata(path)
    total += sum(meta.parameter_count.values())
print(total)
"""
HUB_REMOTE = """
import sys, huggingface_hub as h
print(sum(h.get_safetensors_metadata(sys.argv[1]).parameter_count.values()))
"""
GGUF = "import sys, gguf; print(len(gguf.GGUFReader(sys.argv[1]).tensors))"


def llama(size: str, shards: int) -> dict[str, tuple[bytes, int]]:
    dim, layers, kv, hidden, heads = SIZES[size]
    config = LLAMA | {
        "hidden_size": dim, "num_hidden_layers": layers, "intermediate_size": hidden, "num_attention_heads": heads,
    }  # fmt: skip
    return hollow_files(llama_shapes(dim, layers, kv, hidden, 128256), shards, config)


def once(command: list[str], env: dict[str, str]) -> tuple[float, int]:
    """Wall seconds and the peak of memory in bytes of one run. A command that fails ends the benchmark."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    assert process.stderr
    found = any("scan" in word for word in command)  # scanners say 1 where they find something
    if code not in ((0, 1) if found else (0,)):
        raise SystemExit(f"{' '.join(command)[:200]} ended with {code}: {process.stderr.read()[-2000:].decode()}")
    process.stderr.close()
    return wall, usage.ru_maxrss * 1024


def compare(
    title: str, commands: dict[str, list[str]], rounds: int, env: dict[str, str], floor: float
) -> dict[str, tuple[float, int]]:
    """Each command in turn, `rounds` times; the medians, as a table."""
    seen: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seen[name].append(once(command, env))
    found = {n: (common.median([w for w, _ in rows]), max(m for _, m in rows)) for n, rows in seen.items()}
    ours = found["brolly"][0]
    rows = [["", "wall", "memory", "brolly is faster by", "share that is the interpreter's start"]]
    for name, (wall, memory) in found.items():
        faster = "" if name == "brolly" else f"{wall / ours:.1f}×"
        rows.append([name, f"{wall * 1e3:.0f} ms", f"{memory / 1e6:.0f} MB", faster, f"{floor / wall:.0%}"])
    print(f"\n### {title}\n\n{common.table(rows)}", flush=True)
    return found


def trees(folder: Path, count: int) -> Path:
    """`count` models of ten kinds."""
    kinds: list[Callable[[Path], object]] = [
        lambda p: write_hollow(p, llama("8B", 4)),
        lambda p: write_hollow(p, llama("70B", 30)),
        lambda p: (p.mkdir(parents=True), llama_gguf(p / "model.gguf", n_vocab=32000, n_merges=0)),
    ]
    for number in range(count):
        kinds[0 if number % 10 else 1 + number // 10 % 2](folder / f"org{number % 7}" / f"model-{number:04d}")
    return folder


def pickles(folder: Path, count: int = 40) -> Path:
    """torch checkpoints as torch writes them, and one that would run a command."""
    import torch

    folder.mkdir()
    state = {f"layers.{i}.weight": torch.zeros(8, 8) for i in range(290)}
    for number in range(count):
        torch.save(state, folder / f"model{number}.pt")

    class Bad:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, ("true",)

    with zipfile.ZipFile(folder / "bad.pt", "w") as archive:
        archive.writestr("bad/data.pkl", pickle.dumps({"a": Bad()}))
    return folder


def make(base: Path, models: int) -> None:
    """All files, in a process of its own: a command's peak of memory begins with that of the process that starts it."""
    write_hollow(base / "70b", llama("70B", 30))
    llama_gguf(base / "model-Q4_K_M.gguf")
    pickles(base / "pickles")
    trees(base / "tree", models)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", type=int, default=1000)
    args = parser.parse_args()
    if args.make:
        make(args.make, args.models)
        return
    python = [sys.executable, "-c"]
    packages = ("gguf", "hf-mem", "huggingface_hub", "transformers", "modelscan", "picklescan")
    print(f"{date.today()}, {common.machine(*packages)}")
    env = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    once(BROLLY + ["--help"], env)  # byte code is compiled once
    floor = common.median([once(python + ["pass"], env)[0] for _ in range(args.rounds)])
    print(f"\nThe interpreter alone: {floor * 1e3:.0f} ms.")
    with tempfile.TemporaryDirectory(prefix="brolly-bench-") as name:
        base = Path(name)
        subprocess.run([sys.executable, __file__, "--make", name, "--models", str(args.models)], check=True)
        model = str(base / "70b")
        compare(
            "A local 70B in 30 shards",
            {
                "brolly": [*BROLLY, model],
                "huggingface_hub, headers": [*python, HUB_LOCAL, model],
                "transformers, config alone": [*python, CONFIG_ALONE, model],
                "transformers, config and meta network": [*python, CONFIG_ROUTE, model],
            },
            args.rounds, env, floor,
        )  # fmt: skip
        gguf = str(base / "model-Q4_K_M.gguf")
        commands = {"brolly": [*BROLLY, gguf], "gguf, GGUFReader": [*python, GGUF, gguf]}
        compare("A GGUF with 128,256 tokens and 280,147 merges", commands, max(3, args.rounds // 3), env, floor)
        hub = HollowHub(repos={"org/405b": llama("405B", 191)})
        with serve_hollow(hub):
            there = env | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(base / "cache")}
            commands = {
                "brolly": [*BROLLY, "org/405b"],
                "hf-mem": [*python, HF_MEM, "org/405b"],
                "huggingface_hub, get_safetensors_metadata": [*python, HUB_REMOTE, "org/405b"],
            }
            compare("A remote 405B in 191 shards, 811 GB", commands, max(3, args.rounds // 3), there, floor)
            rows = [["", "bytes", "requests"]]
            for title, command in commands.items():
                hub.n_sent, hub.asked[:] = 0, []
                once(command, there)
                rows.append([title, f"{hub.n_sent / 1e6:.2f} MB", str(len(hub.asked))])
            print(f"\n{common.table(rows)}")
        folder = str(base / "pickles")
        compare(
            "41 torch checkpoints, one of them malicious",
            {
                "brolly": [*BROLLY, "--tree", folder],
                "picklescan": [*python, "from picklescan.cli import main; main()", "--path", folder],
                "modelscan": [*python, "from modelscan.cli import cli; cli()", "-p", folder],
            },
            max(3, args.rounds // 3), env, floor,
        )  # fmt: skip
        tree = base / "tree"
        wall, memory = once([*BROLLY, "--tree", str(tree), "--json"], env)
        each = wall / args.models * 1e3
        print(f"\n### A tree of {args.models} models\n\n{wall:.1f} s, {each:.1f} ms a model, {memory / 1e6:.0f} MB.")
    print(json.dumps({"done": True}), file=sys.stderr)


if __name__ == "__main__":
    main()
