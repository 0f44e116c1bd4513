"""Makes mini-whisper's speech: `python recipes/mini_whisper_speech.py OUT [--corpus CORPUS] [--count 24000]`.

espeak-ng and flite read sentences of our own grammar of small stories, and of the CC-BY storybooks of CORPUS, in many
voices, speeds and pitches. Some voices and all sentences of the held-out part are never trained on. Written are
OUT/{train,held_out}.npz: `sound` (int16, 16 kHz, one utterance behind the other), `ends`, `texts`, `voices`.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soxr
from mini_llm_corpus import SEPARATOR, STORYBOOKS_BEGIN, TALES_BEGIN, clean
from small_stories import stories

RATE = 16000
ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-029")
TIMBRES = (
    "m1 m2 m3 m4 m6 m8 f1 f2 f3 f4 Alex Alicia Andy Michael Mike adam anika antonio belinda benjamin boris caleb david "
    "edward john linda norbert paul pedro quincy rob robert sandro steph travis victor zac grandpa grandma"
).split()
UNHEARD = ("m5", "f5", "Annie", "steph3", "Lee")  # timbres of the held-out part
FLITE, FLITE_UNHEARD = ("kal", "awb", "slt"), ("rms",)


def sentences(corpus: Path | None, seed: int) -> list[str]:
    """Different plain sentences of three to eleven words."""
    texts = [text for _, _, text in stories(6000, seed)]
    if corpus:
        import lzma

        with lzma.open(corpus / "stories.txt.xz", "rt", encoding="utf-8") as file:
            texts += [clean(part) for part in file.read().split(SEPARATOR)[STORYBOOKS_BEGIN:TALES_BEGIN]]
    found: dict[str, None] = {}
    for text in texts:
        for sentence in re.findall(r"[A-Z][^.!?\n]*[.!?]", text):
            plain = re.sub(r"\s+", " ", sentence.replace('"', "")).strip()
            if 3 <= len(plain.split()) <= 11 and re.fullmatch(r"[A-Za-z',.!? -]+", plain):
                found[plain] = None
    return list(found)


def is_held_out(sentence: str) -> bool:
    """One sentence of thirty, by its own text: the same in every run."""
    return zlib.crc32(sentence.lower().encode()) % 30 == 0


def speak(sentence: str, unheard: bool, rng: random.Random) -> tuple[np.ndarray, str]:
    """One reading of a sentence as int16 at 16 kHz, and the voice's name."""
    if rng.random() < 0.2:
        voice = rng.choice(FLITE_UNHEARD if unheard else FLITE)
        stretch, shift = rng.uniform(0.8, 1.3), rng.uniform(0.85, 1.2)
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            words = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch:.2f}"]
            words += ["--setf", f"f0_shift={shift:.2f}", "-t", sentence, "-o", file.name]
            subprocess.run(words, check=True, capture_output=True)
            data = Path(file.name).read_bytes()
    else:
        voice = f"{rng.choice(ACCENTS)}+{rng.choice(UNHEARD if unheard else TIMBRES)}"
        words = ["espeak-ng", "--stdout", "-v", voice, "-s", str(rng.randint(120, 200)), "-p", str(rng.randint(25, 75))]
        data = subprocess.run([*words, sentence], check=True, capture_output=True).stdout
    rate = int.from_bytes(data[24:28], "little")
    sound = np.frombuffer(data[44 : len(data) - len(data) % 2], np.int16).astype(np.float32) / 32768
    sound = soxr.resample(sound, rate, RATE)
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    sound = sound[max(0, loud[0] - 800) : loud[-1] + 1600] if len(loud) else sound
    sound = sound * (0.5 / max(1e-3, float(np.abs(sound).max())))
    return (sound * 32767).astype(np.int16), voice


def make(texts: list[str], unheard: bool, out: Path, seed: int) -> None:
    jobs = [(text, unheard, random.Random(f"{seed} {i}")) for i, text in enumerate(texts)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda job: speak(*job), jobs))
    sounds, voices = zip(*made, strict=True)
    ends = np.cumsum([len(s) for s in sounds])
    np.savez(out, sound=np.concatenate(sounds), ends=ends, texts=np.array(texts), voices=np.array(voices))
    print(f"{out}: {len(texts)} utterances, {ends[-1] / RATE / 3600:.1f} hours, {len(set(voices))} voices")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--count", type=int, default=24000)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rng, found = random.Random(7), sentences(args.corpus, 7)
    train = [s for s in found if not is_held_out(s)]
    held_out = [s for s in found if is_held_out(s)]
    print(f"{len(train)} sentences to train on, {len(held_out)} held out")
    make(rng.sample(held_out, min(400, len(held_out))), True, args.out / "held_out.npz", 1)
    make([rng.choice(train) for _ in range(args.count)], False, args.out / "train.npz", 2)


if __name__ == "__main__":
    main()
