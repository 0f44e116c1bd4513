"""What every benchmark needs: limits of this machine, workers that are timed in turn, a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

Measure = Callable[[str, Path], dict[str, Any]]
Report = Callable[[dict[str, Any]], str]


class Worker:
    """A Python process that answers one JSON line for each JSON line it is sent; it sleeps while others are timed."""

    def __init__(self, script: str, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.name = " ".join(arguments)
        self.process = subprocess.Popen(
            [sys.executable, script, "--worker", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | (env or {}),
        )  # fmt: skip

    def ask(self, **question: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the worker {self.name} ended with code {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve(answer: Callable[[dict[str, Any]], Any]) -> None:
    """A worker's loop. What libraries print goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=out, flush=True)


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def read_bandwidth(n_bytes: int = 2**30, rounds: int = 6) -> float:
    """Bytes a second at which all threads read memory (huge pages, each byte once): the best of some rounds."""
    import torch

    from brolly.engine.settle import huge

    memory = huge(n_bytes).view(torch.int64)
    memory.zero_()
    return n_bytes / min(seconds(memory.sum) for _ in range(rounds))


def matmul_flops(n: int = 4096, rounds: int = 4) -> float:
    """FLOP a second of a bfloat16 matrix product of n³: the best of some rounds."""
    import torch

    a, b = (torch.randn(n, n).to(torch.bfloat16) for _ in range(2))
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(rounds))


def arguments(doc: str | None, option: str, cases: Iterable[str]) -> argparse.ArgumentParser:
    """What every benchmark of several cases is asked."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(option, action="append", choices=list(cases), help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="every single figure")
    return parser


def show(cases: Iterable[str], as_json: bool, packages: Sequence[str], *ways: tuple[Measure, Report]) -> None:
    """Measures every case in each way, in a folder that goes again, and prints what came out as soon as it did."""
    print(f"{time.strftime('%Y-%m-%d')}, {machine(*packages)}\n")
    for case in cases:
        for measure, report in ways:
            with tempfile.TemporaryDirectory() as folder:
                result = measure(case, Path(folder))
            print(json.dumps(result) if as_json else report(result) + "\n", flush=True)


def median(values: list[float]) -> float:
    return statistics.median(values)


def machine(*packages: str) -> str:
    """The processor, its cores and the versions, in one line."""
    about = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in about if line.startswith("model name")), "")
    flags = [f for f in ("avx512f", "avx512_bf16", "amx_bf16") if any(f in line.split() for line in about)]
    parts = [model or platform.machine(), f"{os.cpu_count()} cores", *flags, f"Python {platform.python_version()}"]
    return ", ".join(parts + [f"{name} {version(name)}" for name in packages])


def table(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


BERTS = {"minilm": (384, 6, 12), "base": (768, 12, 12)}  # of MiniLM-L6 and of BERT-base: dim, layers, heads
SYLLABLES = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
WORDS = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in ("", "n")]


def random_bert(folder: Path, size: str) -> Path:
    """A sentence-transformers folder of a published size (mean, normalised), of random weights over made-up words."""
    import torch
    from transformers import BertConfig, BertModel

    dim, n_layers, n_heads = BERTS[size]
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,!?", *(f"##{syllable}" for syllable in SYLLABLES)]
    words = list(dict.fromkeys([*marks, *WORDS]))[:30522]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=dim, num_hidden_layers=n_layers, num_attention_heads=n_heads,
        intermediate_size=4 * dim,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    steps = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(steps.items())
    ]
    files = {
        "modules.json": listed, "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512},
        "1_Pooling/config.json": {"word_embedding_dimension": dim, "pooling_mode_mean_tokens": True},
    }  # fmt: skip
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return folder


def mixed_texts(n: int, seed: int = 0) -> list[str]:
    """Texts of made-up words, of the lengths that searches meet: half below 30 words, few of up to 300."""
    from random import Random

    draw = Random(seed)
    return [" ".join(draw.choices(WORDS, k=min(max(int(draw.lognormvariate(3.3, 0.9)), 2), 300))) for _ in range(n)]
