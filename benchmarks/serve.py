"""Servers on this CPU: `brolly serve` beside `transformers serve --continuous-batching` and llama.cpp's `llama-server`.

python benchmarks/serve.py [--case prompts --case answers …] [--size 135M] [--rounds 3] [--llama-server PATH]

One random checkpoint in bfloat16 (safetensors, and the same numbers as GGUF for llama.cpp); all servers are started
before, and each is stopped (SIGSTOP) while another is measured, in turn. Prompts are letters, a token each. Every
request asks for greedy tokens by /v1/completions, streamed, and its usage is checked. Throughput: prompt and written
tokens of all requests over the time from the first request to the last answer.

prompts: long prompts, short answers. answers: short prompts, long answers. prefix: a long prompt that all share.
steady: the time between tokens of running answers while prompts of 8,000 tokens arrive. overhead: what HTTP adds to a
token. overload: ten times as many clients as fill the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.common import Worker, machine, matmul_flops, median, read_bandwidth, serve, table
from benchmarks.llm import SHAPES, make

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CONTEXT = 16384
STREAMS = (1, 8, 32)


@dataclass
class Load:
    """Requests that some clients send, each its next one when the last is answered."""

    n_prompt: int
    n_answer: int
    clients: int
    requests: int
    shared: int = 0  # letters of the prompt that are the same in all
    seed: int = 0


@dataclass
class Told:
    """What came back."""

    wall: float = 0.0
    prompt_tokens: int = 0
    written: int = 0
    first: list[float] = field(default_factory=list)  # seconds to the first token
    gaps: list[float] = field(default_factory=list)  # between two events of an answer
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return (self.prompt_tokens + self.written) / self.wall


class Server:
    """A server process, asleep while others are measured."""

    def __init__(self, name: str, command: Sequence[Any], model: str, port: int, **env: str) -> None:
        self.name, self.model, self.port = name, model, port
        self.log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [str(c) for c in command], stdout=self.log, stderr=self.log, env=os.environ | env, start_new_session=True
        )
        self._wait()
        self.sleep()

    def _wait(self) -> None:
        for path in ("/health", "/v1/models"):
            for _ in range(600):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                        if answer.status == 200:
                            break
                except OSError:
                    if self.process.poll() is not None:
                        self.log.seek(0)
                        sys.exit(f"{self.name} ended: {self.log.read().decode()[-2000:]}")
                time.sleep(0.2)

    def wake(self) -> None:
        os.killpg(self.process.pid, signal.SIGCONT)

    def sleep(self) -> None:
        os.killpg(self.process.pid, signal.SIGSTOP)

    def close(self) -> None:
        self.wake()
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


# ---- the load generator ----


def prompts(load: Load) -> list[str]:
    draw = random.Random(load.seed)
    shared = "".join(random.Random(1).choices(LETTERS, k=load.shared))
    return [shared + "".join(draw.choices(LETTERS, k=load.n_prompt - load.shared)) for _ in range(load.requests)]


async def ask(port: int, model: str, prompt: str, n: int, told: Told, started: float | None = None) -> None:
    """One streamed request over a connection of its own."""
    asked = dict(model=model, prompt=prompt, max_tokens=n, temperature=0, stream=True)
    asked["stream_options"] = {"include_usage": True}
    if os.sep not in model:  # transformers knows models by their folder, and no such field
        asked["ignore_eos"] = True
    body = json.dumps(asked).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    begin = last = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        writer.write(head.encode() + body)
        status = int((await reader.readline()).split()[1])
    except (OSError, IndexError, ValueError):
        told.statuses[0] = told.statuses.get(0, 0) + 1
        return
    told.statuses[status] = told.statuses.get(status, 0) + 1
    usage: dict[str, int] = {}
    seen = 0
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        now = time.perf_counter()
        if b'"usage":{' in line or b'"usage": {' in line:
            usage = json.loads(line[6:])["usage"] or usage
        if seen:
            told.gaps.append(now - last)
        else:
            told.first.append(now - begin)
        seen, last = seen + 1, now
    writer.close()
    if status == 200:
        if usage.get("completion_tokens") != n or usage.get("prompt_tokens") != len(prompt):
            raise SystemExit(f"{model}: asked for {len(prompt)} + {n} tokens and was told {usage}")
        told.prompt_tokens += usage["prompt_tokens"]
        told.written += usage["completion_tokens"]


async def send(port: int, model: str, load: Load) -> Told:
    told, waiting = Told(), iter(prompts(load))

    async def client() -> None:
        for prompt in waiting:
            await ask(port, model, prompt, load.n_answer, told)

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(load.clients)))
    told.wall = time.perf_counter() - begin
    return told


def measure(server: Server, load: Load) -> Told:
    """What the server makes of a load; the others sleep."""
    server.wake()
    try:
        told = asyncio.run(send(server.port, server.model, load))
    finally:
        server.sleep()
    return told


# ---- the checkpoint for llama.cpp ----


def write_gguf(folder: Path, shape: dict[str, Any], target: Path) -> None:
    """The same tensors by the names of llama.cpp (its rotary order aside, which costs the same)."""
    import gguf
    import numpy as np
    from safetensors import safe_open
    from tokenizers import Tokenizer

    writer = gguf.GGUFWriter(str(target), "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(shape["hidden_size"] // shape["num_attention_heads"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    vocab = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(vocab, key=vocab.__getitem__))
    writer.add_token_types([1] * len(vocab))
    writer.add_token_merges(["a b"])
    writer.add_add_bos_token(False)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
             "post_attention_layernorm": "ffn_norm"}  # fmt: skip
    outer = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}  # fmt: skip
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            if name in outer:
                to = outer[name]
            else:
                _, _, layer, *inner, _ = name.split(".")
                to = f"blk.{layer}.{names['.'.join(inner)]}.weight"
            if tensor.dim() == 1:
                writer.add_tensor(to, tensor.float().numpy())
            else:
                import torch

                raw = tensor.contiguous().view(torch.uint8).numpy().astype(np.uint8, copy=False)
                writer.add_tensor(to, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- the servers ----


def start(name: str, folder: Path, given: argparse.Namespace, *more: str) -> Server:
    port = free_port()
    here = Path(sys.executable).parent
    match name:
        case "brolly":
            # the process that is measured is the command a user types
            command = [here / "brolly", "serve", folder, "--port", port, "--memory", "16GB"]
            command += ["--pin", folder.name, *more]
            return Server(name, command, folder.name, port)
        case "transformers":
            command = [here / "transformers", "serve", folder, "--continuous-batching", "--device", "cpu"]
            command += ["--dtype", "bfloat16", "--port", port, "--cb-max-memory-percent", 0.2]
            return Server(name, command, str(folder), port, HF_HUB_OFFLINE="1")
        case "llama.cpp":
            command = [given.llama_server, "-m", folder / "model.gguf", "--port", port, "-t", os.cpu_count(), "-np", 32]
            command += ["-c", 32 * 1024, "--no-webui", "-a", folder.name]
            return Server(name, command, folder.name, port)
    raise ValueError(name)


def throughput(
    servers: list[Server], rounds: int, streams: Sequence[int], n_prompt: int, n_answer: int
) -> list[list[str]]:
    rows = [["clients", *(s.name for s in servers), *(f"× {s.name}" for s in servers[1:]), "first token, median"]]
    for clients in streams:
        rates: dict[str, list[float]] = {s.name: [] for s in servers}
        firsts: list[float] = []
        for turn in range(rounds):
            for server in servers:
                load = Load(n_prompt, n_answer, clients, max(clients, 2), seed=1000 * clients + turn)
                told = measure(server, load)
                if told.statuses != {200: load.requests}:
                    raise SystemExit(f"{server.name} answered {told.statuses}")
                rates[server.name].append(told.rate)
                if server is servers[0]:
                    firsts += told.first
        ours = rates[servers[0].name]
        ratios = [median([a / b for a, b in zip(ours, rates[s.name], strict=True)]) for s in servers[1:]]
        rows.append([
            str(clients), *(f"{median(rates[s.name]):.0f} tok/s" for s in servers), *(f"{r:.2f}×" for r in ratios),
            f"{1000 * median(firsts):.0f} ms",
        ])  # fmt: skip
    return rows


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def steady(server: Server, length: int) -> list[list[str]]:
    """Eight answers run; prompts of `length` tokens arrive one after another."""

    async def both(arrive: bool) -> Told:
        told, others = Told(), Told()
        draw = random.Random(5 + arrive)
        running = [
            asyncio.create_task(ask(server.port, server.model, "".join(draw.choices(LETTERS, k=64)), 400, told))
            for _ in range(8)
        ]
        await asyncio.sleep(1)
        while arrive and not all(task.done() for task in running):
            long = asyncio.create_task(
                ask(server.port, server.model, "".join(draw.choices(LETTERS, k=length)), 1, others)
            )
            await asyncio.wait([long, *running], return_when=asyncio.FIRST_COMPLETED)
            if not long.done():
                long.cancel()
        await asyncio.gather(*running)
        return told

    server.wake()
    rows = [["", "median", "p99", "p99 / median", "longest"]]
    for name, arrive in (("alone", False), (f"while prompts of {length:,} arrive", True)):
        gaps = asyncio.run(both(arrive)).gaps
        middle, late = median(gaps), percentile(gaps, 0.99)
        rows.append(
            [
                name,
                *(f"{1000 * x:.1f} ms" for x in (middle, late)),
                f"{late / middle:.2f}",
                f"{1000 * max(gaps):.0f} ms",
            ]
        )
    server.sleep()
    return rows


def overload(server: Server, rounds: int) -> list[list[str]]:
    """As many clients as fill the server, then ten times as many, each asking again as soon as it is answered."""
    rows = [["clients", "tok/s", "answered", "429", "other"]]
    for clients in (32, 320):
        rates, statuses = [], {}
        for turn in range(rounds):
            told = measure(server, Load(128, 64, clients, max(160, clients * 2), seed=turn + clients))
            rates.append(told.rate)
            for status, n in told.statuses.items():
                statuses[status] = statuses.get(status, 0) + n
        other = sum(n for status, n in statuses.items() if status not in (200, 429))
        rows.append([str(clients), f"{median(rates):.0f}", *(str(statuses.get(s, 0)) for s in (200, 429)), str(other)])
    return rows


def direct(folder: str) -> None:
    """A worker: the engine without HTTP."""
    import threading

    import brolly

    model = brolly.load(folder, dtype="bfloat16")

    def answer(load: dict[str, Any]) -> float:
        jobs = [
            model.prepare(p, max_tokens=load["n_answer"], temperature=0, ignore_eos=True) for p in prompts(Load(**load))
        ]
        left, done = threading.Semaphore(0), []

        def deliver(piece: Any) -> None:
            if isinstance(piece, BaseException) or piece.finish_reason:
                done.append(piece)
                left.release()

        begin = time.perf_counter()
        for job in jobs:
            model.submit(job, deliver)
        for _ in jobs:
            left.acquire()
        took = time.perf_counter() - begin
        if any(isinstance(piece, BaseException) for piece in done):
            raise SystemExit(str(done))
        return took

    serve(answer)


def overhead(server: Server, folder: Path, rounds: int) -> list[list[str]]:
    """The same 32 requests by HTTP and by the engine alone."""
    worker = Worker(__file__, str(folder))
    load = dict(n_prompt=32, n_answer=128, clients=32, requests=32)
    worker.ask(**load)
    measure(server, Load(**load))
    with_http, without = [], []
    for turn in range(rounds):
        with_http.append(measure(server, Load(**load, seed=turn + 1)).wall)
        without.append(worker.ask(**load, seed=turn + 1))
    worker.close()
    n = load["requests"] * load["n_answer"]
    extra = statistics.median([a - b for a, b in zip(with_http, without, strict=True)])
    return [
        ["32 answers of 128 tokens", "seconds", "tok/s"],
        ["engine alone", f"{median(without):.2f}", f"{n / median(without):.0f}"],
        ["over HTTP", f"{median(with_http):.2f}", f"{n / median(with_http):.0f}"],
        ["HTTP adds, a token", f"{1000 * extra / n:.3f} ms", f"{1000 * extra / load['n_answer']:.2f} ms a step of 32"],
    ]


def prefix(folder: Path, given: argparse.Namespace, server: Server, rounds: int) -> list[list[str]]:
    """Requests that share 1,024 of 1,088 tokens, by a server with its prefix cache and by one without."""
    without = start("brolly", folder, given, "--no-prefix-cache")
    rows = [["clients", "with the prefix cache", "without", "ratio"]]
    for clients in (1, 8):
        rates: dict[int, list[float]] = {id(server): [], id(without): []}
        for turn in range(rounds):
            for one in (server, without):
                told = measure(one, Load(1088, 16, clients, max(2 * clients, 6), shared=1024, seed=turn + 7))
                rates[id(one)].append(told.rate)
        ratio = median([a / b for a, b in zip(rates[id(server)], rates[id(without)], strict=True)])
        rows.append([str(clients), *(f"{median(r):.0f} tok/s" for r in rates.values()), f"{ratio:.2f}×"])
    without.close()
    return rows


CASES = ("prompts", "answers", "prefix", "steady", "overhead", "overload")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--size", action="append", choices=list(SHAPES), help="default: 135M")
    sides = ("none", "transformers", "llama.cpp")
    parser.add_argument("--side", action="append", choices=sides, help="default: those here")
    parser.add_argument("--clients", action="append", type=int, help="of prompts and answers; default: 1, 8 and 32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-server", default=shutil.which("llama-server"), help="default: the one in PATH")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are stopped in any case
    print(f"{time.strftime('%Y-%m-%d')}, {machine('torch', 'transformers')}\n", flush=True)
    for size in given.size or ["135M"]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / f"random-{size}"
            folder.mkdir()
            make(folder, SHAPES[size])
            config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": CONTEXT}
            (folder / "config.json").write_text(json.dumps(config))
            run(size, folder, given)


def run(size: str, folder: Path, given: argparse.Namespace) -> None:
    cases = given.case or CASES
    peers = given.side if given.side is not None else ["transformers", *(["llama.cpp"] if given.llama_server else [])]
    if "llama.cpp" in peers:
        write_gguf(folder, SHAPES[size], folder / "model.gguf")
    beside = [p for p in peers if p != "none" and {"prompts", "answers"} & set(cases)]
    servers = []
    try:
        for name in ("brolly", *beside):
            servers.append(start(name, folder, given))
        for server in servers:
            measure(server, Load(64, 8, 2, 4, seed=99))  # warm
        big = size == "1.1B"
        for case in cases:
            match case:
                case "prompts":
                    rows = throughput(servers, given.rounds, given.clients or STREAMS, 256 if big else 512, 16)
                case "answers":
                    rows = throughput(servers, given.rounds, given.clients or STREAMS, 32, 64 if big else 128)
                case "prefix":
                    rows = prefix(folder, given, servers[0], given.rounds)
                case "steady":
                    rows = steady(servers[0], 8000)
                case "overhead":
                    rows = overhead(servers[0], folder, given.rounds)
                case "overload":
                    rows = overload(servers[0], given.rounds)
            print(f"### {size}, {case}\n\n{table(rows)}\n", flush=True)
    finally:
        for server in servers:
            server.close()
    print(
        f"Limits: read {read_bandwidth() / 1e9:.1f} GB/s, bfloat16 {matmul_flops() / 1e12:.2f} TFLOP/s.\n", flush=True
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        direct(*sys.argv[2:])
    else:
        main()
