"""The site in a browser, from its files; pictures of its pages in build/site/."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "index",
    "more",
    "models",
    "api",
    *(f"notebooks/{path.stem}" for path in sorted(ROOT.glob("notebooks/*.ipynb"))),
]
PICTURES = ROOT / "build" / "site"
PHONE, DESK = 360, 1280  # pixels
LOOKS = ((PHONE, "dark", "rgb(18, 18, 18)"), (DESK, "light", "rgb(255, 255, 255)"))

OUTSIDE = """elements => elements.filter(element => {
    const scrolls = x => x && (/auto|scroll/.test(getComputedStyle(x).overflowX) || scrolls(x.parentElement));
    const box = element.getBoundingClientRect();
    return box.width > 1 && box.right > innerWidth + 1 && !scrolls(element.parentElement);
}).map(element => element.outerHTML.slice(0, 200))"""


@pytest.fixture
def page(chromium):
    """A page that must not complain, nor ask for anything but files."""
    complaints, requests = [], []
    page = chromium.new_page()
    page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("request", lambda request: requests.append(request.url))
    yield page
    page.close()
    assert complaints == [] and {urlsplit(url).scheme for url in requests} <= {"file", "data"}


def check(page, path, picture):
    """Formulas drawn, and nothing too wide, on a phone by night and a desk by day."""
    for width, theme, paper in LOOKS:
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(path.as_uri())
        page.evaluate("window.MathJax && MathJax.startup.promise.then(() => true)")
        failed = "[data-mjx-error], mjx-container [fill=red]"  # not TeX; a name that TeX does not know
        assert page.locator(failed).count() == 0
        assert page.locator("article mjx-container").count() == page.locator("article .math").count()
        page.screenshot(path=PICTURES / f"{picture}_{theme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.eval_on_selector_all("article *", OUTSIDE) == []
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
        cut = "e => e.filter(x => x.getBoundingClientRect().width == 0).length"
        assert page.eval_on_selector_all("article :is(img, table, pre, mjx-container)", cut) == 0


@pytest.mark.parametrize("name", PAGES)
def test_a_page_on_a_phone_by_night_and_a_desk_by_day(site, page, name):
    check(page, site / f"{name}.html", name.replace("/", "_"))


def test_the_pages_of_modules_too(site, page):
    for path in sorted((site / "api").glob("*.html")):
        check(page, path, f"api_{path.stem}")


def test_a_word_is_found(site, page):
    page.set_viewport_size({"width": PHONE, "height": 900})
    page.goto((site / "index.html").as_uri())
    page.locator(".search-button__button:visible").first.click()
    page.keyboard.type("significance")
    page.keyboard.press("Enter")
    page.locator("#search-results a", has_text="Find the nodes that matter").click()
    assert urlsplit(page.url).path.endswith("notebooks/03_iasa_pruning.html")
