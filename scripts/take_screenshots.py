"""Takes the pictures of the report, of the explained picture and of the page in docs/figures/, with Debian's chromium.

python -m scripts.take_screenshots --report results/sample/report.html
python -m scripts.take_screenshots --explanation results/explained/000.png.html
python app.py & python -m scripts.take_screenshots --page http://127.0.0.1:7860
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Locator, Page, sync_playwright

from winclip.support.files import write_atomically

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES: dict[str, tuple[Literal["light", "dark"], int, int, str]] = {
    "report-light": ("light", 1280, 900, "#curves"),
    "report-dark": ("dark", 1280, 900, "#pictures"),
    "report-phone": ("light", 390, 844, "#pictures"),
}


def save(shown: Page | Locator, path: Path) -> None:
    """Take a picture; JPEG, because a small palette would change the colours of the heat maps."""
    picture = shown.screenshot(type="jpeg", quality=88)
    write_atomically(path, picture)
    print(f"written: {path}, {len(picture) // 1000} kB")


def picture_report(browser: Browser, report: Path, folder: Path) -> None:
    """report-light.jpg, report-dark.jpg and report-phone.jpg."""
    for name, (scheme, width, height, place) in PICTURES.items():
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": height})
        page.goto(report.resolve().as_uri())
        page.evaluate("place => document.querySelector(place).scrollIntoView()", place)
        page.wait_for_function("[...document.images].every(image => image.loading === 'lazy' || image.complete)")
        page.wait_for_timeout(500)
        save(page, folder / f"{name}.jpg")


def picture_explanation(browser: Browser, explanation: Path, folder: Path) -> None:
    """method-prompts.jpg and its like, a section each."""
    page = browser.new_page(color_scheme="light", viewport={"width": 960, "height": 900})
    page.goto(explanation.resolve().as_uri())
    for name in ("prompts", "windows", "harmonic", "memory"):
        save(page.locator(f"#{name}"), folder / f"method-{name}.jpg")


def picture_page(browser: Browser, address: str, folder: Path) -> None:
    """page.jpg: as the page opens, with the verdict on the first sample picture."""
    page = browser.new_page(viewport={"width": 1280, "height": 960})
    page.goto(address)
    page.locator(".stack .heat").wait_for()
    page.wait_for_timeout(1000)
    save(page, folder / "page.jpg")


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, help="a report.html, as test.py --report writes it")
    parser.add_argument("--explanation", type=Path, help="a page of winclip explain with good examples")
    parser.add_argument("--page", metavar="ADDRESS", help="where app.py runs with the demo backbone")
    parser.add_argument(
        "--save_path",
        type=Path,
        default=Path(__file__).resolve().parent.parent / "docs" / "figures",
        help="folder of the pictures (this one)",
    )
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser (chromium)")
    options = parser.parse_args()
    if not options.chromium:
        parser.error("chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=FLAGS)
        if options.report:
            picture_report(browser, options.report, options.save_path)
        if options.explanation:
            picture_explanation(browser, options.explanation, options.save_path)
        if options.page:
            picture_page(browser, options.page, options.save_path)
        browser.close()


if __name__ == "__main__":
    main()
