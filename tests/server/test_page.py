"""The page at /, in a browser without a screen: `make nightly`, where there is one
(pip install playwright, apt-get install chromium)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from edgellm.testing import FakeModel
from server.serving import GatedModel, serving

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
TOKEN = "a token of some length"
MARKUP = "<img src=x onerror=document.title='owned'><b>bold</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="NOT TESTED: playwright is missing")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("NOT TESTED: chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """One whose complaints fail the test."""
    page = browser.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.complaints = complaints
    yield page
    page.close()


def say(page: Any, text: str) -> None:
    page.fill("#text", text)
    page.press("#text", "Enter")


def wait_for(page: Any, text: str, at: int) -> None:
    page.wait_for_function(
        "([text, at]) => document.querySelectorAll('#messages li')[at]?.textContent === text",
        arg=[text, at],
    )


def test_a_conversation_and_the_figures(page):
    model = FakeModel(["Hello there!", MARKUP])
    with serving(model) as server:
        page.goto(server.url)
        page.wait_for_function("() => document.querySelector('#model').value === 'fake'")
        say(page, "Hi")
        wait_for(page, "Hello there!", 1)
        page.wait_for_function(
            "() => document.querySelector('#status').textContent.includes('tokens/s')"
        )
        page.wait_for_function("() => !document.querySelector('#send').disabled")
        say(page, "And <i>now</i>?")
        wait_for(page, MARKUP, 3)  # as text
        assert page.query_selector("#messages img, #messages b, #messages i") is None
        assert page.title() == "edgellm"
        page.wait_for_function(
            "() => [...document.querySelectorAll('#figures dt')].some((one) => one.textContent === "
            "'Generated tokens' && Number(one.nextElementSibling.textContent) > 0)"
        )
        assert "Hello there!" in model.calls[1].prompt  # the conversation goes on
        assert page.complaints == []
        # Nothing that was put into the page could run: its policy forbids it.
        page.evaluate("document.body.insertAdjacentHTML('beforeend', \"" + MARKUP + '")')
        page.wait_for_timeout(200)
        assert page.title() == "edgellm"


def test_a_reply_can_be_stopped(page):
    model = GatedModel("a long reply that nobody waits for")
    with serving(model) as server:
        page.goto(server.url)
        page.wait_for_function("() => document.querySelector('#model').value === 'fake'")
        say(page, "Hi")
        model.gate.release(6)
        wait_for(page, "a long", 1)
        page.click("#stop")
        page.wait_for_function("() => !document.querySelector('#send').disabled")
        assert server.ask("GET", "/health")[0] == 200
        page.click("#clear")
        assert page.query_selector("#messages li") is None


def test_a_token_is_asked_for(page):
    with serving(FakeModel("Hello!"), token=TOKEN) as server:
        page.goto(server.url)
        page.wait_for_function(
            "() => document.querySelector('#status').textContent.includes('token')"
        )
        page.fill("#token", TOKEN)
        page.press("#token", "Tab")
        page.wait_for_function("() => document.querySelector('#model').value === 'fake'")
        say(page, "Hi")
        wait_for(page, "Hello!", 1)
