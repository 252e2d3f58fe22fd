"""Takes docs/report-light.jpg, report-dark.jpg and report-phone.jpg from a report.html, with Debian's chromium."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from winclip.files import write_atomically

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = {
    "report-light": ("light", 1280, 900, "#curves"),
    "report-dark": ("dark", 1280, 900, "#pictures"),
    "report-phone": ("light", 390, 844, "#pictures"),
}


def main() -> None:
    """Take the screenshots."""
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, help="a report.html, as test.py --report writes it")
    parser.add_argument("--output", type=Path, default=root / "docs", help="folder of the pictures (docs)")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser (chromium)")
    options = parser.parse_args()
    if not options.chromium:
        parser.error("chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=FLAGS)
        for name, (scheme, width, height, place) in PICTURES.items():
            page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": height})  # type: ignore[arg-type]
            page.goto(options.report.resolve().as_uri())
            page.evaluate("place => document.querySelector(place).scrollIntoView()", place)
            page.wait_for_function("[...document.images].every(image => image.loading === 'lazy' || image.complete)")
            page.wait_for_timeout(500)
            # JPEG, because a small palette would change the colours of the heat maps.
            picture = page.screenshot(type="jpeg", quality=88)
            write_atomically(options.output / f"{name}.jpg", picture)
            print(f"written: {options.output / name}.jpg, {len(picture) // 1000} kB")
        browser.close()


if __name__ == "__main__":
    main()
