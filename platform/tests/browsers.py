"""The browser of the tests."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

from workshop import binaries, chromium


@contextmanager
def browser(*options: str) -> Iterator[Browser]:
    """Run Chromium with command line options; skip the test, with the reason, where there is none that works."""
    if problem := chromium.problem():
        pytest.skip(problem)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=binaries.find("chromium"), args=options)
        yield launched
        launched.close()
