"""Language models on this CPU: brolly beside transformers, bfloat16, the same checkpoint, in turn in one run.

python benchmarks/llm.py [--size 1.1B --size 135M] [--rounds 5]

Weights are random and in the shapes of TinyLlama-1.1B and SmolLM2-135M; nothing here depends on their values.
Start: a new process from its launch to the first token of "Once upon a time" on its standard output. Load: the call
alone, in a new process that has imported torch and the library, and again in one that has loaded before. Prompt (512
tokens) and decode (the pace of `generate` after its first token, greedy, both with their defaults) are measured in two
processes that stay alive. Memory: the peak of a new process after loading and 64 tokens, less what it
held with its libraries imported and the tokenizer loaded.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.common import Worker, arguments, matmul_flops, median, read_bandwidth, seconds, serve, show, table

SHAPES = {
    "1.1B": dict(
        hidden_size=2048, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4, intermediate_size=5632,
        vocab_size=32000, tie_word_embeddings=False,
    ),
    "135M": dict(
        hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536,
        vocab_size=49152, tie_word_embeddings=True,
    ),
}  # fmt: skip
SIDES = ("brolly", "transformers")
PROMPT = "once upon a time there was a model that liked to be measured and so it was " * 3
N_PROMPT, N_DECODE = 512, 48

START = {
    "brolly": "import sys, brolly\n"
    "for piece in brolly.load(sys.argv[1]).stream(sys.argv[2], max_tokens=1, temperature=0):\n"
    "    print('token', flush=True)\n    break\n",
    "transformers": "import sys, torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
    "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)\n"
    "given = AutoTokenizer.from_pretrained(sys.argv[1])(sys.argv[2], return_tensors='pt')\n"
    "model.generate(**given, max_new_tokens=1, do_sample=False)\nprint('token', flush=True)\n",
}

LOAD = {
    "brolly": "import sys, time, torch, brolly\nstart = time.perf_counter()\n"
    "brolly.load(sys.argv[1], dtype='bfloat16')\nprint(time.perf_counter() - start)\n",
    "transformers": "import sys, time, torch\nfrom transformers import AutoModelForCausalLM\n"
    "start = time.perf_counter()\nAutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)\n"
    "print(time.perf_counter() - start)\n",
}


def make(folder: Path, shape: dict[str, Any]) -> None:
    """A checkpoint of random bfloat16 weights with a tokenizer, as transformers would write it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [f"\u0120w{i}" for i in range(shape["vocab_size"] - len(alphabet))]  # every id is some text
    tokenizer = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(**shape, max_position_embeddings=2048, eos_token_id=None, bos_token_id=None, pad_token_id=0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config)
    torch.set_default_dtype(before)
    model.save_pretrained(folder)


class Brolly:
    def __init__(self, folder: str) -> None:
        import brolly.checkpoint
        import brolly.loader
        import brolly.media.text
        import brolly.model

        self.brolly, self.folder = brolly, folder
        self.tokenizer = brolly.media.text.load_tokenizer(brolly.checkpoint.read_header(Path(folder)))

    def load(self) -> None:
        self.model = self.brolly.load(self.folder, dtype="bfloat16")
        self.model.tokenizer = self.tokenizer

    def prompt(self) -> None:
        import torch

        ids, places = torch.arange(N_PROMPT)[None], torch.arange(N_PROMPT)[None]
        self.model.runner.forward(ids, places, self.model.runner.new_cache(1, N_PROMPT))

    def decode(self) -> list[float]:
        stamps = []
        for _ in self.model.stream(PROMPT, max_tokens=N_DECODE, temperature=0):
            stamps.append(time.perf_counter())
        if (settler := self.model.runner.settler) is not None:
            settler.join()
        return stamps

    def describe(self) -> str:
        return self.model.runner.describe()


class Transformers:
    def __init__(self, folder: str) -> None:
        import torch
        import transformers
        from transformers import LlamaForCausalLM  # imports what the first load would

        assert LlamaForCausalLM
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.hf, self.torch, self.folder = transformers, torch, folder
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def load(self) -> None:
        self.model = self.hf.AutoModelForCausalLM.from_pretrained(self.folder, dtype=self.torch.bfloat16)

    def prompt(self) -> None:
        with self.torch.inference_mode():
            self.model(self.torch.arange(N_PROMPT)[None], use_cache=True, logits_to_keep=1)

    def decode(self) -> list[float]:
        stamps: list[float] = []

        class Stamps(self.hf.generation.streamers.BaseStreamer):  # type: ignore[name-defined, misc]
            def put(self, value: Any) -> None:
                stamps.append(time.perf_counter())

            def end(self) -> None:
                pass

        given = self.tokenizer(PROMPT, return_tensors="pt")
        self.model.generate(**given, max_new_tokens=N_DECODE, do_sample=False, streamer=Stamps())
        return stamps[1:]  # the first is the prompt itself

    def describe(self) -> str:
        return f"attention: {self.model.config._attn_implementation}"


def work(side: str, folder: str) -> None:
    import torch

    it: Any = Brolly(folder) if side == "brolly" else Transformers(folder)
    torch.nn.functional.linear(*torch.ones(2, 512, 512, dtype=torch.bfloat16))  # threads and their memory are there
    baseline = memory("VmRSS")
    it.load()

    def answer(question: dict[str, Any]) -> Any:
        match question["do"]:
            case "load":
                return seconds(it.load)
            case "prompt":
                return seconds(it.prompt)
            case "decode":
                stamps = it.decode()
                return (len(stamps) - 1) / (stamps[-1] - stamps[0])
            case "memory":
                it.decode()
                return memory("VmHWM") - baseline
            case "describe":
                return it.describe()
            case "limits":
                return [read_bandwidth(), matmul_flops()]
            case other:
                raise ValueError(other)

    serve(answer)


def memory(field: str) -> int:
    """This process's memory in bytes: VmRSS now, VmHWM at its peak."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def first_token(side: str, folder: Path) -> float:
    command = [sys.executable, "-c", START[side], str(folder), "Once upon a time"]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        took = time.perf_counter() - begin
        process.stdout.read()
    if line != "token\n":
        raise SystemExit(f"{side} gave no token")
    return took


def first_load(side: str, folder: Path) -> float:
    command = [sys.executable, "-c", LOAD[side], str(folder)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure(size: str, rounds: int, folder: Path) -> dict[str, Any]:
    shape = SHAPES[size]
    make(folder, shape)
    n_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    table_bytes = 0 if shape["tie_word_embeddings"] else 2 * shape["vocab_size"] * shape["hidden_size"]
    read_bytes = n_bytes - table_bytes  # a step reads every weight but the embedding's rows of other tokens
    flops = (
        2 * N_PROMPT * (n_bytes // 2 - shape["vocab_size"] * shape["hidden_size"] * (2 - shape["tie_word_embeddings"]))
    )

    found: dict[str, dict[str, list[float]]] = {side: {} for side in SIDES}
    for side in SIDES:
        first_token(side, folder)  # the page cache and the byte code are warm for both
    for _ in range(rounds):
        for side in SIDES:
            found[side].setdefault("start", []).append(first_token(side, folder))
            found[side].setdefault("load", []).append(first_load(side, folder))
    for side in SIDES:
        worker = Worker(__file__, side, str(folder))
        found[side]["memory"] = [worker.ask(do="memory")]
        worker.close()
    workers = {side: Worker(__file__, side, str(folder)) for side in SIDES}
    notes = {side: workers[side].ask(do="describe") for side in SIDES}
    limits: list[list[float]] = []
    for side in SIDES:
        for what in ("prompt", "decode"):
            workers[side].ask(do=what)  # warm
    for _ in range(rounds):
        limits.append(workers["brolly"].ask(do="limits"))
        for what in ("decode", "prompt"):
            for side in SIDES:
                found[side].setdefault(what, []).append(workers[side].ask(do=what))
    for _ in range(rounds):
        for side in SIDES:
            found[side].setdefault("again", []).append(workers[side].ask(do="load"))
    for worker in workers.values():
        worker.close()
    bandwidth, speed = max(a for a, _ in limits), max(b for _, b in limits)
    return dict(
        size=size, found=found, notes=notes, bandwidth=bandwidth, flops=speed, n_bytes=n_bytes, read_bytes=read_bytes,
        prompt_flops=flops,
    )  # fmt: skip


def report(result: dict[str, Any]) -> str:
    ours, theirs = (result["found"][side] for side in SIDES)
    rows = [["", "brolly", "transformers", "ratio", "share of the limit"]]

    def row(name: str, what: str, show: Any, ratio: float, share: str = "") -> None:
        rows.append([name, show(median(ours[what])), show(median(theirs[what])), f"{ratio:.2f}×", share])

    def quotient(what: str) -> float:
        return median([a / b for a, b in zip(ours[what], theirs[what], strict=True)])

    row("process start to first token", "start", lambda s: f"{s * 1000:.0f} ms", quotient("start"))
    row("load, first of a process", "load", lambda s: f"{s * 1000:.0f} ms", quotient("load"))
    row("load, again", "again", lambda s: f"{s * 1000:.0f} ms", quotient("again"))
    share = result["prompt_flops"] / median(ours["prompt"]) / result["flops"]
    row(
        "prompt of 512",
        "prompt",
        lambda s: f"{N_PROMPT / s:.0f} tok/s",
        1 / quotient("prompt"),
        f"{share:.0%} of FLOP/s",
    )
    share = result["read_bytes"] * median(ours["decode"]) / result["bandwidth"]
    row("decode", "decode", lambda t: f"{t:.1f} tok/s", quotient("decode"), f"{share:.0%} of bandwidth")
    row("memory for the weights' size", "memory", lambda b: f"{b / result['n_bytes']:.2f}×", quotient("memory"))
    lines = [f"### {result['size']}, bfloat16", "", table(rows), ""]
    lines.append(
        f"Limits in this run: read {result['bandwidth'] / 1e9:.1f} GB/s, bfloat16 {result['flops'] / 1e12:.2f} TFLOP/s."
    )
    lines += [f"{side}: {note}." for side, note in result["notes"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = arguments(__doc__, "--size", SHAPES)
    given = parser.parse_args()
    packages = ("torch", "transformers")
    way = (lambda case, folder: measure(case, given.rounds, folder), report)
    show(given.size or SHAPES, given.json, packages, way)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
