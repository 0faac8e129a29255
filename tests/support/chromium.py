"""The Chromium that is installed here, for tests of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the path (chromium, chromium-browser, google-chrome)"
)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Give the browser, which ends with the block."""
    with sync_playwright() as driver:
        # A container's root has no sandbox to give.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()
