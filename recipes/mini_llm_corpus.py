"""Makes mini-llm's training text: `python recipes/mini_llm_corpus.py CORPUS OUT`. Knows no tokens.

Only parts under CC-BY, Apache-2.0, MIT or in the public domain are read, and a grammar of stories of our own; CC-BY-SA,
CDLA and unclear ones stay out. One JSON object a line: {"text": ...} or {"messages": [...]}.
"""

from __future__ import annotations

import json
import lzma
import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from small_stories import stories

SEPARATOR = "<|endoftext|>\n"
TALES_BEGIN = 914  # stories.txt: TinyStories' excerpt (213, unused), then storybooks, then FairytaleQA's tales
STORYBOOKS_BEGIN = 213
_JUNK = re.compile(
    r"copyright|licen[cs]e|illustrat|isbn|pratham|storyweaver|http|www\.|gutenberg|translat|\bTM\b|transcrib|footnote"
    r"|this book|chapter [ivx\d]+\b.*\n",
    re.I,
)
_ODD = re.compile(r"[^\x20-\x7e\n]|_{2,}|\*|[<>{}|\\~^=\[\]]")


def documents(path: Path) -> list[str]:
    """The documents of one corpus file, in order."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [part.strip() for part in file.read().split(SEPARATOR)]


def clean(text: str) -> str:
    """Plain ASCII quotes and dashes, one blank line between paragraphs, no lines broken inside a paragraph."""
    text = text.replace("\u2026", "...").replace("\u2019", "'").replace("--", " - ").replace("_", "").replace("`", "'")
    paragraphs = [re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", text)]
    return "\n\n".join(p for p in paragraphs if p)


def sentence_words(text: str) -> float:
    """Words a sentence, on average."""
    return len(text.split()) / max(1, len(re.findall(r"[.!?]+[\"']?(?:\s|$)", text)))


class Seen:
    """Near-duplicates by shared eight-word shingles: the same tale is in several collections."""

    def __init__(self) -> None:
        self._shingles: set[int] = set()

    def is_new(self, text: str, share: float = 0.2) -> bool:
        words = re.findall(r"[a-z']+", text.lower())
        shingles = [zlib.crc32(" ".join(words[i : i + 8]).encode()) for i in range(max(1, len(words) - 7))]
        old = sum(s in self._shingles for s in shingles)
        if old > share * len(shingles):
            return False
        self._shingles.update(s for s in shingles if s % 2 == 0 or len(shingles) < 50)
        return True


def storybooks(corpus: Path) -> Iterator[tuple[str, str]]:
    """(title, story) of African Storybook and StoryWeaver, whole sentences and plain English only."""
    for text in documents(corpus / "stories.txt.xz")[STORYBOOKS_BEGIN:TALES_BEGIN]:
        title, _, story = clean(text).partition("\n\n")
        if len(story) < 150 or _ODD.search(story) or sentence_words(story) > 22 or len(title) > 70:
            continue
        paragraphs = [p for p in story.split("\n\n") if not _JUNK.search(p)]
        while paragraphs and (paragraphs[-1].lower().startswith("the end") or paragraphs[-1][-1] not in ".!?\"'"):
            paragraphs.pop()
        story = "\n\n".join(paragraphs)
        if len(story) >= 150:
            yield title.strip(' ."*'), story


def tales(corpus: Path) -> Iterator[str]:
    """FairytaleQA's tales."""
    for text in documents(corpus / "stories.txt.xz")[TALES_BEGIN:]:
        text = clean(_ODD.sub("", text))
        if sentence_words(text) <= 32:
            yield text


def passages(corpus: Path, familiar: Counter[str], budget: int) -> list[str]:
    """The simplest `budget` bytes of the children's books: short sentences of words that storybooks use."""
    scored = []
    for book in documents(corpus / "books.txt.xz"):
        paragraphs = [p for p in clean(book).split("\n\n") if not _JUNK.search(p)]
        chunk: list[str] = []
        for paragraph in [*paragraphs, ""]:
            if chunk and (not paragraph or sum(map(len, chunk)) > 2500):
                text = "\n\n".join(chunk)
                words = re.findall(r"[a-z']+", text.lower())
                if len(text) > 250 and words and not _ODD.search(text):
                    strange = sum(w not in familiar for w in words) / len(words)
                    scored.append((sentence_words(text) / 20 + strange * 20, text))
                chunk = []
            if paragraph and (paragraph[-1] in ".!?\"':;," and not paragraph.isupper()):
                chunk.append(paragraph)
    scored.sort()
    chosen, size = [], 0
    for _, text in scored:
        if size > budget:
            break
        chosen.append(text)
        size += len(text)
    return chosen


ABOUT = [
    "lion",
    "elephant",
    "monkey",
    "rabbit",
    "dog",
    "cat",
    "bird",
    "cow",
    "goat",
    "hen",
    "fish",
    "frog",
    "crocodile",
    "snake",
    "fox",
    "wolf",
    "bear",
    "mouse",
    "king",
    "queen",
    "prince",
    "princess",
    "girl",
    "boy",
    "grandmother",
    "farmer",
    "fisherman",
    "tree",
    "river",
    "moon",
    "rain",
    "horse",
    "donkey",
    "tiger",
    "tortoise",
    "spider",
    "bee",
    "ant",
    "giant",
]
ASK_TITLE = (
    'Tell me a story called "{}".', 'Write a short story called "{}".', "Tell me the story of {}.",
    'Do you know the story "{}"?',
)  # fmt: skip
ASK_ABOUT = (
    "Tell me a story about {}.", "Write a short story about {}.", "I would like a story about {}.",
    "Can you tell me a story with {} in it?", "tell me a story about {}",
)  # fmt: skip
ASK_ANY = (
    "Tell me a story.",
    "Tell me a story",
    "Please tell me a story.",
    "Write a short story.",
    "Can you tell me a story?",
)
SMALL_TALK = {
    "Hi|Hi!|hi|Hello|Hello!|hello|Hey|Hello there": (
        "Hello! Would you like to hear a story?", "Hello! What would you like a story about?",
        "Hi there! I like to tell stories. Shall I tell you one?",
    ),
    "Who are you?|What are you?|who are you|Tell me about yourself.|Are you a person?|Are you a robot?": (
        "I am mini-llm, a very small language model. I like to tell stories.",
        "My name is mini-llm. I am a tiny language model that tells short stories.",
    ),
    "What is your name?|what's your name?|Do you have a name?|What are you called?": (
        "My name is mini-llm.", "I am called mini-llm, because I am a very small language model.",
    ),
    "What can you do?|Can you help me?|What do you know?|Help|help": (
        "I can tell short stories. Ask me for a story about an animal, a child or a king.",
        "I am a very small model, so I only know how to tell stories. Ask me for one!",
    ),
    "How are you?|How are you today?|how are you": (
        "I am very well, thank you! Shall I tell you a story?", "I am fine, thank you. How are you?",
    ),
    "Thank you|Thank you!|Thanks|Thanks!|That was nice.|I liked that story.|Good story!": (
        "You are welcome! Would you like another story?", "I am glad that you liked it.",
    ),
    "Bye|Goodbye|Goodbye!|Good night|See you": ("Goodbye! Come back soon for another story.", "Good night, and sleep well!"),
    "Good morning|Good evening|Good afternoon": ("Hello! It is a good day for a story. Would you like one?",),
    "Are you an LLM?|Are you a language model?|How big are you?|How many parameters do you have?": (
        "Yes, I am a language model, and a very small one. I have about five million parameters.",
    ),
    "What is the capital of France?|What is 2 + 2?|Write some Python code.|What is the weather?|Who is the president?": (
        "I do not know that. I am a very small model, and I only know how to tell stories.",
        "That is too hard for me. I am very small. But I can tell you a story!",
    ),
}  # fmt: skip


def chat(*turns: str) -> dict[str, list[dict[str, str]]]:
    """A conversation that begins with the user."""
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]}


def requests(title: str, story: str, rng: random.Random) -> Iterator[str]:
    """One or two ways to ask for this story."""
    low = f" {story.lower()}"
    found = sorted((n for n in ABOUT if low.count(f" {n}") > 2), key=lambda n: -low.count(f" {n}"))
    if found:
        noun = found[0]
        yield rng.choice(ASK_ABOUT).format("rain" if noun == "rain" else ("an " if noun[0] in "aeiou" else "a ") + noun)
    yield rng.choice(ASK_TITLE).format(title) if title and rng.random() < 0.7 else rng.choice(ASK_ANY)


def shortened(story: str, most: int = 1500) -> str:
    """Its first whole paragraphs, so that an answer fits the context."""
    kept = ""
    for paragraph in story.split("\n\n"):
        if kept and len(kept) + len(paragraph) > most:
            break
        kept += "\n\n" * bool(kept) + paragraph
    return kept


def questions(corpus: Path) -> Iterator[dict]:
    """FairytaleQA: a passage, a question, its answer."""
    with lzma.open(corpus / "instructions.jsonl.xz", "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            if row["source"] == "fairytaleqa" and len(row["prompt"]) < 1100 and not _ODD.search(row["prompt"]):
                yield chat(row["prompt"].strip(), row["response"].strip().capitalize())


def small_talk(rng: random.Random, count: int) -> Iterator[dict]:
    """Greetings and who one is; half of them go on to a story."""
    for request, _, text in stories(count, seed=99):
        said, answers = rng.choice(list(SMALL_TALK.items()))
        first = (rng.choice(said.split("|")), rng.choice(answers))
        yield chat(*first, request, text) if rng.random() < 0.4 else chat(*first)


def write(path: Path, records: Iterable[dict]) -> None:
    """One JSON object a line."""
    with open(path, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def main(corpus: Path, out: Path) -> None:
    """Write books, tales, storybooks, small, chat and questions as .jsonl."""
    out.mkdir(parents=True, exist_ok=True)
    rng, seen = random.Random(1), Seen()
    real = [(title, story) for title, story in storybooks(corpus) if seen.is_new(story)]
    fairy = [text for text in tales(corpus) if seen.is_new(text)]
    counts = Counter(w for _, s in real for w in re.findall(r"[a-z']+", s.lower()))
    counts.update(w for s in fairy for w in re.findall(r"[a-z']+", s.lower()))
    familiar = Counter({w: n for w, n in counts.items() if n >= 8})
    books = [text for text in passages(corpus, familiar, 14_000_000) if seen.is_new(text)]
    rng.shuffle(books)
    small = list(stories(24_000, seed=1))
    talk = [chat(ask, shortened(text)) for title, text in real for ask in requests(title, text, rng)]
    talk += [chat(request, text) for request, _, text in small[:9_000]] + list(small_talk(rng, 3_000))
    rng.shuffle(talk)
    write(out / "books.jsonl", ({"text": text} for text in books))
    write(out / "tales.jsonl", ({"text": text} for text in fairy))
    write(
        out / "storybooks.jsonl",
        ({"text": f"{title}\n\n{text}" if i % 3 == 0 else text} for i, (title, text) in enumerate(real)),
    )
    write(out / "small.jsonl", ({"text": text} for _, _, text in small[9_000:]))
    write(out / "chat.jsonl", talk)
    write(out / "questions.jsonl", questions(corpus))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
