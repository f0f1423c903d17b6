from __future__ import annotations

import hashlib
import logging
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_inference.errors import OptionError
from atriva_ray.errors import InputFileError, UnauthorizedError
from atriva_ray.serve.tokens import TokenStore, are_tokens_required, new_token


class FakeClock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


def bearer(token):
    return f"Bearer {token}"


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return path


def test_new_tokens_differ_and_are_known_by_their_lines_only():
    first, line = new_token("camera-1")
    second, _ = new_token("camera-1")
    assert first != second
    assert first not in line
    assert line == f"sha256:{hashlib.sha256(first.encode()).hexdigest()} camera-1"
    store = TokenStore([line])
    assert store.check(bearer(first)) == "camera-1"
    with pytest.raises(UnauthorizedError):
        store.check(bearer(second))


def test_a_name_has_to_fit_on_the_line():
    with pytest.raises(OptionError):
        new_token("two words")
    with pytest.raises(OptionError):
        new_token("line\nsha256:")


def test_a_token_without_a_name_gets_one_of_its_hash():
    token, line = new_token()
    name = TokenStore([line]).check(bearer(token))
    assert name == f"token-{line[7:15]}"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "bearer\u00e9",
        "Bearer \u00e9\udce9",
        "Bearer x y",
    ],
)
def test_whatever_is_no_token_is_refused(header):
    _, line = new_token()
    with pytest.raises(UnauthorizedError):
        TokenStore([line]).check(header)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_refused_and_nothing_else_goes_wrong(text):
    _, line = new_token()
    with pytest.raises(UnauthorizedError):
        TokenStore([line]).check(text)


def test_the_scheme_is_not_case_sensitive():
    token, line = new_token("me")
    assert TokenStore([line]).check(f"bEARER  {token} ") == "me"


def test_a_store_without_tokens_lets_nobody_in():
    with pytest.raises(UnauthorizedError):
        TokenStore().check(bearer(new_token()[0]))


def test_a_file_has_comments_and_blank_lines(tmp_path):
    (one, one_line), (two, two_line) = new_token("one"), new_token("two")
    path = write(tmp_path / "tokens", "# ours", one_line, "", f"  {two_line}  # of the camera")
    store = TokenStore.from_file(path)
    assert len(store) == 2
    assert store.check(bearer(one)) == "one"
    assert store.check(bearer(two)) == "two"


def test_a_file_is_read_again_when_it_changed_and_looked_at_once_a_second(tmp_path):
    clock = FakeClock()
    (old, old_line), (new, new_line) = new_token("old"), new_token("new")
    path = write(tmp_path / "tokens", old_line)
    store = TokenStore.from_file(path, clock=clock)
    write(path, new_line, "")
    clock.now_s += 0.9
    assert store.check(bearer(old)) == "old"
    clock.now_s += 0.2
    assert store.check(bearer(new)) == "new"
    with pytest.raises(UnauthorizedError):
        store.check(bearer(old))


def test_a_file_that_did_not_change_is_not_read_again(tmp_path, monkeypatch):
    clock = FakeClock()
    token, line = new_token("me")
    store = TokenStore.from_file(write(tmp_path / "tokens", line), clock=clock)
    monkeypatch.setattr(TokenStore, "_read", lambda *_: pytest.fail("read"))
    clock.now_s += 5
    assert store.check(bearer(token)) == "me"


def test_a_line_broken_later_costs_only_its_own_token(tmp_path, caplog):
    clock = FakeClock()
    (one, one_line), (two, two_line) = new_token("one"), new_token("two")
    path = write(tmp_path / "tokens", one_line, two_line)
    store = TokenStore.from_file(path, clock=clock)
    write(path, one_line, "oops")
    clock.now_s += 2
    assert store.check(bearer(one)) == "one"
    with pytest.raises(UnauthorizedError):
        store.check(bearer(two))
    assert "line(s) 2" in caplog.text
    assert "oops" not in caplog.text


def test_a_file_that_goes_away_takes_its_tokens_along_and_brings_them_back(tmp_path, caplog):
    clock = FakeClock()
    token, line = new_token("me")
    path = write(tmp_path / "tokens", line)
    store = TokenStore.from_file(path, clock=clock)
    path.unlink()
    for _ in range(3):
        clock.now_s += 2
        with pytest.raises(UnauthorizedError):
            store.check(bearer(token))
    assert caplog.text.count("no token of the file") == 1
    write(path, line)
    clock.now_s += 2
    assert store.check(bearer(token)) == "me"


def test_a_file_that_everybody_may_write_to_is_refused(tmp_path):
    clock = FakeClock()
    token, line = new_token("me")
    path = write(tmp_path / "tokens", line)
    store = TokenStore.from_file(path, clock=clock)
    path.chmod(0o602)
    with pytest.raises(InputFileError, match="chmod o-w"):
        TokenStore.from_file(path)
    clock.now_s += 2
    with pytest.raises(UnauthorizedError):
        store.check(bearer(token))


def test_a_bad_file_is_refused_at_the_start_without_showing_what_is_in_it(tmp_path):
    token, line = new_token("me")
    with pytest.raises(InputFileError, match="line 2") as caught:
        TokenStore.from_file(write(tmp_path / "tokens", line, token))
    assert token not in str(caught.value)
    with pytest.raises(InputFileError):
        TokenStore.from_file(tmp_path / "missing")
    with pytest.raises(InputFileError):
        TokenStore.from_file(tmp_path)
    (tmp_path / "binary").write_bytes(os.urandom(100))
    with pytest.raises(InputFileError):
        TokenStore.from_file(tmp_path / "binary")
    (tmp_path / "large").write_bytes(b"#" * 2_000_000)
    with pytest.raises(InputFileError, match="1,048,576"):
        TokenStore.from_file(tmp_path / "large")


def test_the_environment_has_hashes_or_a_token():
    (one, one_line), (two, two_line) = new_token("one"), new_token("two")
    store = TokenStore.from_env({"ATRIVA_TOKEN_HASHES": f"{one_line},{two_line}"})
    assert store.check(bearer(one)) == "one"
    assert store.check(bearer(two)) == "two"
    store = TokenStore.from_env({"ATRIVA_TOKEN": one})
    assert store.check(bearer(one)) == "ATRIVA_TOKEN"
    assert len(TokenStore.from_env({})) == 0


@pytest.mark.parametrize("token", ["password", "with a blank in its middle", "\u00e9" * 20])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token):
    with pytest.raises(OptionError) as caught:
        TokenStore.from_env({"ATRIVA_TOKEN": token})
    assert token not in str(caught.value)


def test_tokens_show_nowhere(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    token, line = new_token("me")
    store = TokenStore.from_file(write(tmp_path / "tokens", line))
    with pytest.raises(UnauthorizedError) as caught:
        store.check(bearer(token + "x"))
    shown = f"{store!r} {caught.value!r} {caught.value} {caplog.text}"
    assert token not in shown
    assert line[7:] not in shown
    assert repr(store) == f"TokenStore(1 tokens, file {str(tmp_path / 'tokens')!r})"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "::ffff:127.0.0.1"]
)
def test_on_loopback_tokens_are_optional(host):
    assert not are_tokens_required(host, None)
    assert not are_tokens_required(host, TokenStore())
    assert are_tokens_required(host, TokenStore([new_token()[1]]))


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "", "192.168.1.5", "example.org", "127.0.0.1.example.org", "0"],  # noqa: S104
)
def test_off_loopback_a_server_without_tokens_has_to_be_asked_for(host):
    with pytest.raises(OptionError, match="--insecure"):
        are_tokens_required(host, TokenStore())
    assert not are_tokens_required(host, None, is_insecure=True)
    store = TokenStore([new_token()[1]])
    assert are_tokens_required(host, store)
    assert are_tokens_required(host, store, is_insecure=True)
