"""A real browser on the Space's pages. It needs a Chromium, which the environment variable CHROMIUM can point to.

The screenshots are left in build/screenshots, to be looked at.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright import sync_api as playwright

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    """The one browser of the process: Playwright's synchronous interface can't be started twice.

    It keeps an event loop running in this thread, beside which `asyncio.run` fails, so it ends with the module.
    """
    if not CHROMIUM:
        pytest.fail("There is no Chromium: install chromium or Google Chrome, or set CHROMIUM to its path.")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def allowed_errors() -> tuple[str, ...]:
    """Parts of the error messages that a page may log; a test module overrides it."""
    return ()


@pytest.fixture(params=[(size, scheme) for size in SIZES for scheme in ("light", "dark")], ids="-".join)
def watched_page(
    request: pytest.FixtureRequest, browser: playwright.Browser, address: str, allowed_errors: tuple[str, ...]
) -> Iterator[playwright.Page]:
    """A page opened at `address`, on a screen and on a phone, in light and in dark colours.

    When the test is over, nothing may have gone wrong in it, no other host been asked, and nothing be wider than it.
    """
    size, scheme = request.param
    width, height = SIZES[size]
    with browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
        page = context.new_page()
        hosts, errors = set(), []
        page.on("request", lambda asked: hosts.add(urlsplit(asked.url).netloc))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        yield page
        wide = page.evaluate("document.documentElement.scrollWidth")
    assert hosts <= {urlsplit(address).netloc, ""}  # "" is a data: address
    assert [error for error in errors if not any(allowed in error for allowed in allowed_errors)] == []
    assert wide <= width


@pytest.fixture
def screenshot(watched_page: playwright.Page, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Leaves a picture of the page in build/screenshots, once all results are shown."""

    def take(name: str, full_page: bool = False) -> None:
        watched_page.wait_for_function("!document.querySelector('#shop-results .pending')")
        watched_page.wait_for_timeout(500)  # Gradio fades results in
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        watched_page.screenshot(path=SCREENSHOTS / f"{name}-{request.node.callspec.id}.png", full_page=full_page)

    return take
