"""The Space as a shopper meets it: served by its own process, used in a real browser, on a screen and on a phone.

It searches the sample catalogue with the checkpoint in the repository root; ACEBERT_MODEL and ACEBERT_CATALOG name
others.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright import sync_api as playwright

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# What Gradio says when a page is left while it waits for an answer, such as a map that another tab is drawing.
LEFT_WAITING = ("AbortError", "Connection errored out")


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the Space is served."""
    model = os.environ.get("ACEBERT_MODEL", str(ROOT))
    folder = tmp_path_factory.mktemp("space")
    catalog, preset = os.environ.get("ACEBERT_CATALOG"), []
    if not catalog:
        catalog, preset = str(folder / "catalog"), ["--preset", "sample"]
        draw = [sys.executable, "-m", "acebert.sample_catalog", "--output_dir", catalog, "--num_products", "300"]
        subprocess.run(draw, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--model_name_or_path", model, "--catalog", catalog, *preset]
    arguments += ["--cache", str(folder / "cache"), "--port", str(port)]
    space = subprocess.Popen([sys.executable, str(ROOT / "space" / "app.py"), *arguments])
    url = f"http://127.0.0.1:{port}/"
    try:
        deadline = time.monotonic() + 600
        while True:
            assert space.poll() is None, f"the Space stopped with exit status {space.returncode}"
            assert time.monotonic() < deadline, "the Space did not come up within 10 minutes"
            try:
                urlopen(url, timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        space.terminate()
        space.wait()


@pytest.fixture
def allowed_errors() -> tuple[str, ...]:
    return LEFT_WAITING


@pytest.fixture
def page(watched_page: playwright.Page) -> playwright.Page:
    heading(watched_page, "From the catalogue")
    return watched_page


def heading(page: playwright.Page, text: str) -> None:
    page.locator("#shop-results h2", has_text=text).wait_for()


def search(page: playwright.Page, text: str) -> None:
    page.locator("#shop-query").get_by_role("textbox").fill(text)
    page.keyboard.press("Enter")
    heading(page, f"“{text}”")


def test_words_find_products(page: playwright.Page, screenshot: Callable[..., None]) -> None:
    screenshot("open")
    search(page, "striped red t-shirt")
    screenshot("words")
    assert page.url.endswith("?q=striped+red+t-shirt")
    assert page.locator("#shop-results .card").count() == 24
    scores = [float(text.split()[0]) for text in page.locator("#shop-results .score").all_inner_texts()]
    assert len(scores) == 24 and scores == sorted(scores, reverse=True)
    assert all(image.get_attribute("alt") for image in page.locator("#shop-results img").all())
    page.locator("#shop-results .card").last.scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('#shop-results img')].at(-1).naturalWidth > 0")

    titles = page.locator("#shop-results h3").all_inner_texts()
    page.reload()
    heading(page, "“striped red t-shirt”")
    assert page.locator("#shop-results h3").all_inner_texts() == titles


def test_more_like_this_and_back(page: playwright.Page, screenshot: Callable[..., None]) -> None:
    page.get_by_role("button", name="black high heels").click()
    heading(page, "“black high heels”")
    title = page.locator("#shop-results h3").nth(1).inner_text()
    page.locator("#shop-results a[data-like]").nth(1).focus()
    page.keyboard.press("Enter")
    heading(page, f"More like “{title}”")
    screenshot("similar")
    assert "?like=" in page.url
    assert page.evaluate("document.activeElement.tagName") == "H2"
    page.go_back()
    heading(page, "“black high heels”")
    assert page.locator("#shop-query").get_by_role("textbox").input_value() == "black high heels"


def test_a_photo_and_filters_narrow_the_search(
    page: playwright.Page, screenshot: Callable[..., None], tmp_path: Path
) -> None:
    photo = tmp_path / "query.png"
    page.locator("#shop-results img").first.screenshot(path=photo)
    page.locator("#shop-photo input[type=file]").set_input_files(photo)
    heading(page, "Like your photo")
    page.get_by_role("button", name="Filters").first.click()
    page.get_by_label("Gender").first.click()
    option = page.get_by_role("option", name=re.compile(r"^Women \(\d+\)$"))
    count = int(re.search(r"\d+", option.inner_text()).group())
    screenshot("filter")
    option.click()
    page.wait_for_url("**gender=Women**")
    page.keyboard.press("Escape")
    page.locator("#shop-filters").get_by_label("Price to").fill("60")
    page.keyboard.press("Enter")
    page.wait_for_url("**price.max=60**")
    heading(page, "Like your photo")
    screenshot("photo")
    facts = page.locator("#shop-results .facts").all_inner_texts()
    assert facts and len(facts) <= count
    assert all(text.startswith("Women") for text in facts)
    assert all(float(re.search(r"Price\s([\d.]+)", text).group(1)) <= 60 for text in facts)


def test_why_this_product(page: playwright.Page, screenshot: Callable[..., None]) -> None:
    search(page, "striped red t-shirt")
    card = page.locator("#shop-results .card").nth(1)
    title = card.locator("h3").inner_text()
    # The card's number counts exact words, too; what is explained is the likeness alone.
    likeness = re.search(r"-?\d\.\d+", card.locator(".score").get_attribute("title")).group()
    card.get_by_role("button", name="Why this?").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Why this product?")
    dialog.locator(".summary").wait_for()
    screenshot("why")
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    words = dialog.locator(".words > *").evaluate_all("(words) => words.map((word) => word.firstChild.textContent)")
    assert " ".join(words) == title
    assert dialog.locator("dd").first.inner_text() == likeness
    assert dialog.locator("figure img").count() == 2
    assert all(dialog.locator("figure img").evaluate_all("(photos) => photos.map((photo) => photo.naturalWidth)"))
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")
    assert page.evaluate("document.activeElement.dataset.why") == card.locator("[data-why]").get_attribute("data-why")

    # Another product's reasons, and the same one's again.
    for number in (0, 1):
        card = page.locator("#shop-results .card").nth(number)
        card.get_by_role("button", name="Why this?").click()
        dialog.locator(".summary").wait_for()
        assert dialog.locator("figure img").first.get_attribute("alt") == card.locator("h3").inner_text()
        dialog.get_by_role("button", name="Close").click()


def test_a_link_that_leads_nowhere_has_a_way_on(
    page: playwright.Page, screenshot: Callable[..., None], address: str
) -> None:
    page.goto(f"{address}?like=no-such-product")
    heading(page, "That didn't work")
    screenshot("nowhere")
    page.get_by_role("link", name="Start again").click()
    heading(page, "From the catalogue")


def test_a_file_that_is_no_photo_is_refused_kindly(
    page: playwright.Page, screenshot: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "query.png").write_text("no photo")
    page.locator("#shop-photo input[type=file]").set_input_files(tmp_path / "query.png")
    page.get_by_text("That file can't be read as a photo").wait_for()
    screenshot("no-photo")
