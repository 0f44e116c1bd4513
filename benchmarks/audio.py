"""Whisper on this CPU: brolly, transformers, faster-whisper and openai-whisper, the same weights, in turn in one run.

python benchmarks/audio.py [--size base --size small] [--rounds 5] [--sound speech.flac]

Weights are random and in the published shapes. So that all write equally much, the rows of the end and of every control
token and timestamp point away from where the last norm's bias points, which leaves words alone: nobody ends early, and
each writes the most that it may, 27 tokens behind the prompt (as many as the eleven seconds of jfk.flac have). Measured
is a file's way to text, in a process that has loaded its model: reading and resampling, mel frames, the encoder, 27
steps. Language is told, no temperature but 0 is tried, nothing is conditioned on earlier text. brolly, faster-whisper
and openai-whisper are called with their defaults otherwise, so with timestamps. transformers and openai-whisper read
the file by faster-whisper's PyAV decoder, for their own want a system ffmpeg.

Long: the sound over and over to three minutes, 80 tokens a half minute, brolly alone: one window after the other, as
OpenAI does it, and eight side by side.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks.common import Worker, arguments, matmul_flops, median, read_bandwidth, serve, show, table

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"base": (512, 6, 8), "small": (768, 12, 12)}  # dim, layers, heads
DTYPES = {"brolly": "bfloat16", "transformers": "bfloat16", "faster-whisper": "int8", "openai-whisper": "float32"}
BEAMS = (5, 1)
N_TOKENS, N_LONG, LONG_SECONDS, BATCH = 27, 80, 180, 8
VOCABULARY, END, FIRST_TIME, PLACES = 51865, 50257, 50364, 1500
CONTROL = {"<|translate|>": 50358, "<|transcribe|>": 50359, "<|startoflm|>": 50360, "<|startofprev|>": 50361,
           "<|nospeech|>": 50362, "<|notimestamps|>": 50363}  # fmt: skip


def make(folder: Path, size: str, n_tokens: int) -> None:
    """Random bfloat16 weights as transformers would write them, a tokenizer, and OpenAI's own file."""
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    from brolly.media.audio.languages import LANGUAGES
    from tests.families import speech_layouts

    dim, n_layers, n_heads = SIZES[size]
    config = WhisperConfig(
        d_model=dim, encoder_layers=n_layers, decoder_layers=n_layers, encoder_attention_heads=n_heads,
        decoder_attention_heads=n_heads, encoder_ffn_dim=4 * dim, decoder_ffn_dim=4 * dim, vocab_size=VOCABULARY,
        max_target_positions=2 * n_tokens,  # half of them may be new, say OpenAI and brolly
        pad_token_id=END, bos_token_id=END, eos_token_id=END, decoder_start_token_id=END + 1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        decoder = model.model.decoder
        decoder.embed_tokens.weight.normal_(std=0.2)
        away = torch.randn(dim)
        decoder.layer_norm.bias.copy_(2 * away)  # outweighs what a control token itself brings along
        decoder.embed_tokens.weight[END:] = -away
    languages = [*LANGUAGES][: CONTROL["<|translate|>"] - END - 2]
    names = {"<|endoftext|>": END, "<|startoftranscript|>": END + 1, **CONTROL}
    names |= {f"<|{code}|>": END + 2 + i for i, code in enumerate(languages)}
    names |= {f"<|{i * 0.02:.2f}|>": FIRST_TIME + i for i in range(VOCABULARY - FIRST_TIME)}
    model.generation_config = GenerationConfig(
        lang_to_id={f"<|{code}|>": names[f"<|{code}|>"] for code in languages}, is_multilingual=True,
        task_to_id={"transcribe": CONTROL["<|transcribe|>"], "translate": CONTROL["<|translate|>"]},
        no_timestamps_token_id=CONTROL["<|notimestamps|>"], decoder_start_token_id=END + 1, eos_token_id=END,
        pad_token_id=END, bos_token_id=END, max_initial_timestamp_index=50, suppress_tokens=[],
        begin_suppress_tokens=[END],
    )  # fmt: skip
    model.to(torch.bfloat16).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    tokenizer(folder, names)
    speech_layouts.write_openai(folder / "openai.pt", model.float())


def tokenizer(folder: Path, names: dict[str, int]) -> None:
    """A tokenizer.json of made-up words: what they are changes no time."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = alphabet + [f"\u0120w{i}" for i in range(END - len(alphabet))]
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in sorted(names, key=names.__getitem__)])
    assert all(made.token_to_id(name) == i for name, i in names.items())
    made.save(str(folder / "tokenizer.json"))


class Brolly:
    def __init__(self, folder: str) -> None:
        import brolly

        self.model = brolly.load(folder, dtype="bfloat16")
        self.plain: dict[str, Any] = dict(
            language="en", temperature=(0.0,), compression_ratio_threshold=None, logprob_threshold=None,
            condition_on_previous_text=False,
        )  # fmt: skip

    def transcribe(self, sound: str, beams: int, batch: int = 1) -> int:
        done = self.model.transcribe(sound, beam_size=beams, batch_size=batch, **self.plain)
        return sum(len(segment.tokens) for segment in done.segments)

    def describe(self) -> str:
        listener = self.model.ear.listener
        return f"decoder by {'torch: ' + listener.fused if isinstance(listener.fused, str) else 'fused C'}"


class Transformers:
    def __init__(self, folder: str) -> None:
        import torch
        import transformers
        from faster_whisper.audio import decode_audio
        from tokenizers import Tokenizer

        transformers.utils.logging.set_verbosity_error()
        self.torch, self.read = torch, decode_audio
        self.mel = transformers.WhisperFeatureExtractor.from_pretrained(folder)
        self.tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        kind = transformers.WhisperForConditionalGeneration
        self.model = kind.from_pretrained(folder, dtype=torch.bfloat16)

    def transcribe(self, sound: str, beams: int) -> int:
        given = self.mel(self.read(sound), sampling_rate=16_000, return_tensors="pt").input_features
        with self.torch.inference_mode():
            ids = self.model.generate(
                given.to(self.torch.bfloat16),
                num_beams=beams,
                max_new_tokens=N_TOKENS,
                language="en",
                task="transcribe",
            )
        self.tokenizer.decode(ids[0].tolist())
        return len(ids[0])


class FasterWhisper:
    def __init__(self, folder: str) -> None:
        import torch
        from ctranslate2.converters import TransformersConverter
        from faster_whisper import WhisperModel

        out = f"{folder}/ct2"
        if not Path(out).exists():
            TransformersConverter(folder, copy_files=["tokenizer.json", "preprocessor_config.json"]).convert(out)
        self.model = WhisperModel(out, device="cpu", compute_type="int8", cpu_threads=torch.get_num_threads())

    def transcribe(self, sound: str, beams: int) -> int:
        segments, _ = self.model.transcribe(
            sound, beam_size=beams, language="en", temperature=0, max_new_tokens=2 * N_TOKENS - 3,  # halved
            compression_ratio_threshold=None, log_prob_threshold=None, condition_on_previous_text=False,
        )  # fmt: skip
        return sum(len(segment.tokens) for segment in segments)


class OpenAI:
    def __init__(self, folder: str) -> None:
        import whisper
        from faster_whisper.audio import decode_audio

        self.model, self.read = whisper.load_model(f"{folder}/openai.pt", device="cpu"), decode_audio

    def transcribe(self, sound: str, beams: int) -> int:
        done = self.model.transcribe(
            self.read(sound), beam_size=beams if beams > 1 else None, language="en", temperature=0.0, fp16=False,
            compression_ratio_threshold=None, logprob_threshold=None, condition_on_previous_text=False,
        )  # fmt: skip
        return sum(len(segment["tokens"]) for segment in done["segments"])


KINDS = {"brolly": Brolly, "transformers": Transformers, "faster-whisper": FasterWhisper, "openai-whisper": OpenAI}


def work(side: str, folder: str) -> None:
    model: Any = KINDS[side](folder)

    def answer(question: dict[str, Any]) -> Any:
        match question.pop("do"):
            case "transcribe":
                start = time.perf_counter()
                n_tokens = model.transcribe(**question)
                return time.perf_counter() - start, n_tokens
            case "describe":
                return model.describe()
            case "limits":
                return read_bandwidth(2**28, 4), matmul_flops(2048)

    serve(answer)


def least_seconds(size: str, bandwidth: float, flops: float) -> float:
    """What the encoder's products and the reading of what each step needs would take at the machine's limits."""
    dim, n_layers, _ = SIZES[size]
    block = 12 * dim**2
    encoder = 2 * PLACES * n_layers * (block + 2 * PLACES * dim) + 2 * PLACES * dim * 3 * (2 * 80 + dim)
    cross = 2 * PLACES * n_layers * 2 * dim**2
    read = 2 * (n_layers * (block + 2 * dim**2 + 2 * PLACES * dim) + VOCABULARY * dim)
    return (encoder + cross) / flops + N_TOKENS * read / bandwidth


def measure(size: str, rounds: int, folder: Path, sound: str) -> dict[str, Any]:
    make(folder, size, N_TOKENS)
    workers = {side: Worker(__file__, side, str(folder)) for side in KINDS}
    found: dict[str, dict[int, list[float]]] = {side: {beams: [] for beams in BEAMS} for side in KINDS}
    counts: dict[str, int] = {}
    for side, worker in workers.items():
        for beams in BEAMS:
            _, counts[f"{side}, beams {beams}"] = worker.ask(do="transcribe", sound=sound, beams=beams)  # warm
    limits = []
    for _ in range(rounds):
        limits.append(workers["brolly"].ask(do="limits"))
        for beams in BEAMS:
            for side, worker in workers.items():
                found[side][beams].append(worker.ask(do="transcribe", sound=sound, beams=beams)[0])
    note = workers["brolly"].ask(do="describe")
    for worker in workers.values():
        worker.close()
    bandwidth, flops = max(a for a, _ in limits), max(b for _, b in limits)
    return dict(
        size=size, found=found, counts=counts, note=note, bandwidth=bandwidth, flops=flops,
        least=least_seconds(size, bandwidth, flops),
    )  # fmt: skip


def measure_long(size: str, rounds: int, folder: Path, sound: str) -> dict[str, Any]:
    import soundfile

    from brolly.media.audio import RATE, open_audio

    make(folder, size, N_LONG)
    samples = open_audio(sound).samples()
    path = str(folder / "long.flac")
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for _ in range(round(LONG_SECONDS * RATE / len(samples))):
            file.write(samples)
    worker = Worker(__file__, "brolly", str(folder))
    found: dict[int, list[float]] = {1: [], BATCH: []}
    counts = {}
    for _ in range(rounds):
        for batch, times in found.items():
            took, counts[batch] = worker.ask(do="transcribe", sound=path, beams=5, batch=batch)
            times.append(took)
    worker.close()
    return dict(size=size, found=found, counts=counts)


def report(result: dict[str, Any]) -> str:
    rows = [["", *(f"beam {beams}" if beams > 1 else "greedy" for beams in BEAMS), "brolly is faster by", ""]]
    ours = result["found"]["brolly"]
    for side, times in result["found"].items():
        ratios = [median([a / b for a, b in zip(times[beams], ours[beams], strict=True)]) for beams in BEAMS]
        faster = [f"{ratio:.2f}×" for ratio in ratios] if side != "brolly" else ["", ""]
        rows.append([f"{side} {DTYPES[side]}", *(f"{median(times[b]) * 1000:.0f} ms" for b in BEAMS), *faster])
    share = result["least"] / median(ours[BEAMS[0]])
    lines = [f"### {result['size']}", "", table(rows), ""]
    lines.append(
        f"Limits: read {result['bandwidth'] / 1e9:.1f} GB/s, bfloat16 {result['flops'] / 1e12:.2f} TFLOP/s; "
        f"at them the encoder and {N_TOKENS} steps take {result['least'] * 1000:.0f} ms, {share:.0%} of brolly's time."
    )
    told = sorted(set(result["counts"].values()))
    lines.append(f"{result['note']}. Tokens handed back: {', '.join(map(str, told))}.")
    return "\n".join(lines)


def report_long(result: dict[str, Any]) -> str:
    alone, together = result["found"][1], result["found"][BATCH]
    ratio = median([a / b for a, b in zip(alone, together, strict=True)])
    return (
        f"{result['size']}, {LONG_SECONDS} s of sound, beam 5: one window after the other {median(alone):.1f} s, "
        f"{BATCH} side by side {median(together):.1f} s, {ratio:.2f}× (tokens: {result['counts']})."
    )


def main() -> None:
    parser = arguments(__doc__, "--size", SIZES)
    parser.add_argument("--sound", default=str(ROOT / "tests/fixtures/audio/jfk.flac"))
    given = parser.parse_args()
    packages = ("torch", "transformers", "faster-whisper", "ctranslate2", "openai-whisper")
    short = (lambda size, folder: measure(size, given.rounds, folder, given.sound), report)
    long = (lambda size, folder: measure_long(size, given.rounds, folder, given.sound), report_long)
    show(given.size or SIZES, given.json, packages, short, long)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
    else:
        main()
