"""Tuning: it finds what a known model answers by, keeps to its budget, and claims nothing that the rows do not show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from brolly import Prompt
from brolly.adapt.prompt.report import markdown, picture
from brolly.adapt.prompt.score import cases_of
from brolly.adapt.prompt.search import parted
from brolly.errors import OptionError
from tests.adapt.prompt.models import Told

WORDS = ["apple", "stone", "river", "cloud", "horse", "table", "light", "bread", "glass", "paper"]
ROWS = [{"text": f"{word} {n}", "answer": "odd" if n % 2 else "even"} for word in WORDS for n in range(6)]
PROMPT = Prompt("Guess.", ["odd", "even"])


def right(text: str) -> str:
    return "odd" if int(re.findall(r"(\d+)</text>", text)[-1]) % 2 else "even"


def told_plainly(text: str) -> str:
    """Right where the instructions say how."""
    return right(text) if "last digit" in text else "odd"


def shown_both(text: str) -> str:
    """Right where an example of each answer is shown."""
    shown = set(re.findall(r"<\|assistant\|>\n(odd|even)", text))
    return right(text) if shown == {"odd", "even"} else "odd"


def test_the_better_instructions_are_found() -> None:
    model = Told(told_plainly)
    prompt = PROMPT.changed(tries={"instructions": ["Look at the last digit.", "Think.", "Guess again."]})
    found = prompt.tune(model, ROWS, budget=150, examples=0)
    assert found.prompt.instructions == "Look at the last digit." and found.verdict == "better"
    assert found.after.value == 1 and 0.3 < found.before.value < 0.7 and found.difference.low > 0
    assert found.calls <= 150 and len(model.prompts) == found.calls
    assert found.prompt.version == 2 and found.prompt.history[0]["verdict"] == "better"
    assert found.prompt.history[0]["hash"] == PROMPT.changed(tries=prompt.tries).hash[:12]


def test_examples_are_found_by_search() -> None:
    found = PROMPT.tune(Told(shown_both), ROWS, budget=200, examples=3)
    assert found.verdict == "better" and {e.answer for e in found.prompt.examples} == {"odd", "even"}
    assert len(found.prompt.examples) <= 3


def test_single_exchanges_find_what_sets_by_chance_did_not() -> None:
    """Only one of the rows helps, so that a set of one that holds it is rare."""

    def by_one(text: str) -> str:
        return right(text) if "<text>glass" in text.rsplit("<|user|>", 1)[0] else "odd"

    found = PROMPT.tune(Told(by_one), ROWS, budget=400, examples=1, share=0.3)
    assert found.verdict == "better" and found.prompt.examples[0].values["text"].startswith("glass")


def test_the_search_never_sees_what_it_is_compared_on() -> None:
    model = Told(shown_both)
    found = PROMPT.tune(model, ROWS, budget=200, examples=3)
    search, held = parted(PROMPT, cases_of(PROMPT, ROWS), 0.5)
    held_texts = {ROWS[i]["text"] for i in held}
    assert not {e.values["text"] for e in found.prompt.examples} & held_texts
    asked = [re.findall(r"<text>(.*?)</text>", text)[-1] for text in model.prompts]
    first = next(i for i, text in enumerate(asked) if text in held_texts)
    assert set(asked[:first]).isdisjoint(held_texts) and set(asked[first:]) <= held_texts


def test_equal_inputs_stand_on_one_side() -> None:
    rows = [{"text": word, "answer": answer} for word in WORDS for answer in ("odd", "even")]
    search, held = parted(PROMPT, cases_of(PROMPT, rows), 0.5)
    assert sorted(search + held) == list(range(20))
    assert {rows[i]["text"] for i in search}.isdisjoint(rows[i]["text"] for i in held)


@pytest.mark.parametrize("budget", [24, 200])
@pytest.mark.parametrize("says", [told_plainly, shown_both])
def test_a_budget_is_kept_and_hardly_anything_is_asked_twice(budget: int, says: Any) -> None:
    model = Told(says)
    prompt = PROMPT.changed(tries={"instructions": [f"Way {i}." for i in range(9)]})
    found = prompt.tune(model, ROWS, budget=budget)
    assert found.calls == len(model.prompts) <= budget
    assert len(set(model.prompts)) > 0.9 * len(model.prompts)  # a set without the row itself may be another set


def test_no_gain_is_not_called_one() -> None:
    """A model that answers by chance: whatever the search prefers is no better on new rows."""
    import zlib

    claims = []
    for seed in range(6):
        model = Told(lambda text, seed=seed: ("odd", "even")[zlib.crc32(f"{seed}{text}".encode()) & 1])
        found = PROMPT.changed(tries={"instructions": ["One.", "Two."]}).tune(model, ROWS, budget=160, seed=seed)
        claims.append(found.verdict)
        if found.verdict == "better":
            assert found.difference.low > 0
        else:
            assert "**better" not in markdown(found)
    assert claims.count("better") <= 2


def test_where_nothing_is_better_the_prompt_stays() -> None:
    found = PROMPT.changed(tries={"instructions": ["Worse."]}).tune(Told(right), ROWS, budget=100)
    assert found.verdict == "nothing better found" and found.prompt.version == 1 and not found.prompt.history
    assert found.prompt.instructions == "Guess."


def test_the_model_proposes_instructions() -> None:
    def says(text: str) -> str:
        return "Look at the\nlast digit." if "better instruction" in text else told_plainly(text)

    found = PROMPT.tune(Told(says), ROWS, budget=120, propose=2, examples=0)
    assert found.prompt.instructions == "Look at the last digit." and found.verdict == "better"
    assert [one.what for one in found.tried if "last digit" in one.prompt.instructions] == ["instructions by the model"]


def test_a_measure_of_ones_own_decides() -> None:
    prompt = PROMPT.changed(tries={"instructions": ["Say it with the last digit."]})
    found = prompt.tune(Told(told_plainly), ROWS, budget=120, examples=0, measure=lambda expected, got: got != expected)
    assert found.verdict == "nothing better found" and found.measure == "<lambda>"


def test_nearest_examples_are_tuned_by_what_there_is_to_choose_from() -> None:
    from tests.adapt.prompt.test_many import Counts

    prompt = PROMPT.changed(select={"most": 4, "by": "nearest"})
    found = prompt.tune(Told(shown_both), ROWS, budget=150, embedder=Counts())
    assert len(found.prompt.examples) == len(ROWS) // 2 and found.verdict == "better"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"budget": 10}, "leaves"), ({"rows": ROWS[:5]}, "8 at least"), ({"examples": 0}, "nothing to try"),
        ({"propose": 60}, "0 to 35"), ({"share": 0.95}, "between 0.1 and 0.9"), ({"rows": [ROWS[0]] * 20}, "all alike"),
    ],
)  # fmt: skip
def test_what_cannot_be_tuned_is_told(change: dict[str, Any], says: str) -> None:
    how = {"budget": 200, **change}
    with pytest.raises(OptionError, match=says):
        PROMPT.tune(Told(right), how.pop("rows", ROWS), **how)


def test_templates_of_pictures_are_tuned() -> None:
    from brolly.loader import load

    root = Path(__file__).resolve().parents[3] / "examples" / "prompts"
    prompt = Prompt.load(root / "pictures.toml")
    rows = [{"image": str(root.parent / "pictures" / f"{label.replace(' ', '-')}.png"), "label": label} for label in prompt.answer.choice]  # fmt: skip # noqa: E501
    found = prompt.changed(templates=("I hate {}",)).tune(load("mini-clip", device="cpu"), rows, budget=90)
    assert found.calls <= 90 and len(found.tried) == 4
    assert found.after.value >= found.before.value - 0.2 and found.prompt.kind == "classify"


def test_the_report_says_what_was_found_and_its_picture_is_svg() -> None:
    prompt = PROMPT.changed(tries={"instructions": ["Look at the last digit | of it.", "Think."]}, name="a<b>&\x07c")
    found = prompt.tune(Told(told_plainly), ROWS, budget=150)
    text = markdown(found, "p.svg")
    assert "**better: the interval of the difference lies above 0.**" in text and "![" in text
    assert (
        f"{found.difference.low:+.3f} to {found.difference.high:+.3f}" in text
        and f"{found.calls} times, of 150" in text
    )
    root = ElementTree.fromstring(picture(found))
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 2 + len([t for t in found.tried if t.score.n])
