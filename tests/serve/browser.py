"""A real browser without a window, told what to do over its debugging port."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from websocket import create_connection

from tests.cluster.tools import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


class Page:
    """One page of the browser."""

    def __init__(self, address: str) -> None:
        self._socket = create_connection(address, timeout=30, suppress_origin=True)
        self._numbers = itertools.count(1)
        self.messages: list[str] = []
        for domain in ("Page", "DOM", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        """Run a command of the debugging protocol and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.messages.append(json.dumps(message["params"]))
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        wait_until(lambda: self.value("document.readyState") == "complete", timeout_s=30)

    def value(self, expression: str):
        """Return what a script evaluates to."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return result["result"].get("value")

    def choose_file(self, selector: str, path: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=found, files=[str(path)])

    def close(self) -> None:
        self._socket.close()


@contextmanager
def browser(folder: Path):
    """A page of a browser that ends with the block."""
    profile = folder / "profile"
    process = subprocess.Popen(
        [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        note = profile / "DevToolsActivePort"
        wait_until(lambda: note.exists() and len(note.read_text().splitlines()) == 2, timeout_s=60)
        port = note.read_text().splitlines()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            listing = json.load(answer)
        page = Page(
            next(each for each in listing if each["type"] == "page")["webSocketDebuggerUrl"]
        )
        yield page
        page.close()
    finally:
        process.terminate()
        process.wait(20)
