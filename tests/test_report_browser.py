"""The report in headless Chromium: Debian's, which scripts/run_tests.sh installs where it can."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.figure  # noqa: F401 - at import, so that its font cache is found before tests move the cache folder
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import Predict, make_data
from tests.tiny import golden_images
from winclip import WinCLIP
from winclip.explanation import explain
from winclip.network.backbone import Backbone
from winclip.report.content import Card, Report, Result, SettingPage, Wording
from winclip.report.curves import ClassCurves
from winclip.report.explanation import Subject, write_explanation
from winclip.report.page import write_report

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
BAD_NAME = "<img src=x onerror=document.title=1>.png"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (on Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def report(evaluate: Callable[..., int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small run with hostile names and a class without masks."""
    data = make_data(tmp_path_factory.mktemp("data"))
    meta = json.loads((data / "meta.json").read_text())
    for part in ("train", "test"):
        meta[part]["<b>felt"] = meta[part].pop("felt")
        for item in meta[part]["<b>felt"]:
            item.update(cls_name="<b>felt", mask_path="")
    item = meta["test"]["bolt"][-1]
    renamed = Path(item["img_path"]).with_name(BAD_NAME)
    (data / item["img_path"]).rename(data / renamed)
    item.update(img_path=renamed.as_posix(), specie_name="</script><script>document.title=2</script>")
    (data / "meta.json").write_text(json.dumps(meta))
    save = tmp_path_factory.mktemp("out")
    assert evaluate(data, save, "--k_shot", "0", "2", "--report") == 0
    return save / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@contextmanager
def opened_in(browser: Browser, report: Path) -> Iterator[Page]:
    """A page in light mode, without network; at the end it must have logged and requested nothing."""
    context = browser.new_context(color_scheme="light", offline=True)
    opened = context.new_page()
    trouble: list[str] = []
    opened.on("console", lambda message: trouble.append(message.text))
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("request", lambda request: None if request.url.startswith("data:") else trouble.append(request.url))
    opened.goto(report.as_uri())
    yield opened
    context.close()
    assert trouble == [report.as_uri()]


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The page of the run."""
    with opened_in(browser, report) as opened:
        yield opened


def test_columns_sort_and_missing_figures_stay_last(page: Page) -> None:
    table = page.locator("table").first

    def column(number: int) -> list[str]:
        return table.locator(f"tbody tr > :nth-child({number})").all_text_contents()

    assert column(1) == ["bolt", "<b>felt"]
    for _ in range(2):
        before = column(1)
        table.get_by_role("button", name="objects").click()
    assert column(1) == before[::-1]
    for direction in ("descending", "ascending"):
        table.get_by_role("button", name="auroc_px").click()
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == direction
        assert column(2)[-1] == "-"
    table.get_by_role("button", name="auroc_sp").click()
    assert column(6) == sorted(column(6), key=float, reverse=True)
    assert table.locator("tfoot th").all_inner_texts() == ["mean", "chance"]


def test_filters(page: Page) -> None:
    cards = page.locator(".card")
    expect(cards).to_have_count(12)
    expect(page.locator(".picture svg:visible")).to_have_count(6)
    page.get_by_label("outline of the defect").uncheck()
    expect(page.locator(".picture svg:visible")).to_have_count(0)
    page.get_by_label("Class").select_option("bolt")
    expect(cards).to_have_count(6)
    expect(page.locator(".curves:visible details:visible")).to_have_count(1)
    expect(page.locator("#growth summary b:visible")).to_have_text(["mean", "bolt"])
    page.get_by_label("Defect type").select_option("scratch")
    expect(cards).to_have_count(2)
    expect(page.locator("#count")).to_contain_text("2 of 12 images")
    page.get_by_label("Class").select_option("<b>felt")
    expect(cards).to_have_count(3)
    expect(cards.first).to_contain_text("no mask")
    page.get_by_label("Class").select_option("")
    page.get_by_label("Defect type").select_option("")
    counts = {}
    for wanted in ("wrong", "right"):
        page.get_by_label("Right or wrong").select_option(wanted)
        counts[wanted] = cards.count()
        outcomes = set(page.locator(".card .outcome").all_text_contents())
        assert outcomes <= ({"right"} if wanted == "right" else {"missed defect", "false alarm"})
    assert sum(counts.values()) == 12


def test_settings_change_scores_and_curves(page: Page) -> None:
    def scores() -> dict[str, str]:
        names = page.locator(".card .figures + .name").all_text_contents()
        return dict(zip(names, page.locator(".card .figures").all_text_contents()))

    expect(page.get_by_label("Setting")).to_have_value("1")
    few_shot = scores()
    page.get_by_label("Setting").select_option("0-shot")
    assert scores().keys() == few_shot.keys() and scores() != few_shot
    expect(page.locator('.curves[data-setting="0"]')).to_be_visible()
    expect(page.locator('.curves[data-setting="1"]')).to_be_hidden()


def test_enlarged_view_and_its_keys(page: Page) -> None:
    viewer, position = page.locator("#viewer"), page.locator("#position")
    first, second = (page.locator(".card .figures").nth(i).text_content() or "" for i in range(2))
    page.locator(".card").first.click()
    expect(viewer).to_be_visible()
    # The picture, and the map of each setting; the one that is chosen is marked.
    chosen = viewer.locator("figure[aria-current] .figures")
    expect(chosen).to_have_text(first)
    expect(viewer.locator("figure b")).to_have_text(["0-shot", "2-shot, seed 10"])
    assert viewer.locator("figure .heat").count() == 2 and viewer.locator(".picture").count() == 3
    for key, place in (("ArrowRight", "2 of 12"), ("ArrowLeft", "1 of 12"), ("ArrowLeft", "12 of 12")):
        page.keyboard.press(key)
        expect(position).to_have_text(place)
    page.get_by_label("Next picture").click()
    page.get_by_label("Next picture").click()
    expect(chosen).to_have_text(second)
    loaded = "[...document.querySelectorAll('#viewer img')].map(image => image.naturalWidth > 0)"
    page.wait_for_function(f"{loaded}.every(Boolean)")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()


def test_names_show_as_text(page: Page) -> None:
    page.get_by_label("Defect type").select_option("</script><script>document.title=2</script>")
    expect(page.locator(".card")).to_have_count(1)
    expect(page.locator(".card")).to_contain_text(BAD_NAME)
    assert page.title() == "WinCLIP on small"
    assert page.locator("img[src=x], td b, summary b b").count() == 0


def test_theme_follows_the_system_and_the_button(page: Page) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(background)
    assert light != dark
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(background) == light
    page.get_by_role("button", name="Dark theme").click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(background) == dark


def test_phone_width_does_not_scroll_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for place in ("h1", "#growth", ".curves .plots:visible", "#gallery"):
        page.locator(place).first.scroll_into_view_if_needed()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.locator(".card").first.click()
    assert page.evaluate("document.querySelector('#viewer').scrollWidth <= innerWidth")
    page.keyboard.press("Escape")


def test_page_without_labels(browser: Browser, tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 30))
    words = Wording("not anomalous", "anomalous", "Scores", "Verdict", "highest score first", "")
    verdicts = {0.1: "not anomalous", 0.9: "anomalous", 0.7: "anomalous"}
    cards = [
        Card(f"{score}.png", image, "nut", "", None, None, [Result(score, 0.5, verdict, (-score,), image)])
        for score, verdict in verdicts.items()
    ]
    curves = ClassCurves("nut", {}, np.array([0.1]), np.array([0.7, 0.9]), 0.5, {}, {})
    pages = [SettingPage("nut", [curves])]
    write_report(tmp_path / "report.html", Report("nut", pages, words, cards, scale=(0.25, 0.75), heat_opacity=1))
    with opened_in(browser, tmp_path / "report.html") as page:
        names = page.locator(".card .figures + .name")
        expect(names).to_have_text(["0.9.png", "0.7.png", "0.1.png"])
        expect(page.locator("#filters select:visible")).to_have_count(1)
        page.get_by_label("Verdict").select_option("not anomalous")
        expect(names).to_have_text(["0.1.png"])
        page.get_by_label("Verdict").select_option("anomalous")
        expect(names).to_have_text(["0.9.png", "0.7.png"])
        expect(page.locator("figure svg")).to_have_count(1)
        expect(page.get_by_label("outline of the defect")).to_be_hidden()
        # The picture under a drawn map must not show through.
        expect(page.locator(".heat").first).to_have_css("opacity", "1")
        expect(page.get_by_text("heat map 0.250.75")).to_be_visible()


def test_page_without_verdicts(browser: Browser, run: Predict, pictures: Path) -> None:
    assert run(pictures / "images", "--save_path", pictures / "out", "--report") == 0
    with opened_in(browser, pictures / "out" / "report.html") as page:
        expect(page.locator(".card .outcome")).to_have_text(["not judged"] * 4)
        expect(page.locator(".card .figures").first).to_contain_text("threshold -")
        expect(page.locator(".curves summary")).to_contain_text("4 not judged, 0 anomalous")
        expect(page.get_by_label("Verdict").locator("option")).to_have_text(["all", "not judged"])


def test_page_that_explains_a_picture(browser: Browser, backbone: Backbone, tmp_path: Path) -> None:
    model = WinCLIP(backbone)
    model.set_class("bolt")
    picture, *references = golden_images()[2:]
    model.add_references(references)
    shown = Subject("<b>.png", picture, [("a.png", references[0]), ("b", None)], model.threshold(), [], 0.07)
    write_explanation(tmp_path / "page.html", explain(model, picture), shown)
    with opened_in(browser, tmp_path / "page.html") as page:
        assert page.title() == "Why <b>.png has its score"
        background = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(background)
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(background) != light
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("[...document.images].every(image => image.alt && image.naturalWidth > 0)")
        expect(page.locator(".matches tbody tr")).to_have_count(1 + len(backbone.scales))
        # Outlines lie over the whole picture.
        places = [page.locator(f"#windows .picture {name}").first.bounding_box() for name in ("img", "svg")]
        assert places[0] == places[1] is not None
