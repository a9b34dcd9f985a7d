"""The page as people see it: in Chromium, light and dark, wide and narrow, by mouse and by key."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn

from lowtide.calls import chat
from lowtide.request import Request, encode
from tests.plugins.stack import until
from tests.web.history import CHAT
from worker.web.app import make_app

pytestmark = pytest.mark.browser
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = ["/", "/lanes", "/batches", "/tables", "/costs", "/tide", "/settings", "/doctor"]
# But for the numbers behind the heat map, which are a table of a week.
_CUT = "[...document.querySelectorAll(':not(details) > .wide')].filter(e => e.scrollWidth > e.clientWidth).length"


def missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        raise AssertionError(what)
    pytest.skip(what)


@pytest.fixture
def token(settings) -> str:
    """What the page asks for, where a test names this before the page."""
    settings["web_token"] = "correct horse battery staple"
    return str(settings["web_token"])


@pytest.fixture
def url(rt, history) -> Iterator[str]:
    """The page of a deployment with a past, served on loopback."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(make_app(rt), log_config=None, timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        until(lambda: server.started, "the page is served")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def chromium(tmp_path, url):
    """A browser with an empty profile; what it complains of fails the test."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("Chromium is not installed: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("Playwright is not installed: make browser")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=program, args=FLAGS, headless=True
        )
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on(
            "console",
            lambda message: complaints.append(message.text) if message.type == "error" else None,
        )
        yield context
        context.close()
    assert complaints == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_can_be_read(chromium, url, history, width, scheme) -> None:
    tab = chromium.pages[0]
    tab.set_viewport_size({"width": width, "height": 844})
    tab.emulate_media(color_scheme=scheme)
    batch = history.find_batches(limit=1)[0].id
    task = history.requests_in(batch, limit=1)[0].task_id
    for path in [*PAGES, f"/batches/{batch}", f"/tasks/{task}"]:
        tab.goto(url + path)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, path
        assert tab.evaluate(_FAINT) == [], path
        assert tab.evaluate(_CUT) == 0, f"{path}: a table has to be scrolled sideways"


def test_numbers_change_by_themselves(chromium, url, rt) -> None:
    tab = chromium.pages[0]
    tab.goto(url)
    tab.locator(".live.on").wait_for()
    assert tab.locator(".flow b").first.inner_text() == "0"

    lane, body, tokens = encode(chat("hello", model=CHAT.model), account="default")
    rt.buffer.append([Request("t1.0.0", "t1", "tasks.summarize", lane, body, b"", tokens)])

    tab.locator(".flow b", has_text="1").first.wait_for(timeout=10_000)
    rt.buffer.drop(rt.buffer.seal(CHAT.key, only_if_due=False))


def test_by_keyboard_alone(chromium, url, history) -> None:
    tab = chromium.pages[0]
    tab.goto(url)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#content")

    batch = history.find_batches(limit=1)[0].id
    tab.locator("input[type=search]").focus()
    tab.keyboard.type(batch)
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/batches/{batch}")
    assert tab.get_by_role("heading", level=1).inner_text().startswith(batch)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_token_opens_the_page_that_was_asked_for(token, chromium, url, width, scheme) -> None:
    tab = chromium.pages[0]
    tab.set_viewport_size({"width": width, "height": 844})
    tab.emulate_media(color_scheme=scheme)
    tab.goto(f"{url}/costs")
    assert "/login?next=" in tab.url
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(_FAINT) == []
    assert tab.evaluate(_NAMELESS) == []

    tab.keyboard.type(token)  # the field has the focus
    tab.keyboard.press("Enter")

    tab.wait_for_url(f"{url}/costs")


def test_the_theme_is_kept(chromium, url) -> None:
    tab = chromium.pages[0]
    tab.emulate_media(color_scheme="light")
    tab.goto(url)
    tab.get_by_role("button", name="Light or dark").click()
    tab.goto(f"{url}/costs")

    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"


def test_every_control_has_a_name(chromium, url) -> None:
    tab = chromium.pages[0]
    for path in PAGES:
        tab.goto(url + path)
        assert tab.evaluate(_NAMELESS) == [], path


# Texts whose contrast with what lies behind them is below 4.5 (WCAG AA).
_FAINT = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const faint = new Set();
  for (const element of document.querySelectorAll("main *, header *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest("svg, .hidden, .skip, option")) continue;
    const [a, b] = [parse(getComputedStyle(element).color).slice(0, 3), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.add(`${element.tagName} ${element.className} ${ratio.toFixed(2)}`);
  }
  return [...faint];
}"""
_NAMELESS = """() => [...document.querySelectorAll("button, a, input:not([type=hidden]), select, textarea, progress")]
  .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.title || (e.labels && e.labels.length)))
  .map((e) => e.outerHTML.slice(0, 120))"""
