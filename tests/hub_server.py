"""A small Hub on the loopback address that misbehaves on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

#: Files of these endings are listed by their sha256, as large ones are on the Hub; the others by git's sha1.
LARGE = (".safetensors", ".bin")


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Repo:
    """A repository: commits in order, each a whole set of files; branches and tags by name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: str | None = None  # the token that may read it
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        content = json.dumps(sorted((k, git_blob(v)) for k, v in files.items())) + str(len(self.commits))
        sha = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    """What goes wrong for requests whose path matches.

    A status, the name of a misbehaviour, ``to:`` and the address that it leads to, or ``says:`` and the answer's body.
    """

    pattern: str
    what: int | str
    method: str | None = None
    code: str | None = None  # X-Error-Code
    times: int = 10**9


class Hub:
    """The server. Use it as a context manager; ``endpoint`` is its address."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str, str | None]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.stall = 30.0

    def repo(self, name: str, files: Mapping[str, bytes]) -> Repo:
        found = self.repos.setdefault(name, Repo())
        found.commit(files)
        return found

    def fault(self, path: str, method: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, path) and fault.method in (None, method):
                fault.times -= 1
                return fault
        return None

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stall = 0.0
        self._server.shutdown()
        self._server.server_close()


def closed_port() -> str:
    """An address that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        # -- answers -----------------------------------------------------------------------------------------------

        def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            given = {"Content-Length": str(len(body)), **(headers or {})}
            for name, value in given.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, data: Any, status: int = 200) -> None:
            self.answer(status, json.dumps(data).encode(), {"Content-Type": "application/json"})

        def error(self, status: int, code: str | None = None) -> None:
            self.answer(status, b"{}", {"X-Error-Code": code} if code else {})

        def misbehave(self, fault: Fault, content: bytes, headers: dict[str, str]) -> bool:
            """True when the fault has answered."""
            if isinstance(fault.what, int):
                self.error(fault.what, fault.code)
            elif fault.what == "loop":
                self.answer(302, b"", {"Location": self.path})
            elif fault.what.startswith("says:"):
                self.answer(200, fault.what.removeprefix("says:").encode(), {"Content-Type": "application/json"})
            elif fault.what.startswith("to:"):
                self.answer(302, b"", {"Location": fault.what.removeprefix("to:") + self.path, **headers})
            elif fault.what == "redirect":
                self.answer(307, b"", {"Location": self.path.replace("/resolve/", "/moved/resolve/"), **headers})
            elif fault.what == "stall":
                until = time.monotonic() + hub.stall
                while hub.stall and time.monotonic() < until:
                    time.sleep(0.02)
                self.close_connection = True
            elif fault.what == "reset":
                # An RST instead of the usual goodbye.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
            elif fault.what == "html":
                page = b"<html><body>Please log in to this network</body></html>"
                self.answer(200, page, {"Content-Type": "text/html"})
            elif self.command == "HEAD":
                return False
            elif fault.what == "short":
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                self.close_connection = True
            elif fault.what == "long":
                self.answer(200, content + b"more", headers | {"Content-Length": str(len(content) + 4)})
            elif fault.what == "corrupt":
                self.answer(200, bytes([content[0] ^ 1]) + content[1:], headers)
            elif fault.what == "samesize":
                page = b"<html>Please log in</html>"
                self.answer(200, (page * (len(content) // len(page) + 1))[: len(content)], headers)
            else:
                return False
            return True

        # -- requests ----------------------------------------------------------------------------------------------

        def allowed(self, repo: Repo | None) -> bool:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if repo is None or (repo.private is not None and token != repo.private and not token):
                self.error(401 if repo is not None or not token else 404, "RepoNotFound")
            elif repo.private is not None and token != repo.private:
                self.error(404, "RepoNotFound")
            elif repo.gated:
                self.error(403 if token else 401, "GatedRepo")
            else:
                return True
            return False

        def serve(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.log.append((self.command, path, self.headers.get("Authorization")))
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length) if length else b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self._chunks()
            fault = hub.fault(path, self.command)
            if found := re.fullmatch(r"/([^/]+/[^/]+)(/moved)?/resolve/(refs/\w+/[^/]+|[^/]+)/(.+)", path):
                self.resolve(found[1], found[3], found[4], fault)
            elif fault and self.misbehave(fault, b"{}", {}):
                return
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/(.+))?", path):
                self.info(found[1], found[3] or "main")
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
                self.tree(found[1], found[2])
            elif path == "/api/repos/create":
                wanted = json.loads(body)
                name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                if name in hub.repos:
                    self.json({"error": "exists", "url": f"{hub.endpoint}/{name}"}, 409)
                    return
                sender = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
                hidden = wanted.get("private") or wanted.get("visibility") == "private"
                hub.repos[name] = Repo(private=sender if hidden else None)
                hub.repos[name].commit({".gitattributes": b""})
                self.json({"url": f"{hub.endpoint}/{name}", "name": name})
            elif path == "/api/validate-yaml":
                self.json({"errors": [], "warnings": []})
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
                files = json.loads(body)["files"]
                listed = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
                self.json({"files": listed})
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
                self.commit(found[1], found[2], body)
            elif path == "/api/whoami-v2":
                self.json({"name": "me", "type": "user", "orgs": []})
            else:
                self.error(404)

        def _chunks(self) -> bytes:
            out = b""
            while size := int(self.rfile.readline(), 16):
                out += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return out

        def info(self, name: str, revision: str) -> None:
            repo = hub.repos.get(name)
            if not self.allowed(repo) or repo is None:
                return
            commit = repo.resolve(revision)
            if commit is None:
                self.error(404, "RevisionNotFound")
                return
            siblings = []
            for file, content in repo.commits[commit].items():
                entry: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": git_blob(content)}
                if file.endswith(LARGE):
                    sha = hashlib.sha256(content).hexdigest()
                    entry["lfs"] = {"sha256": sha, "size": len(content), "pointerSize": 130}
                siblings.append(entry)
            self.json({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "private": False, "tags": []})

        def tree(self, name: str, revision: str) -> None:
            repo = hub.repos.get(name)
            if not self.allowed(repo) or repo is None:
                return
            content = repo.commits[repo.resolve(revision) or ""]
            self.json([{"type": "file", "path": k, "size": len(v), "oid": git_blob(v)} for k, v in content.items()])

        def resolve(self, name: str, revision: str, file: str, fault: Fault | None) -> None:
            repo = hub.repos.get(name)
            if fault is None or not isinstance(fault.what, int):
                if not self.allowed(repo) or repo is None:
                    return
            elif repo is None:
                self.error(fault.what, fault.code)
                return
            commit = repo.resolve(revision)
            if commit is None:
                self.error(404, "RevisionNotFound")
                return
            content = repo.commits[commit].get(file)
            if content is None:
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
                return
            large = file.endswith(LARGE)
            etag = hashlib.sha256(content).hexdigest() if large else git_blob(content)
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            if fault and self.misbehave(fault, content, headers):
                return
            begin = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if begin:
                part = content[int(begin[1]) :]
                span = f"bytes {begin[1]}-{len(content) - 1}/{len(content)}"
                self.answer(206, part, {**headers, "Content-Range": span})
            else:
                self.answer(200, content, headers)

        def commit(self, name: str, revision: str, body: bytes) -> None:
            repo = hub.repos.get(name)
            if repo is None:
                self.error(404, "RepoNotFound")
                return
            pull = parse_qs(urlsplit(self.path).query).get("create_pr") == ["1"]
            base = repo.resolve(revision)
            files = dict(repo.commits[base]) if base else {}
            for line in body.decode().splitlines():
                record = json.loads(line)
                if record["key"] == "file":
                    files[record["value"]["path"]] = base64.b64decode(record["value"]["content"])
                elif record["key"] == "deletedFile":
                    files.pop(record["value"]["path"], None)
            branch = f"refs/pr/{len(repo.refs)}" if pull else revision
            sha = repo.commit(files, branch)
            answer = {"commitUrl": f"{hub.endpoint}/{name}/commit/{sha}", "commitOid": sha, "hookOutput": ""}
            if pull:
                answer["pullRequestUrl"] = f"{hub.endpoint}/{name}/discussions/{len(repo.refs) - 1}"
            self.json(answer)

        do_GET = do_HEAD = do_POST = serve  # noqa: N815

    return Handler
