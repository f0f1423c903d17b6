from __future__ import annotations

import base64
import hashlib
import re
import shlex
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_ray.serve.openapi import docs_headers, docs_page, openapi_document
from atriva_ray.serve.page import ModelCard, PageData, page_headers, render

HOSTILE = """<script>alert('1')</script>"><img src=x onerror="alert(2)">&amp;{{x}}`$(id)`"""
VOID = {"meta", "link", "input", "img", "br"}
SURROGATES_TOO = st.text(st.characters(exclude_categories=()), max_size=40)


class Tree(HTMLParser):
    """Reads a page as a browser does: elements, attributes, text; open tags must be closed."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.elements = []
        self.texts = []
        self.open = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, tag):
        return "".join(data for inside, data in self.texts if tag in inside)

    @property
    def shape(self):
        return [(tag, sorted(attributes)) for tag, attributes in self.elements]


def card(text, **changes):
    known = {
        "name": text,
        "version": text,
        "state": "READY",
        "devices": (text,),
        "inputs": (text,),
        "outputs": (text,),
        "takes_pictures": True,
        "reason": text,
    }
    return ModelCard(**known | changes)


def data(text, **changes):
    known = {
        "server_name": text,
        "version": text,
        "models": (card(text), card(text, state=text), card(text, takes_pictures=False)),
        "devices": (text,),
        "address": text,
    }
    return PageData(**known | changes)


def hashes(text, element):
    """Return what a browser computes of inline elements."""
    found = re.findall(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    digests = [hashlib.sha256(each.encode()).digest() for each in found]
    return [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]


def policy_of(headers):
    rules = (rule.split() for rule in headers["content-security-policy"].split("; "))
    return {name: sources for name, *sources in rules}


@settings(max_examples=50, deadline=None)
@given(SURROGATES_TOO)
def test_whatever_names_hold_it_is_text(text):
    plain = Tree(render(data("plain"))).shape
    page = render(data("x" + text, version="plain"))
    assert Tree(page).shape == plain
    page.encode()


def test_hostile_names_show_as_they_are():
    tree = Tree(render(data(HOSTILE)))
    assert HOSTILE in tree.text("h1")
    assert HOSTILE in tree.text("h3")
    assert HOSTILE in tree.text("option")
    assert HOSTILE in tree.text("li")
    assert HOSTILE in tree.text("p")
    assert len(tree.all("script")) == 1
    assert [attributes["id"] for attributes in tree.all("img")] == ["preview"]


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_the_form_asks_the_model_that_was_chosen(text):
    (option,) = Tree(render(data("x", models=(card(text, version="7"),)))).all("option")
    name = option["value"].removeprefix("/v2/models/").removesuffix("/versions/7")
    assert re.fullmatch(r"[\w.~%-]+", name)
    assert unquote(name) == text


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=40))
def test_an_address_in_an_example_is_one_word_to_a_shell(text):
    tree = Tree(render(data("x", models=(card(text),), address="http://here")))
    about, picture = tree.text("code").replace("\\\n", "").split("\n\n")
    words = shlex.split(about)
    assert words[0] == "curl"
    assert unquote(words[1]) == f"http://here/v2/models/{text}/versions/{text}"
    assert shlex.split(picture)[2:] == ["--data-binary", "@picture.jpg"]


def test_nothing_of_a_page_is_loaded_from_elsewhere_or_handled_in_attributes():
    for page in (render(data("x", wants_token=True)), docs_page(openapi_document("1"))):
        tree = Tree(page)
        for _tag, attributes in tree.elements:
            assert not {"src", "style", "srcset", "background", "action"} & set(attributes)
            assert not [name for name in attributes if name.startswith("on")]
            assert re.fullmatch(r"|/|/docs|/openapi\.json|#\w+", attributes.get("href", ""))
        assert "@import" not in page
        assert "url(" not in page


def test_the_policy_allows_our_style_and_script_only():
    page = render(data(HOSTILE, wants_token=True))
    policy = policy_of(page_headers())
    assert policy["default-src"] == ["'none'"]
    assert policy["style-src"] == hashes(page, "style")
    assert policy["script-src"] == hashes(page, "script")
    assert policy["connect-src"] == ["'self'"]
    for name in ("base-uri", "form-action", "frame-ancestors"):
        assert policy[name] == ["'none'"]
    assert "unsafe" not in page_headers()["content-security-policy"]


def test_the_page_of_the_api_has_no_script():
    page = docs_page(openapi_document("1"))
    policy = policy_of(docs_headers())
    assert Tree(page).all("script") == []
    assert policy["style-src"] == hashes(page, "style")
    assert "script-src" not in policy
    assert "connect-src" not in policy


def test_the_script_keeps_tokens_nowhere_and_makes_no_html():
    (script,) = re.findall(r"<script>(.*?)</script>", render(data("x")), re.DOTALL)
    for word in (
        "localStorage",
        "sessionStorage",
        "cookie",
        "innerHTML",
        "eval(",
        "insertAdjacent",
    ):
        assert word not in script


def test_everything_that_can_be_filled_in_has_a_label():
    tree = Tree(render(data("x", wants_token=True)))
    labelled = {attributes["for"] for attributes in tree.all("label")}
    fields = [*tree.all("input"), *tree.all("select")]
    assert {attributes["id"] for attributes in fields} == labelled
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["aria-live"] for _, attributes in tree.elements if "aria-live" in attributes}
    for _, attributes in tree.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name, ids[0]) in ids


def test_only_what_is_ready_can_be_tried():
    loading = card("net", state="LOADING", version="1")
    page = render(data("x", models=(loading,)))
    assert Tree(page).all("option") == []
    assert "0 of 1" in page
    assert "curl" not in Tree(page).text("code")


def test_a_locked_page_asks_for_a_token_and_shows_nothing_else():
    page = render(PageData("atriva", "1", wants_token=True, is_locked=True))
    tree = Tree(page)
    assert "token" in {attributes.get("id") for attributes in tree.all("input")}
    assert tree.all("article") == []
    assert "wants a token" in tree.text("h2")


def test_examples_have_a_token_if_one_is_needed():
    assert "$TOKEN" not in render(data("x"))
    assert 'Authorization: Bearer $TOKEN"' in Tree(render(data("x", wants_token=True))).text("code")


def test_a_server_without_models_says_so():
    page = render(PageData("atriva", "1"))
    assert "no models here yet" in page
    assert 'id="token"' not in page


@pytest.mark.parametrize("headers", [page_headers(), docs_headers()])
def test_pages_are_not_kept_or_guessed_at(headers):
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert all(name == name.lower() for name in headers)
