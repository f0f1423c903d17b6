"""What the documentation shows, runs."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SNIPPETS = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, code in enumerate(SNIPPET.findall(page.read_text()), 1)
]
CLUSTER_ONLY = ("atriva_ray.batch", ".predict(", "replicas=", "schedule_policy")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


@pytest.mark.parametrize("package", ["atriva_ray", "atriva_inference"])
@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet(code, package, embedded_cluster, monkeypatch):
    if package == "atriva_inference" and any(each in code for each in CLUSTER_ONLY):
        pytest.skip("data sets and numbers of replicas are a cluster's")
    monkeypatch.chdir(ROOT)
    exec(compile(code.replace("atriva_ray", package), "snippet", "exec"), {})  # noqa: S102


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_example_program(embedded_cluster, capsys):
    runpy.run_path(str(ROOT / "examples" / "classify_digits.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "recognised 99" in shown
    assert shown.count("CPU: ") == 2


def test_the_readme_begins_with_the_two_commands():
    first = re.search(r"^```console\n(.*?)^```", PAGES[0].read_text(), re.MULTILINE | re.DOTALL)
    assert [line.split("#")[0].strip() for line in first.group(1).splitlines()] == [
        "$ make demo",
        "$ make test",
    ]
