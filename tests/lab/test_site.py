"""The site of the committed notebooks, in a browser; pictures of its pages in build/site/."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sobolev_utils.paper.reproduce import NOTEBOOKS, NUMBERED

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["index", *sorted(path.stem for path in NOTEBOOKS.glob(NUMBERED))]
PICTURES = ROOT / "build" / "site"
PHONE, DESK = 390, 1280  # pixels


@pytest.mark.parametrize("name", PAGES)
def test_a_page_on_a_phone_by_night_and_a_desk_by_day(gallery, chromium, name):
    """From a file: no complaint, nothing from elsewhere, nothing too wide."""
    complaints, requests = [], []
    page = chromium.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((gallery / f"{name}.html").as_uri())
    page.eval_on_selector_all("img", "images => Promise.all(images.map(i => (i.loading = 'eager', i.decode())))")
    for width, theme, paper in ((PHONE, "dark", "rgb(20, 23, 27)"), (DESK, "light", "rgb(255, 255, 255)")):
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=PICTURES / f"{name}_{theme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
        cut = "e => e.filter(x => x.getBoundingClientRect().width == 0).length"
        assert page.eval_on_selector_all("main svg, main table, main pre", cut) == 0
    assert complaints == [] and {urlsplit(url).scheme for url in requests} == {"file"}
    page.close()
