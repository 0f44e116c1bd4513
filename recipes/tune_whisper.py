"""A voice that mini-whisper was never taught: espeak-ng's whisperer, who has no pitch: `python recipes/tune_whisper.py SPEECH`.

Has sentences said: SPEECH/train.csv and SPEECH/test.csv by the whisperer, SPEECH/known.csv by a voice that mini-whisper was
taught by, and SPEECH/tales.csv by that voice from tales, which are none of what is learnt. Needs espeak-ng; docs/tune-kinds.md tells the rest.
"""

from __future__ import annotations

import csv
import random
import re
import subprocess
import sys
from pathlib import Path

from small_stories import stories

VOICE, KNOWN = "en-us+whisper", "en-us+m3"
TRAIN, TEST = 300, 60
FRAMES = (
    "Turn {on|off} the $thing in the $place.", "Please {open|close} the $thing.", "What time is it?",
    "We will meet on $day at $number.", "I have $number $colour {books|boxes|cups|hats}.", "Where is the $place?",
    "The $colour $thing is in the $place.", "Call me on $day morning.", "$number and $number make $number.",
    "Can you {play|stop} the music in the $place?", "Good {morning|evening|night}.", "I will come back on $day.",
    "Go to the $place and turn {left|right}.", "Put the $colour $thing on the table.", "My $thing is $colour.",
    "There are $number {people|children|dogs|cats} in the $place.", "Is the $place {open|closed} on $day?",
)  # fmt: skip
SLOTS = {
    "thing": "lights door window radio car phone lamp clock table chair book cup ball box hat coat",
    "place": "kitchen garden house bedroom school shop park city street station hall room",
    "number": "one two three four five six seven eight nine ten twelve twenty thirty forty",
    "day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "colour": "red blue green yellow black white brown",
}


def sentence(rng: random.Random) -> str:
    text = re.sub(r"\{([^}]*)\}", lambda m: rng.choice(m[1].split("|")), rng.choice(FRAMES))
    text = re.sub(r"\$(\w+)", lambda m: rng.choice(SLOTS[m[1]].split()), text)
    return text[0].upper() + text[1:]


def tales(n: int) -> list[str]:
    """Short sentences of made-up stories."""
    found = dict.fromkeys(s for _, _, text in stories(200, seed=11) for s in re.split(r"(?<=[.!?])\s+", text))
    return [s for s in found if re.fullmatch(r"[A-Z][A-Za-z' ,]*[.!?]", s) and 3 <= len(s.split()) <= 10][:n]


def say(out: Path) -> None:
    """Sound files and their manifests; no sentence is both learnt and tested."""
    rng = random.Random(5)
    texts = list(dict.fromkeys(sentence(rng) for _ in range(3 * (TRAIN + TEST))))[: TRAIN + TEST]
    rng.shuffle(texts)
    parts = (
        ("train", VOICE, texts[TEST:]), ("test", VOICE, texts[:TEST]), ("known", KNOWN, texts[:TEST]),
        ("tales", KNOWN, tales(TEST)),
    )  # fmt: skip
    for part, voice, some in parts:
        (out / part).mkdir(parents=True, exist_ok=True)
        with (out / f"{part}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["audio", "text"])
            for i, text in enumerate(some):
                path = out / part / f"{i:03}.wav"
                speed, pitch = rng.randint(140, 175), rng.randint(35, 65)
                command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(path), text]
                subprocess.run(command, check=True)
                rows.writerow([f"{part}/{path.name}", text])


if __name__ == "__main__":
    say(Path(sys.argv[1]))
