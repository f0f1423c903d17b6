"""The page at `/`, as somebody with a browser sees it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.cluster.tools import wait_until
from tests.serve.browser import CHROMIUM, browser
from tests.serve.serving_tools import HELDOUT, NAMES, SCALE

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture
def digit(tmp_path):
    """A picture of a digit, and its name."""
    with np.load(HELDOUT) as data:
        pixels, label = data["images"][0].reshape(8, 8), int(data["labels"][0])
    path = tmp_path / "digit.png"
    Image.fromarray((pixels * SCALE).astype(np.uint8)).save(path)
    return path, NAMES[label]


def test_a_picture_is_uploaded_and_its_label_shown(server, digit, tmp_path):
    picture, name = digit
    with browser(tmp_path) as page:
        page.open(f"http://{server.http_address}/")
        assert "digits" in page.value("document.body.innerText")
        page.value("document.getElementById('model').value = '/v2/models/digits/versions/1'")
        page.choose_file("#file", picture)
        wait_until(lambda: page.value("!document.getElementById('send').disabled"), timeout_s=10)
        page.value("document.getElementById('send').click()")
        wait_until(
            lambda: page.value("document.querySelectorAll('#result tbody tr').length") == 3,
            timeout_s=30,
            what=lambda: page.value("document.body.innerText"),
        )
        best = page.value("document.querySelector('#result tbody .name').innerText")
        assert best == name
        assert page.messages == []


def test_the_documentation_is_a_page_too(server, tmp_path):
    with browser(tmp_path) as page:
        page.open(f"http://{server.http_address}/docs")
        assert "infer-image" in page.value("document.body.textContent")
        assert page.messages == []
