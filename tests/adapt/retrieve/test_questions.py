"""141 questions about 64 papers that no model has seen, and 45 that they do not answer: what must hold, and what does.

Nothing was chosen by these questions: weights and thresholds are from `rehearsal`. Every fourth is asked in full here; all of
them with intervals by `python -m tests.adapt.retrieve.test_questions`, whose figures stand in docs/retrieve.md.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from math import sqrt
from pathlib import Path

import pytest

from brolly.adapt.retrieve import Index, ask
from tests.adapt.retrieve.corpus import DEV, TEST, Question, write


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory):
    pytest.importorskip("pypdfium2", reason="the extra 'retrieve' is not installed")
    folder = tmp_path_factory.mktemp("world")
    questions = write(folder, TEST)
    with Index.build(folder) as index:
        assert not index.faults() and len(index.documents()) == 64
        yield index, questions


def found(index: Index, question: Question, top: int = 5) -> bool:
    """Whether a chunk of the right paper, with the words that answer, is among the first."""
    hits = index.search(question.text, top=top)
    return any(hit.name == question.name and question.answer in " ".join(hit.text.split()) for hit in hits)


def test_the_set_is_what_it_says(asked) -> None:
    _, questions = asked
    known = [q for q in questions if q.name]
    assert len(known) >= 100 and len(questions) - len(known) >= 40
    assert {Path(q.name).suffix for q in known} == {".md", ".txt", ".html", ".pdf", ".docx", ".py"}
    rehearsed = {q.text for q in write(Path(tempfile.mkdtemp()), DEV)}
    assert not rehearsed & {q.text for q in questions}


def test_nine_of_ten_answers_are_among_the_first_five(asked) -> None:
    index, questions = asked
    known = [q for q in questions if q.name]
    assert sum(found(index, q) for q in known) / len(known) >= 0.9


def test_citations_are_right_and_questions_from_elsewhere_get_no_answer(asked) -> None:
    index, questions = asked
    right, none, wrong = [], [], []
    for question in questions[::4]:
        answer = ask(None, index, question.text)
        if question.name and answer.answered:
            right.append(answer.citations[0].name == question.name)
        elif question.kind in ("elsewhere", "nowhere"):
            none.append(not answer.answered)
        elif question.name:
            wrong.append(question)
    assert len(right) > 25 and sum(right) / len(right) >= 0.95
    assert len(none) > 5 and sum(none) / len(none) >= 0.85


def interval(good: list[bool]) -> str:
    """A share with its 95 % interval (Wilson 1927)."""
    n, p, z = len(good), sum(good) / max(len(good), 1), 1.96
    middle, half = (
        (p + z * z / (2 * n)) / (1 + z * z / n),
        z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n)),
    )
    return f"{p:.3f} ({middle - half:.3f} to {middle + half:.3f}) of {n}"


if __name__ == "__main__":
    world = DEV if "dev" in sys.argv else TEST
    with tempfile.TemporaryDirectory() as place:
        questions = write(Path(place), world)
        told: dict[str, list[bool]] = defaultdict(list)
        with Index.build(place, embed=next((word for word in sys.argv[1:] if word != "dev"), None)) as index:
            for question in questions:
                answer = ask(None, index, question.text)
                told[f"{question.kind}: answered"].append(answer.answered)
                if question.name:
                    for top in (1, 5):
                        told[f"recall@{top}"].append(found(index, question, top))
                    if answer.answered:
                        told["the citation is right"].append(answer.citations[0].name == question.name)
                        told["the quotation holds the answer"].append(question.answer.lower() in answer.text.lower())
        for what, good in told.items():
            print(f"{what:32} {interval(good)}")
