"""Ask the conformance suite of every model and way that can be had here, and write its part of docs/compatibility.md.

    .venv/bin/python scripts/conformance.py

mini-llm in Python and through `brolly serve` in three wire formats; the fakes of OpenAI, Anthropic and Gemini that the
tests keep, directly and through `brolly serve` in the same formats. `make test-live` asks the same of real vendors.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from brolly.conformance import WAYS, examine, markdown, ways_of  # noqa: E402
from brolly.conformance.report import SIGNS, summary  # noqa: E402
from brolly.conformance.suite import FAILED, SKIPPED, Outcome  # noqa: E402
from tests.remote.fakes import KEY  # noqa: E402
from tests.remote.fakes.anthropic import FakeAnthropic  # noqa: E402
from tests.remote.fakes.gemini import FakeGemini  # noqa: E402
from tests.remote.fakes.openai import FakeOpenAI  # noqa: E402

PAGE = ROOT / "docs/compatibility.md"
MARK = "## One suite for every model and every way to it\n"
MODELS: list[tuple[str, str, Any]] = [
    ("mini-llm", "mini-llm", None),
    ("OpenAI, chat", "openai:gpt-4.1", FakeOpenAI),
    ("OpenAI, responses", "openai-responses:gpt-5", FakeOpenAI),
    ("Anthropic", "anthropic:claude-sonnet-4-5", FakeAnthropic),
    ("Gemini", "gemini:gemini-2.5-flash", FakeGemini),
]
TOP = """
Written by `python scripts/conformance.py` ({when}), never by hand. `brolly doctor --conformance MODEL` asks
the same of any model. A column is a way: **python** in one's own process, the others through `brolly serve` in that
wire format. The vendors are the tests' fakes, which hold every request to the types of the vendor's own package;
`make test-live` asks the real ones, with your keys. {signs}
"""


def main() -> int:
    git = subprocess.run(["git", "describe", "--always"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    when = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d} at {git}"
    signs = "✓ passed, ✗ failed, – skipped, as the model or the way has no such thing."
    text, failed = MARK + TOP.format(when=when, signs=signs), 0
    for title, reference, fake in MODELS:
        found: dict[str, list[Outcome]] = {}
        with ExitStack() as stack:
            if fake is not None:
                there, name = stack.enter_context(fake()), fake.__name__.removeprefix("Fake").upper()
                os.environ[f"{name}_API_KEY"] = getattr(there, "key", KEY)
                os.environ[f"{name}_BASE_URL"] = getattr(there, "base", there.url)
            for way in ways_of(reference, WAYS):
                with way.open() as subject:
                    found[way.name] = list(examine(subject))
                print(f"{title}, {way.name}: {summary(found[way.name])}", flush=True)
        text += f"\n### {title}\n\n{markdown(found)}\n\n"
        for way_name, outcomes in found.items():
            for one in outcomes:
                failed += one.state == FAILED
                if one.state == FAILED or (one.state == SKIPPED and way_name == "python"):
                    text += f"- {SIGNS[one.state]} {way_name}, {one.check}: {one.why}\n"
                if one.state == FAILED:
                    print(f"    {way_name}, {one.check}: {one.why}", flush=True)
    page = PAGE.read_text()
    PAGE.write_text(page.partition(MARK)[0].rstrip() + "\n\n" + text)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
