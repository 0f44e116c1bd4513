"""mini-whisper: `python recipes/mini_whisper.py train SPEECH OUT [MINUTES [SHARE]]`, then `… eval SPEECH MODEL`.

SPEECH is what mini_whisper_speech.py makes. Two helps make an hour enough: a head that spells (CTC, Graves et al. 2006)
teaches the encoder its letters and is thrown away, and two of the decoder's heads are told about where each token is said.
With SHARE it goes on from the weights in OUT as if that share of the minutes were over.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from small_training import Clock, go_on, initialise, make_quick, save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

import brolly
from brolly.configs import StackConfig, WhisperConfig
from brolly.engine.cache import Causal
from brolly.media.audio.mel import log_mel
from brolly.models import build

DIM, HEADS, LAYERS = 128, 2, (4, 3)
GUIDED = ((1, 0), (2, 0))  # layers and heads that are told where to look; words get their times from these
N_WORDS = 1024  # the vocabulary without control tokens
CONTROL = (
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
)  # fmt: skip
EOT, SOT, EN, _, TRANSCRIBE, _, PREV, NO_SPEECH, NO_TIMES = range(N_WORDS, N_WORDS + len(CONTROL))
TIMES = NO_TIMES + 1
N_VOCAB = TIMES + 1501
LETTERS = {letter: i + 1 for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz' ")}  # 0 is CTC's blank
FRAMES_A_BATCH = 10_000
FEW = 4  # whole windows that the encoder learns from at once


class Clip(NamedTuple):
    """Where its frames are, and what is said when."""

    mels: np.ndarray
    start: int
    frames: int
    segments: list[tuple[float, float, str]]

    def mel(self) -> Tensor:
        """(80, frames)."""
        return torch.from_numpy(self.mels[self.start : self.start + self.frames].astype(np.float32)).t()


def clips(path: Path) -> list[Clip]:
    """The clips of a shard."""
    mels, start, found = np.load(path, mmap_mode="r"), 0, []
    for line in path.with_suffix(".jsonl").read_text().splitlines():
        row = json.loads(line)
        found.append(Clip(mels, start, row["frames"], row["segments"]))
        start += row["frames"]
    return found


def make_tokenizer(sentences: Sequence[str]) -> Tokenizer:
    """GPT-2's bytes and merges, then Whisper's control tokens and times."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    teacher = trainers.BpeTrainer(vocab_size=N_WORDS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([f" {s}" for s in sentences], teacher)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in CONTROL])
    tokenizer.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>", normalized=False) for i in range(1501)])
    return tokenizer


def config() -> WhisperConfig:
    ear = StackConfig(DIM, LAYERS[0], HEADS, 4 * DIM, 1e-5, "gelu", k_bias=False)
    return WhisperConfig(ear, 80, 1500, N_VOCAB, 448, LAYERS[1], HEADS, 4 * DIM)


def sinusoids(length: int, dim: int) -> Tensor:
    """Positions of the sound, which are not learned."""
    angles = torch.arange(length)[:, None] * torch.exp(-np.log(10_000) * torch.arange(dim // 2) / (dim // 2 - 1))
    return torch.cat([angles.sin(), angles.cos()], 1)


def hugging_face(name: str) -> str:
    """A parameter's name there."""
    name = re.sub(r"^encoder\.blocks\.layers\.(\d+)\.layer_norm1", r"encoder.layers.\1.self_attn_layer_norm", name)
    name = re.sub(r"^encoder\.blocks\.layers\.(\d+)\.layer_norm2", r"encoder.layers.\1.final_layer_norm", name)
    name = re.sub(r"^encoder\.blocks\.layers\.(\d+)\.(?:mlp\.)?", r"encoder.layers.\1.", name)
    return f"model.{name}"


def export(network: nn.Module, tokenizer: Tokenizer, out: Path) -> None:
    """A folder that transformers reads too."""
    ids = {"bos_token_id": EOT, "eos_token_id": EOT, "pad_token_id": EOT, "decoder_start_token_id": SOT}
    save(out, {hugging_face(name): tensor for name, tensor in network.state_dict().items()}, {
        "config.json": {
            "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "torch_dtype": "bfloat16",
            "vocab_size": N_VOCAB, "d_model": DIM, "num_mel_bins": 80, "encoder_layers": LAYERS[0],
            "encoder_attention_heads": HEADS, "encoder_ffn_dim": 4 * DIM, "decoder_layers": LAYERS[1],
            "decoder_attention_heads": HEADS, "decoder_ffn_dim": 4 * DIM, "activation_function": "gelu",
            "max_source_positions": 1500, "max_target_positions": 448, "is_encoder_decoder": True,
            "scale_embedding": False, "tie_word_embeddings": True, "suppress_tokens": None,
            "begin_suppress_tokens": [EOT], **ids,
        },
        "generation_config.json": {
            **ids, "is_multilingual": True, "lang_to_id": {"<|en|>": EN}, "max_length": 448, "suppress_tokens": [],
            "task_to_id": {"transcribe": TRANSCRIBE, "translate": TRANSCRIBE - 1}, "no_timestamps_token_id": NO_TIMES,
            "prev_sot_token_id": PREV, "begin_suppress_tokens": [EOT], "max_initial_timestamp_index": 50,
            "return_timestamps": False, "alignment_heads": GUIDED, "language": "en", "task": "transcribe",
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "WhisperFeatureExtractor", "processor_class": "WhisperProcessor", "feature_size": 80,
            "sampling_rate": 16000, "hop_length": 160, "n_fft": 400, "chunk_length": 30, "n_samples": 480000,
            "nb_max_frames": 3000, "padding_side": "right", "padding_value": 0.0, "return_attention_mask": False,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "WhisperTokenizer", "processor_class": "WhisperProcessor", "model_max_length": 448,
            "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>", "add_prefix_space": False,
        },
    })  # fmt: skip
    tokenizer.save(str(out / "tokenizer.json"))


class Target(NamedTuple):
    """A transcript's tokens, about when the next one is said (or -1), and how many tokens are an earlier sentence's."""

    ids: list[int]
    places: list[float]
    skip: int


def target(clip: Clip, tokenizer: Tokenizer, before: str, rng: random.Random) -> Target:
    """Most of them with times, some behind an earlier sentence."""
    if not clip.segments:
        return Target([SOT, NO_SPEECH, EOT], [-1.0] * 3, 0)
    prompt = [PREV, *tokenizer.encode(f" {before}").ids] if rng.random() < 0.1 else []
    ids, timed = [*prompt, SOT, EN, TRANSCRIBE], rng.random() < 0.75
    if not timed:
        ids.append(NO_TIMES)
    places = [-1.0] * len(ids)
    for start, end, text in clip.segments:
        said = tokenizer.encode(f" {text}")
        middles = [start + (end - start) * (a + b) / 2 / (len(text) + 1) for a, b in said.offsets]
        ids += [TIMES + round(start / 0.02), *said.ids, TIMES + round(end / 0.02)] if timed else said.ids
        places += [start, *middles, end] if timed else middles
    return Target([*ids, EOT], [*places[1:], -1.0, -1.0], len(prompt))


def astray(seen: Tensor, places: Tensor) -> Tensor:
    """How little of the heads' attention (B, T, S) is within 0.4 s of where the next token is said (B, T)."""
    moments = torch.arange(seen.shape[-1]) * 0.02
    near = ((moments - places[..., None]).abs() < 0.4) & (places[..., None] >= 0)
    inside = (seen.softmax(-1) * near).sum(-1)
    return -(inside[places >= 0] + 1e-4).log().mean()


def spelling(clip: Clip) -> list[int]:
    """Its letters, for CTC."""
    text = " ".join(text for _, _, text in clip.segments).lower()
    return [LETTERS[c] for c in re.sub(r"[^a-z' ]", "", text)]


def noise(rng: random.Random) -> Clip:
    """Nobody speaks."""
    grey = np.random.default_rng(rng.getrandbits(32))
    sound = grey.standard_normal(16_000 * rng.randint(2, 5)).astype(np.float32) * rng.choice((0.0, 0.001, 0.03))
    sound = np.convolve(sound, np.ones(rng.randint(1, 8), np.float32) / 3, "same").astype(np.float32)
    mel = log_mel(sound).T
    return Clip(mel, 0, len(mel), [])


def batches(every: list[Clip], rng: random.Random, clock: Clock) -> Iterator[tuple[list[Clip], int]]:
    """Clips of about one length, and how many frames to fill them up to: short ones first, whole windows late."""
    while True:
        longest = 650 if clock.share < 0.3 else 1400
        pool = [c for c in every if c.frames <= longest]
        pool = sorted(rng.sample(pool, min(2000, len(pool))), key=lambda c: c.frames)
        ready = []
        while pool:
            most = pool[-1].frames + rng.choice((10, 40, 100, 400))
            n = max(1, FRAMES_A_BATCH // most)
            ready.append((pool[-n:], most))
            del pool[-n:]
        rng.shuffle(ready)
        for some, most in ready:
            yield some, most
            if clock.share > 0.4 and rng.random() < 0.5:  # whole windows, as it will always hear them
                yield rng.sample(every, rng.choice((FEW, 10, 10, 10))), 3000


def together(some: list[Clip], most: int, rng: random.Random) -> Tensor:
    """Mel frames with silence behind, and bands and moments masked (Park et al. 2019): (B, 80, F)."""
    rows = []
    for clip in some:
        mel = clip.mel().clone()
        silence = float(mel.max()) - 2
        for _ in range(rng.choice((0, 1, 2))):
            low, wide = rng.randrange(80), rng.randint(1, 12)
            mel[low : low + wide] = float(mel.mean())
        for _ in range(rng.choice((0, 1, 2))):
            first = rng.randrange(mel.shape[1])
            mel[:, first : first + rng.randint(1, 12)] = silence
        rows.append(F.pad(mel, (0, most - mel.shape[1]), value=silence))
    return torch.stack(rows)


def train(folder: Path, out: Path, minutes: float, share: float) -> None:
    """Next tokens and, of what the encoder heard, letters."""
    torch.manual_seed(1)
    make_quick()
    rng, sentences = random.Random(1), (folder / "sentences.txt").read_text().splitlines()
    tokenizer = make_tokenizer(sentences)
    shape = config()
    network: Any = build(shape)
    initialise(network, max(LAYERS))
    network.encoder.embed_positions.weight.data = sinusoids(1500, DIM)
    network.encoder.embed_positions.weight.requires_grad = False
    speller = nn.Linear(DIM, len(LETTERS) + 1)
    if share:
        go_on(network, out, hugging_face)
        if out.with_suffix(".speller").exists():
            speller.load_state_dict(torch.load(out.with_suffix(".speller")))
        rng.seed(f"after {share}")
    whole = nn.ModuleDict({"network": network, "embed_speller": speller})  # a name that Muon leaves to AdamW
    clock, means, known = Clock(whole, minutes, 2e-3, share), np.zeros(4), 0
    shards: list[Path] = []
    while clock.share < 1:
        found = sorted(folder.glob("[0-9]*[0-9].npy"))
        if found != shards:  # more of it may be made while we learn
            shards, every = found, [c for path in found for c in clips(path) if c.frames <= 3000]
            stream = batches(every, rng, clock)
        some, most = next(stream)
        if rng.random() < 0.3 and most < 3000:
            some = [*some[1:], noise(rng)] if some[0].frames >= 500 else some
        texts = [target(c, tokenizer, rng.choice(sentences), rng) for c in some]
        longest = max(len(text.ids) for text in texts)
        ids = torch.tensor([t.ids + [EOT] * (longest - len(t.ids)) for t in texts])
        wanted = torch.tensor([[-100] * t.skip + t.ids[t.skip + 1 :] + [-100] * (longest - len(t.ids)) for t in texts])
        places = torch.tensor([t.places[:-1] + [-1.0] * (longest - len(t.ids)) for t in texts])
        positions = torch.arange(longest - 1).expand(len(some), -1)
        with torch.autocast("cpu", torch.bfloat16):
            # a whole window's silence costs the encoder most of the time, and teaches the decoder where to stop
            with torch.set_grad_enabled(most < 3000 or len(some) == FEW):
                heard = network.encode(together(some, most, rng))
            hidden, seen = network.align(ids[:, :-1], positions, Causal(shape), network.cross(heard), GUIDED)
            written = network.logits(hidden)
            spelled = speller(heard)
        loss = F.cross_entropy(written.flatten(0, 1).float(), wanted.flatten())
        letters = [spelling(c) for c in some]
        ctc = F.ctc_loss(
            spelled.float().log_softmax(-1).transpose(0, 1),
            torch.tensor([i for row in letters for i in row]),
            torch.tensor([most // 2] * len(some)),
            torch.tensor([len(row) for row in letters]),
            zero_infinity=True,
        )
        lost = torch.stack([astray(seen[:, i], places) for i in range(len(GUIDED))]).mean()
        clock.step(loss + 0.5 * ctc + 0.3 * lost)
        right = (written.argmax(-1) == wanted)[(wanted >= 0) & (wanted < N_WORDS)].float().mean()
        means += max(0.03, 1 / clock.steps) * (np.array([loss.item(), ctc.item(), lost.item(), right.item()]) - means)
        known += sum(c.frames for c in some)
        if clock.steps % 20 == 0:
            words = "loss {:.3f} letters {:.3f} astray {:.3f} right {:.3f}".format(*means)
            print(f"step {clock.steps} {clock.spent / 60:.1f} min {known / 360_000:.1f} h {words}", flush=True)
        if clock.steps % 100 == 0:
            export(network, tokenizer, out)
            torch.save(speller.state_dict(), out.with_suffix(".speller"))
    export(network, tokenizer, out)


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def mistakes(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words to replace, add or leave out."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said):
        last, row[0] = row[0], i + 1
        for j, b in enumerate(heard):
            last, row[j + 1] = row[j + 1], min(row[j] + 1, row[j + 1] + 1, last + (a != b))
    return row[-1]


def nearest(folder: Path, sounds: Sequence[np.ndarray]) -> list[str]:
    """The baseline: the text of the training clip that sounds most alike, each squeezed to 32 moments."""

    def squeezed(mel: Tensor) -> Tensor:
        return F.normalize(F.adaptive_avg_pool1d(mel[None] - mel.mean(), 32).flatten(), dim=0)

    known = [c for path in sorted(folder.glob("[0-9]*[0-9].npy")) for c in clips(path) if len(c.segments) == 1]
    table = torch.stack([squeezed(c.mel()) for c in known])
    best = (torch.stack([squeezed(torch.from_numpy(log_mel(s))) for s in sounds]) @ table.t()).argmax(1)
    return [known[int(i)].segments[0][2] for i in best]


def pocketsphinx(sounds: Sequence[np.ndarray]) -> list[str]:
    """Another baseline, where it is installed: CMU's recogniser with its own model of American English."""
    from pocketsphinx import Decoder

    decoder, found = Decoder(samprate=16_000, loglevel="FATAL"), []
    for sound in sounds:
        decoder.start_utt()
        decoder.process_raw((sound * 32_000).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        found.append(best.hypstr if best else "")
    return found


def evaluate(folder: Path, model: str, *recordings: str) -> None:
    """Words wrong of a hundred, of held-out sentences by known and by unknown voices, and of recordings."""
    import soundfile

    ours = brolly.load(model)
    for name in ("seen-voices", "unseen-voices"):
        rows = [json.loads(line) for line in (folder / name / "texts.jsonl").read_text().splitlines()]
        paths = [folder / name / f"{i:03}.flac" for i in range(len(rows))]
        sounds = [soundfile.read(path, dtype="float32")[0] for path in paths]
        answers = {
            "mini-whisper": [ours.transcribe(path, language="en", temperature=0.0).text for path in paths],
            "nearest clip": nearest(folder, sounds),
        }
        try:
            answers["pocketsphinx"] = pocketsphinx(sounds)
        except ImportError:
            print("pocketsphinx is not installed: pip install pocketsphinx")
        for system, texts in answers.items():
            for clear in (True, False):
                some = [(words(r["text"]), words(t)) for r, t in zip(rows, texts, strict=True) if r["clear"] == clear]
                wrong = sum(mistakes(a, b) for a, b in some) / sum(len(a) for a, _ in some)
                whole = np.mean([a == b for a, b in some])
                kind = "clear" if clear else "spoiled"
                print(
                    f"{name}, {kind}: {system} {100 * wrong:.1f} % of words wrong, {100 * whole:.0f} % of sentences right"
                )
        for i in range(0, 40, 5):
            print(f"    {rows[i]['text']} | {answers['mini-whisper'][i]}")
    for path in recordings:
        print(f"{path}: {ours.transcribe(path, language='en', temperature=0.0).text}")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        times = [float(word) for word in sys.argv[4:]]
        train(Path(sys.argv[2]), Path(sys.argv[3]), *(times + [60.0, 0.0][len(times) :]))
    else:
        evaluate(Path(sys.argv[2]), *sys.argv[3:])
