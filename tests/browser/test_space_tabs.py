"""The Space's other tabs in a real browser, on a screen and on a phone, by a model that has learnt nothing."""

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from helpers import COLOURS, draw
from playwright import sync_api as playwright
from space_shop import make_shop, served

from acebert.processing_acebert import AceBertProcessor
from acebert.space.tabs.compare import CompareTab
from acebert.space.tabs.embedding_map import EmbeddingMapTab
from acebert.space.tabs.own_catalog import OwnCatalogTab

pytestmark = pytest.mark.slow

LONG = 300_000  # ms; a machine with other work takes its time
# The guess is "story" for the title, and none for the id, since "ref" is not unique.
CSV = "ref,story,label,picture,colour\n" + "".join(
    f"p{i},the {i} shirt of {colour} women,{colour} shirt,p{i}.png,{colour}\n" for i, colour in enumerate(COLOURS)
)


def add_tabs(shop: Any) -> None:
    with gr.Tab("Your own catalogue"):
        OwnCatalogTab(shop).lay_out()
    with gr.Tab("Side by side"):
        CompareTab(shop).lay_out()
    with gr.Tab("The common space"):
        EmbeddingMapTab(shop).lay_out()


@pytest.fixture
def address(tiny_config: Callable, tiny_processor: AceBertProcessor, tmp_path: Path) -> Iterator[str]:
    with served(add_tabs, make_shop(tiny_config(), tiny_processor, tmp_path / "shop")) as url:
        yield url


@pytest.fixture
def allowed_errors() -> tuple[str, ...]:
    return ("404",)  # photos that a product doesn't have


@pytest.fixture
def page(watched_page: playwright.Page) -> playwright.Page:
    watched_page.get_by_role("tab", name="Your own catalogue").wait_for()
    return watched_page


def settle(page: playwright.Page) -> None:
    """Waits until the browser has nothing left to do.

    Gradio sets a field that it has just shown to its first value once more, some milliseconds later. Nobody types as
    early as that, but a test does.
    """
    page.evaluate("new Promise((idle) => requestIdleCallback(() => requestIdleCallback(idle)))")


def open_tab(page: playwright.Page, name: str) -> None:
    """On a phone, tabs that don't fit are in a menu."""
    tab = page.get_by_role("tab", name=name).first
    if tab.is_visible():
        tab.click()
    else:
        page.locator(".overflow-menu > button").first.click()
        page.locator(".overflow-dropdown button", has_text=name).click()


def ask(page: playwright.Page, field: str, text: str) -> None:
    box = page.locator(field).get_by_role("textbox")
    box.wait_for()
    settle(page)
    box.fill(text)
    page.keyboard.press("Enter")


def test_a_dropped_catalogue_is_searched(
    page: playwright.Page, screenshot: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "products.csv").write_text(CSV + "p0,again,again,p0.png,red\n")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for i, colour in enumerate(COLOURS):
            buffer = io.BytesIO()
            draw("shirt", colour, 0).save(buffer, "PNG")
            archive.writestr(f"p{i}.png", buffer.getvalue())
    page.locator("#own-photos input[type=file]").set_input_files(tmp_path / "photos.zip")
    page.locator("#own-found", has_text="4 rows").wait_for()
    page.locator("#own-table input[type=file]").set_input_files(tmp_path / "products.csv")
    page.locator("#own-found", has_text="5 rows").wait_for()
    guessed = {"#own-id": "none: take the row's number", "#own-title": "story"}
    for field, value in guessed.items():
        playwright.expect(page.locator(field).locator("input")).to_have_value(value)
    settle(page)
    for field, column in (("#own-id", "ref"), ("#own-title", "label")):
        choice = page.locator(field).locator("input")
        choice.fill(column)
        page.keyboard.press("Enter")
        assert choice.input_value() == column
    screenshot("own-columns", full_page=True)

    page.get_by_role("button", name="Make it searchable").click()
    page.locator("#own-result table").wait_for(timeout=LONG)
    assert "4 products are searchable. 1 row was left out." in page.locator("#own-result h2").inner_text()
    assert "row 2 has the same id" in page.locator("#own-result").inner_text()
    cards = page.locator("#own-results .card")
    cards.first.wait_for(timeout=LONG)
    assert sorted(page.locator("#own-results .facts").all_inner_texts()) == sorted(COLOURS)
    assert sorted(page.locator("#own-results h3").all_inner_texts()) == sorted(f"{name} shirt" for name in COLOURS)
    ask(page, "#own-query", "red shirt")
    page.locator("#own-results h2", has_text="“red shirt”").wait_for()
    page.wait_for_function("[...document.querySelectorAll('#own-results img')].some((img) => img.naturalWidth > 0)")
    screenshot("own-searched", full_page=True)

    with page.expect_download() as download:
        page.locator("#own-download").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert "catalogue/catalog.json" in archive.namelist()
    stranger = page.context.browser.new_page()
    stranger.goto(page.url)
    stranger.locator("#own-files").wait_for()
    assert stranger.locator("#own-results .card").count() == 0
    stranger.close()


def test_what_cannot_be_read_is_said_on_the_page(
    page: playwright.Page, screenshot: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "products.csv").write_text("<html>")
    page.locator("#own-table input[type=file]").set_input_files(tmp_path / "products.csv")
    page.locator("#own-found", has_text="is a web page").wait_for()
    assert not page.locator("#own-make").is_visible()
    assert str(tmp_path) not in page.content() and "/tmp" not in page.locator("#own-found").inner_text()
    screenshot("own-unreadable", full_page=True)


def test_systems_side_by_side(page: playwright.Page, screenshot: Callable[..., None]) -> None:
    open_tab(page, "Side by side")
    page.locator("#compare-results", has_text="five ways to rank").wait_for()
    ask(page, "#compare-query", "red mug")
    columns = page.locator("#compare-results .columns")
    columns.wait_for()
    assert columns.locator("section").count() == 5
    assert columns.locator("section").last.locator("li").count() == 10
    screenshot("compare", full_page=True)
    columns.focus()
    last = columns.locator("section").last
    last.scroll_into_view_if_needed()
    box, viewport = last.bounding_box(), page.viewport_size
    assert box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"] + 1
    card = last.locator("li").first
    card.hover()
    same = page.locator(f'#compare-results li[data-product="{card.get_attribute("data-product")}"]')
    assert all("same" in item.get_attribute("class") for item in same.all())


def test_the_common_space(page: playwright.Page, screenshot: Callable[..., None]) -> None:
    assert page.locator("#space-map figure").count() == 0  # not before somebody looks
    open_tab(page, "The common space")
    points = page.locator("#space-map circle[data-row]")
    points.first.wait_for(timeout=LONG)
    assert points.count() == 32
    ask(page, "#space-query", "red mug")
    page.locator("#space-map .typed text", has_text="red mug").wait_for()
    assert page.locator("#space-detail .product").count() == 5
    page.locator("#space-gap", has_text=re.compile(r"\d\.\d\d apart")).wait_for()
    points.nth(3).dispatch_event("pointerover")  # by pointer, the point above it would be met
    title = points.nth(3).get_attribute("data-title")
    page.locator("#space-map .tip", has_text=title).wait_for()
    screenshot("space", full_page=True)
    points.nth(3).dispatch_event("click")
    page.locator("#space-detail .product:only-child", has_text=title).wait_for()
    key = page.locator("#space-map [data-colour]").first
    key.click()
    assert key.get_attribute("aria-pressed") == "true"
    faint = page.locator("#space-map circle.faint").count()
    assert faint == 32 - page.locator(f"#space-map circle[data-row].{key.get_attribute('data-colour')}").count() > 0
    key.click()
    assert page.locator("#space-map circle.faint").count() == 0
