"""Pictures that come as forms, as `curl -F` sends them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.serve.http_tools import PNG, serving

PATH = "/v2/models/double/infer-image"


@pytest.fixture(scope="module")
def served():
    with serving() as running:
        yield running


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    return path


def curl(*arguments):
    """Run curl as people do; return what it prints, and the status behind it."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("there is no curl")
    command = [program, "-sS", "--max-time", "20", "-w", "\n%{http_code}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer, _, status = done.stdout.rpartition("\n")
    return int(status), answer


def test_a_form_is_refused_and_the_answer_says_how_it_is_done(served, picture):
    url = f"http://{served.url}{PATH}"
    status, answer = curl("-F", f"image=@{picture}", url)
    assert status == 415
    assert f"curl --data-binary @picture.png http://SERVER{PATH}" in answer
    status, answer = curl("--data-binary", f"@{picture}", url)
    assert status == 200
    assert "dog" in answer


def test_a_connection_can_be_used_on_after_a_form(served):
    connection = served.connect()
    form = b"--b\r\n" + PNG * 10_000 + b"\r\n--b--\r\n"
    refused = served.ask(
        "POST", PATH, form, connection, content_type="Multipart/Form-Data; boundary=b"
    )
    assert refused.status == 415
    assert "not a form" in refused.error
    assert served.ask("POST", PATH, PNG, connection).status == 200
    connection.close()
