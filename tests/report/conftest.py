import pytest

from tests.report.browser import BINARY, browser


@pytest.fixture(scope="module")
def chromium():
    if BINARY is None:
        pytest.skip("no chromium on PATH; install Debian's package `chromium` to check the page in a browser")
    with browser() as opened:
        yield opened
