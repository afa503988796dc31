"""A headless Chromium, driven over two pipes by its own protocol: no port is opened and no package is needed."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

#: Chromium reads its commands from descriptor 3 and writes its answers to 4.
_EXEC = (
    "import os; from sys import argv; os.dup2(int(argv[1]), 3); os.dup2(int(argv[2]), 4); os.execvp(argv[3], argv[3:])"
)


def found() -> str | None:
    """The browser's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page of a headless Chromium, and all that it asked for, said and opened since the last ``open``."""

    def __init__(self, path: str, profile: Path) -> None:
        ours = [os.pipe(), os.pipe()]
        # Well away from 3 and 4, so that neither is overwritten while they are put in place.
        child = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (ours[0][0], ours[1][1])]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _EXEC, *map(str, child), path, "--headless=new", "--no-sandbox", "--disable-gpu",
             "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
             "--disable-component-update", "--no-first-run", "--hide-scrollbars", f"--user-data-dir={profile}",
             "--remote-debugging-pipe", "about:blank"],
            pass_fds=child, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (*child, ours[0][0], ours[1][1]):
            os.close(end)
        self._to, self._from = ours[0][1], ours[1][0]
        self._buffer, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events on the way are kept."""
        self._count += 1
        self._send({"id": self._count, "method": method, "params": params})
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _send(self, message: dict[str, Any]) -> None:
        session = {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message | session).encode() + b"\0")

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._from, 1 << 16)
            if not part:
                raise RuntimeError("the browser ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
            if message["method"] == "Page.javascriptDialogOpening":
                # An alert would hold the page, and this test, for ever.
                self._send({"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}})
        return message

    def open(self, path: Path, width: int = 1200, scheme: str = "light") -> None:
        """Show a file in a window of a width, for one who prefers light or dark; waits until it is loaded."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=path.as_uri())
        limit = time.monotonic() + 60
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            if time.monotonic() > limit:
                raise RuntimeError(f"{path} was not loaded in a minute")
            self._next()
        # Two frames later all that a load sets off has begun.
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def requests(self) -> list[str]:
        """Addresses that the page asked for, itself and what it holds left out."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [address for address in asked if not address.startswith(("data:", "file:"))]

    def said(self, *methods: str) -> list[dict[str, Any]]:
        """Events of these kinds."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(RuntimeError, OSError):
            self._session = ""
            self.ask("Browser.close")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        os.close(self._to)
        os.close(self._from)


class Ear(http.server.BaseHTTPRequestHandler):
    """Notes every request; answers none with anything of use."""

    heard: list[str] = []

    def do_GET(self) -> None:
        self.heard.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, list[str]]]:
    """An address on this machine, and what was asked for there."""
    handler = type("Ear", (Ear,), {"heard": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", handler.heard
        finally:
            server.shutdown()
            thread.join()
