"""Makes mini-whisper's speech: `python recipes/mini_whisper_speech.py CORPUS OUT [CLIPS]`, by espeak-ng and flite.

Sentences are from public-domain books and from two grammars; no text that asks for attribution is read. A clip is
one sentence or several with pauses, read by one voice, with noise, echo and filters. Written are shards of 500 clips,
mel frames of all (N, 80) as float16 and beside them each clip's segments as (start, end, text) in seconds; and 200 clips
of held-out sentences by known and 200 by unknown voices as sound, every second one without noise. Needs soundfile.
"""

from __future__ import annotations

import io
import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from mini_llm_corpus import clean, documents
from scipy.signal import butter, fftconvolve, lfilter, resample_poly
from small_stories import stories

from brolly.media.audio.mel import log_mel

Segment = tuple[float, float, str]
RATE = 16_000
SHARD = 500
N_WORDS = 700  # a sentence of a book uses only the commonest words
ACCENTS = ("en-us", "en-us", "en-us", "en-gb", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029")
VARIANTS = (
    "", "", "f1", "f2", "f4", "f5", "m1", "m2", "m3", "m4", "m6", "m7", "m8", "klatt", "klatt2", "klatt3", "Alex", "Alicia",
    "Andrea", "Andy", "Gene", "Gene2", "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "antonio", "aunty", "belinda",
    "benjamin", "caleb", "david", "ed", "edward", "grandma", "iven", "iven2", "john", "kaukovalta", "marcelo", "max",
    "michel", "miguel", "norbert", "paul", "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "travis",
    "victor", "zac",
)  # fmt: skip
FLITE = ("awb", "rms", "slt")
UNSEEN_VARIANTS = ("f3", "m5", "Annie", "adam", "linda", "grandpa", "boris", "pablo", "klatt4", "steph3")
UNSEEN_FLITE = ("kal16",)


class Voice(NamedTuple):
    """Who reads: a synthesizer's voice, its words a minute and pitch (espeak-ng), and how much faster it is played."""

    name: str
    speed: int
    pitch: int
    faster: float


def voice(rng: random.Random, unseen: bool = False) -> Voice:
    """Of every ten, six are espeak-ng's formants and four are flite's, which were made of people's recordings."""
    if rng.random() < (0.75 if unseen else 0.6):
        name = f"{rng.choice(ACCENTS)}+{rng.choice(UNSEEN_VARIANTS if unseen else VARIANTS)}".rstrip("+")
        return Voice(name, rng.randint(135, 190), rng.randint(30, 70), 1.0)
    name = rng.choice(UNSEEN_FLITE if unseen else FLITE)
    return Voice(f"flite-{name}", 0, 0, 1.0 if unseen else rng.uniform(0.85, 1.18))


def say(text: str, who: Voice) -> np.ndarray:
    """Samples at 16 kHz, without the silence around them."""
    if who.name.startswith("flite-"):
        path = "/dev/stdout"
        command = ["flite", "-voice", who.name.removeprefix("flite-"), "-t", text, "-o", path]
    else:
        command = ["espeak-ng", "-v", who.name, "-s", str(who.speed), "-p", str(who.pitch), "--stdout", text]
    data = bytearray(subprocess.run(command, capture_output=True, check=True).stdout)
    data[4:8] = (len(data) - 8).to_bytes(4, "little")  # a stream's header does not know its length
    data[40:44] = (len(data) - 44).to_bytes(4, "little")
    sound, rate = soundfile.read(io.BytesIO(bytes(data)), dtype="float32")
    step = round(rate * who.faster / 100)
    sound = resample_poly(sound, RATE // 100, step)
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max(initial=1e-9))
    sound = sound[loud[0] : loud[-1] + 1] if len(loud) else sound
    return (sound / max(np.abs(sound).max(initial=0), 1e-9)).astype(np.float32)


def spoil(sound: np.ndarray, rng: random.Random) -> np.ndarray:
    """Rooms, telephones, noise and clipping, or none of them."""
    noise = np.random.default_rng(rng.getrandbits(32))
    if rng.random() < 0.25:
        length = int(RATE * rng.uniform(0.08, 0.4))
        echo = noise.standard_normal(length) * np.exp(-np.arange(length) / (length / 6.0)) * rng.uniform(0.05, 0.3)
        echo[0] = 1
        sound = fftconvolve(sound, echo)[: len(sound)]
    if rng.random() < 0.2:
        b, a = butter(1, [rng.uniform(50, 300), rng.uniform(3000, 7500)], "bandpass", fs=RATE)
        sound = lfilter(b, a, sound)
    if rng.random() < 0.6:
        hiss = noise.standard_normal(len(sound))
        if rng.random() < 0.6:
            hiss = lfilter([1], [1, -rng.uniform(0.5, 0.98)], hiss)
        power = np.mean(sound**2) / max(np.mean(hiss**2), 1e-12)
        sound = sound + hiss * np.sqrt(power * 10 ** (-rng.uniform(8, 45) / 10))
    if rng.random() < 0.05:
        sound = np.clip(sound, -0.4, 0.4)
    return (sound / max(np.abs(sound).max(), 1e-9) * rng.uniform(0.1, 0.99)).astype(np.float32)


def clip(texts: list[str], who: Voice, rng: random.Random, clear: bool = False) -> tuple[np.ndarray, list[Segment]]:
    """The texts one after the other, with pauses between, and when each is said; at most 30 seconds."""
    parts, segments, at = [], [], 0
    for text in texts:
        sound = say(text, who)
        pause = int(RATE * (rng.uniform(0, 0.4) if not parts else rng.uniform(0.3, 0.9)))
        if at + pause + len(sound) > RATE * 29.5:
            break
        start = at + pause
        at = start + len(sound)
        parts += [np.zeros(pause, np.float32), sound * rng.uniform(0.7, 1)]
        segments.append((round(start / RATE, 2), round(at / RATE, 2), text))
    parts.append(np.zeros(int(RATE * rng.uniform(0.1, 0.5)), np.float32))
    sound = np.concatenate(parts)
    return (sound if clear else spoil(sound, rng)), segments


WORD = re.compile(r"[a-z']+")
SPLIT = re.compile(r"(?<=[.!?])\s+")
PLAIN = re.compile(r"[A-Z][A-Za-z' ,]*[A-Za-z][.!?]")
NUMBERS = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "fifteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "hundred",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown"]
THINGS = [
    "lights",
    "door",
    "window",
    "radio",
    "music",
    "car",
    "phone",
    "lamp",
    "clock",
    "table",
    "chair",
    "book",
    "cup",
    "ball",
    "box",
    "hat",
    "coat",
]
PLACES = [
    "kitchen",
    "garden",
    "house",
    "bedroom",
    "school",
    "shop",
    "park",
    "city",
    "street",
    "station",
    "hall",
    "room",
]
FRAMES = (
    "Turn {on|off} the $thing in the $place.", "Please {open|close} the $thing.", "What time is it?", "How are you today?",
    "It is $number o'clock.", "We will meet on $day at $number.", "I have $number $colour {books|boxes|cups|balls|hats}.",
    "The $colour $thing is in the $place.", "Where is the $place?", "Call me on $day morning.", "Thank you very much.",
    "$number and $number make $number.", "Can you {play|stop} the music in the $place?", "Good {morning|evening|night}.",
    "The $thing is on the {left|right}.", "Go to the $place and turn {left|right}.", "I will come back on $day.",
    "Put the $colour $thing on the table.", "There are $number {people|children|dogs|cats|horses} in the $place.",
    "Set the clock to $number thirty.", "My $thing is $colour.", "Is the $place {open|closed} on $day?",
)  # fmt: skip
SLOTS = {"thing": THINGS, "place": PLACES, "number": NUMBERS, "day": DAYS, "colour": COLOURS}


def everyday(rng: random.Random) -> str:
    """A sentence as one says it to a machine or in a street."""
    text = re.sub(r"\{([^}]*)\}", lambda m: rng.choice(m[1].split("|")), rng.choice(FRAMES))
    text = re.sub(r"\$(\w+)", lambda m: rng.choice(SLOTS[m[1]]), text)
    return text[0].upper() + text[1:]


def sentences(corpus: Path) -> tuple[list[str], list[str]]:
    """Plain sentences of 3 to 10 words, each once: from books, of common words, from stories and from the street."""

    def plain(texts: Iterable[str]) -> list[str]:
        found = dict.fromkeys(s for text in texts for s in SPLIT.split(text) if len(s) < 60 and PLAIN.fullmatch(s))
        return [s for s in found if 3 <= len(s.split()) <= 10]

    rng = random.Random(1)
    books = plain(p for book in documents(corpus / "books.txt.xz") for p in clean(book).split("\n\n"))
    counts = Counter(word for s in books for word in WORD.findall(s.lower()))
    common = {word for word, _ in counts.most_common(N_WORDS)}
    books = [s for s in books if common.issuperset(WORD.findall(s.lower()))]
    small = plain(text for _, _, text in stories(5000, seed=7))
    talk = list(dict.fromkeys(everyday(rng) for _ in range(5000)))
    seen, unseen = [], []
    for some in (books, small, talk):
        rng.shuffle(some)
        unseen += some[:200]
        seen += some[200:9000]
    rng.shuffle(seen)
    rng.shuffle(unseen)
    held = {" ".join(WORD.findall(s.lower())) for s in unseen}
    return [s for s in seen if " ".join(WORD.findall(s.lower())) not in held], unseen


class Shard:
    """Clips gathered and written together."""

    def __init__(self) -> None:
        self.mels: list[np.ndarray] = []
        self.rows: list[dict] = []

    def add(self, sound: np.ndarray, segments: list[Segment], who: Voice) -> None:
        mel = log_mel(sound).T.astype(np.float16)
        self.rows.append({"frames": len(mel), "voice": who.name, "segments": segments})
        self.mels.append(mel)

    def write(self, path: Path) -> None:
        np.save(path.with_suffix(".part.npy"), np.concatenate(self.mels))
        path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        path.with_suffix(".part.npy").rename(path.with_suffix(".npy"))


def main(corpus: Path, out: Path, n_clips: int) -> None:
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    seen, unseen = sentences(corpus)
    (out / "sentences.txt").write_text("\n".join(seen))
    print(len(seen), "sentences", flush=True)
    for name, others in (("seen-voices", False), ("unseen-voices", True)):
        rng = random.Random(2)
        (out / name).mkdir(exist_ok=True)
        with open(out / name / "texts.jsonl", "w") as file:
            for i in range(200):
                who, text = voice(rng, others), unseen[i * 3]
                sound, segments = clip([text], who, rng, clear=i % 2 == 0)
                soundfile.write(out / name / f"{i:03}.flac", sound, RATE)
                file.write(json.dumps({"text": text, "voice": who.name, "clear": i % 2 == 0}) + "\n")
    rng = random.Random(3)
    queue: list[str] = []
    for number in range(n_clips // SHARD):
        shard = Shard()
        for _ in range(SHARD):
            length = rng.choices((1, rng.randint(2, 3), rng.randint(4, 9)), (0.82, 0.12, 0.06))[0]
            if len(queue) < length:
                queue += rng.sample(seen, len(seen))
            texts, queue = queue[:length], queue[length:]
            who = voice(rng)
            sound, segments = clip(texts, who, rng)
            if segments:
                shard.add(sound, segments, who)
        shard.write(out / f"{number:03}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 8000)
