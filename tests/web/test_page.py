"""The web page in a real browser, headless: what a person does with it. `make test-web` brings the browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make test-web")
pytest.importorskip("uvicorn")

from brolly.serve.app import create  # noqa: E402
from brolly.serve.settings import Settings  # noqa: E402
from tests.serve.conftest import MINIS, Running, serving  # noqa: E402

EXAMPLES = Path(__file__).parents[2] / "examples"
WAIT = 60_000  # ms: a busy machine is no error


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(create(Settings(models=MINIS, store=tmp_path_factory.mktemp("store"), port=0))) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as p:
        if system is None and not Path(p.chromium.executable_path).exists():
            pytest.skip("there is no Chromium: make test-web")
        found = p.chromium.launch(executable_path=system, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, running: Running) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    found = context.new_page()
    found.set_default_timeout(WAIT)
    wrong: list[str] = []
    outside: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    found.on("request", lambda r: None if r.url.startswith((running.url, "data:", "blob:")) else outside.append(r.url))
    found.goto(running.url)
    yield found
    context.close()
    assert not wrong, "nothing goes wrong in the page"
    assert not outside, "no request leaves the server"


def say(page: Any, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.keyboard.press("Enter")


def done(page: Any) -> None:
    page.wait_for_function("() => document.querySelector('.said') && !document.querySelector('[aria-busy]')")


def test_a_conversation_streams_and_is_kept(page: Any) -> None:
    page.locator("summary").click()
    page.get_by_label("max tokens").fill("12")
    say(page, "Tell me a story about a fox.")
    page.wait_for_selector(".turn.assistant .text >> text=/\\w+/")
    done(page)
    assert "12 tokens" in page.locator(".turn.assistant .acts").inner_text()
    page.reload()
    page.wait_for_selector(".turn.assistant")
    assert "fox" in page.locator(".turn.user").inner_text()


def test_an_answer_can_be_stopped_tried_again_and_its_question_edited(page: Any) -> None:
    page.locator("summary").click()
    page.get_by_label("temperature").fill("0")
    page.get_by_label("max tokens").fill("400")
    say(page, "Tell me a story about a dog.")
    page.wait_for_selector(".turn.assistant .text >> text=/\\w+/")
    page.keyboard.press("Escape")
    done(page)
    page.get_by_label("max tokens").fill("8")
    page.get_by_role("button", name="Try again").click()
    done(page)
    first = page.locator(".turn.assistant .text").inner_text()
    page.get_by_role("button", name="Edit").click()
    assert page.get_by_label("Message").input_value() == "Tell me a story about a dog."
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn.assistant .text >> text=/\\w+/")
    done(page)
    assert page.locator(".turn.assistant .text").inner_text() == first, "greedy: the same question, the same answer"


def test_a_models_text_is_text_and_no_html(page: Any, running: Running) -> None:
    found = page.evaluate(
        """async () => { const { markdown } = await import('/page/markdown.js');
        const box = document.createElement('div');
        box.append(...markdown('<img src=x onerror=alert(1)> **bold** `code`\\n\\n```js\\nlet a = "<b>"\\n```\\n' +
            '- [x](javascript:alert(1))\\n- [y](https://example.org)'));
        return [box.querySelectorAll('img, script').length, box.querySelector('strong').textContent,
                box.querySelector('pre code').textContent, [...box.querySelectorAll('a')].map(a => a.href)]; }"""
    )
    assert found == [0, "bold", 'let a = "<b>"', ["https://example.org/"]]


def test_every_panel_does_its_verb(page: Any) -> None:
    page.get_by_role("link", name="Write").click()
    page.get_by_label("Tokens").fill("8")
    before = page.locator("textarea").input_value()
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector("text=8 tokens")
    assert page.locator("textarea").input_value().startswith(before)
    page.get_by_role("link", name="Embed").click()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector(".heat")
    assert page.locator(".heat td").first.inner_text() == "1.00"
    page.get_by_role("link", name="Classify").click()
    page.set_input_files("input[type=file]", EXAMPLES / "pictures" / "truck.png")
    page.wait_for_selector(".bar meter")
    assert page.locator(".bar span").first.inner_text() == "truck"
    page.get_by_role("link", name="Transcribe").click()
    page.set_input_files("input[type=file]", EXAMPLES / "talk.flac")
    page.wait_for_selector("text=Save as SRT")


def test_models_are_loaded_and_unloaded(page: Any) -> None:
    page.get_by_role("link", name="Models").click()
    card = page.locator("article", has=page.get_by_role("heading", name="mini-embed"))
    card.wait_for()
    if card.get_by_role("button", name="Unload").count():
        card.get_by_role("button", name="Unload").click()
    card.get_by_role("button", name="Load", exact=True).click()
    card.get_by_role("button", name="Unload").wait_for()
    card.get_by_role("button", name="Card").click()
    page.locator("dialog pre").wait_for()
    assert "Apache-2.0" in page.locator("dialog").inner_text()
    page.get_by_role("button", name="Close").click()


def test_the_keyboard_reaches_everything(page: Any) -> None:
    page.wait_for_selector(".compose textarea")
    page.keyboard.press("Alt+7")
    page.wait_for_selector("h1 >> text=Models")
    page.keyboard.press("Alt+2")
    page.wait_for_selector("h1 >> text=Write")
    page.locator(".skip").focus()
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent || document.activeElement.localName"))
    assert {"Chat", "Models", "Key", "◐", "Go on"} <= set(reached)


def test_a_phone_shows_it_whole_in_both_themes(page: Any) -> None:
    page.set_viewport_size({"width": 375, "height": 700})
    for _ in range(2):
        page.get_by_role("button", name="Dark or light").click()
        for name in ("chat", "write", "embed", "classify", "transcribe", "rerank", "models"):
            page.evaluate(f"location.hash = '{name}'")
            page.wait_for_selector("main *")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 375, f"{name} is {wide} px wide"


def test_where_a_key_is_asked_for_the_page_asks_for_it(browser: Any, tmp_path: Path) -> None:
    settings = Settings(models=("mini-llm",), api_keys=(("secret", "admin"),), store=tmp_path, port=0)
    with serving(create(settings)) as guarded:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.goto(guarded.url)
        page.locator("dialog input").fill("secret")
        page.get_by_role("button", name="Use it").click()
        page.wait_for_function("() => document.querySelector('select option')?.value === 'mini-llm'")
        context.close()


def test_models_elsewhere(browser: Any, tmp_path: Path) -> None:
    from tests.remote.fakes import Reply
    from tests.serve.vendors import CLIENT, world_of

    models = ("openai:gpt-5", "anthropic:claude-opus-4-6")
    (pdf := tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    with world_of(models, tmp_path / "store") as world, browser.new_context() as context:
        context.add_init_script(f"localStorage.setItem('brolly.key', '{CLIENT}')")
        page = context.new_page()
        page.goto(world.running.url)
        for model in models:
            page.get_by_label("Model").select_option(model)
            page.set_input_files("form input[type=file]", [EXAMPLES / "pictures" / "truck.png", pdf])
            page.wait_for_function("() => document.querySelectorAll('.files button').length === 2")
            say(page, "What is this?")
            done(page)
            seen = "I see 1 picture and 1 file." if model == models[0] else "I see 2 pictures and 2 files."
            assert seen in page.locator(".turn.assistant .text").last.inner_text()
        world.fakes["ANTHROPIC"].faults.append(lambda request: Reply(200, {"content-type": "text/html"}, "<html>"))
        say(page, "And now?")
        page.wait_for_selector(".turn.user .fault >> text=/claude-opus-4-6: .*web page/")
        page.get_by_role("button", name="Ask again").click()
        page.wait_for_function("() => !document.querySelector('.fault') && !document.querySelector('[aria-busy]')")
        assert page.locator(".turn.assistant").count() == 3
        page.goto(f"{world.running.url}/#models")
        page.wait_for_selector("article.card >> text=/at 127.0.0.1/")
        assert page.get_by_role("button", name="Load").count() == 0
