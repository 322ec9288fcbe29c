"""A W&B server on this machine: as much of its protocol as its client needs to log a run.

Runs, histories, summaries and artifacts are kept in memory. The server can also refuse, fail and
hang, from the start or from any moment on.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODES = ("answer", "refuse", "fail", "hang", "stall", "nonsense", "web page", "redirect")
KEY = "a" * 40


@dataclass
class StoredRun:
    """What the server knows of one run."""

    values: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The configuration as the user gave it."""
        logged = json.loads(self.values.get("config") or "{}")
        return {name: entry["value"] for name, entry in logged.items() if name != "_wandb"}

    @property
    def settings(self) -> dict[str, Any]:
        """What W&B's client says of itself, the defined metrics among it."""
        return json.loads(self.values.get("config") or "{}").get("_wandb", {}).get("value", {})


class LoopbackServer:
    """The state of the server.

    Attributes:
        mode: One of `MODES`; may be changed at any time.
        runs: Name (the id in the client's words) to run.
        artifacts: Name of the sequence to the paths of its files.
        deleted: Names of runs that their owner has deleted.
        uploads: Path to bytes of each file that was sent.
        asked: The operations asked for, in order.
    """

    def __init__(self, mode: str = "answer") -> None:
        self.mode = mode
        self.runs: dict[str, StoredRun] = {}
        self.artifacts: dict[str, list[str]] = {}
        self.uploads: dict[str, bytes] = {}
        self.deleted: set[str] = set()
        self.asked: list[str] = []
        self.address = ""
        self.lock = threading.Lock()
        self.closing = threading.Event()

    # --- GraphQL ----------------------------------------------------------------------------

    def answer(self, query: str, values: dict[str, Any]) -> dict[str, Any] | None:
        """Return the data of one operation; None: it is not known."""
        found = re.match(r"\s*(?:query|mutation)\s+(\w+)", query)
        name = found.group(1) if found else "viewer"
        with self.lock:
            self.asked.append(name)
            method = getattr(self, f"_do_{name}", None)
            if method is not None:
                return method(values)
        if "viewer" in query:
            return self._do_Viewer(values)
        return None

    def _do_Viewer(self, values: dict[str, Any]) -> dict[str, Any]:
        del values
        about = {"id": "VXNlcjox", "entity": "me", "username": "me", "email": "me@example.org"}
        return {"viewer": {**about, "flags": "{}", "teams": {"edges": []}}}

    def _do_ServerFeaturesQuery(self, values: dict[str, Any]) -> dict[str, Any]:
        del values
        return {"serverInfo": {"features": []}}

    def _do_RunResumeStatus(self, values: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(values["name"])
        bucket = None
        if run is not None:
            tail = [json.dumps(run.history[-1])] if run.history else []
            bucket = {
                "id": f"id-{values['name']}",
                "name": values["name"],
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.values.get("displayName"),
                "logLineCount": 0,
                "historyLineCount": len(run.history),
                "eventsLineCount": 0,
                "historyTail": json.dumps(tail),
                "eventsTail": "[]",
                "config": run.values.get("config") or "{}",
                "tags": run.values.get("tags") or [],
                "notes": run.values.get("notes"),
                "wandbConfig": '{"t": {}}',
            }
        entity = {"id": "entity", "name": "me"}
        return {"model": {"id": "p", "name": "qspinn", "entity": entity, "bucket": bucket}}

    def _do_UpsertBucket(self, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("name") or next(
            name for name in self.runs if f"id-{name}" == values.get("id")
        )
        if name in self.deleted:
            raise ConflictError(
                f"run {name} was previously created and deleted; try a new run name"
            )
        inserted = name not in self.runs
        run = self.runs.setdefault(name, StoredRun({}))
        run.values.update({key: value for key, value in values.items() if value is not None})
        project = {"id": "p", "name": "qspinn", "entity": {"id": "entity", "name": "me"}}
        bucket = {
            "id": f"id-{name}",
            "name": name,
            "displayName": run.values.get("displayName"),
            "description": None,
            "config": run.values.get("config"),
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _do_CreateRunFiles(self, values: dict[str, Any]) -> dict[str, Any]:
        files = [
            {"name": name, "uploadUrl": f"{self.address}/store/{values['run']}/{name}"}
            for name in values["files"]
        ]
        return {"createRunFiles": {"runID": "id", "uploadHeaders": [], "files": files}}

    def _do_XXHashDigestsEnabled(self, values: dict[str, Any]) -> dict[str, Any]:
        del values
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _do_FetchArtifactDigestAlgorithm(self, values: dict[str, Any]) -> dict[str, Any]:
        del values
        return {"project": None}

    def _do_ArtifactType(self, values: dict[str, Any]) -> dict[str, Any]:
        del values
        return {"project": {"artifact": None}}

    def _do_OrganizationCoreWeaveOrganizationID(self, values: dict[str, Any]) -> dict[str, Any]:
        del values
        return {"entity": {"organization": None}}

    def _do_CreateArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        name = values["input"]["artifactCollectionName"]
        self.artifacts.setdefault(name, [])
        artifact = {"id": name, "digest": values["input"]["digest"], "state": "PENDING"}
        artifact |= {"artifactSequence": {"id": f"s-{name}", "latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def _do_CreateArtifactManifest(self, values: dict[str, Any]) -> dict[str, Any]:
        return self._manifest("createArtifactManifest", values["artifactID"], values)

    def _do_UpdateArtifactManifest(self, values: dict[str, Any]) -> dict[str, Any]:
        artifact = values["artifactManifestID"].partition("/")[2]
        return self._manifest("updateArtifactManifest", artifact, values)

    def _manifest(self, name: str, artifact: str, values: dict[str, Any]) -> dict[str, Any]:
        file: dict[str, Any] = {"id": f"f-{artifact}"}
        if values.get("includeUpload"):
            url = f"{self.address}/store/{artifact}/manifest"
            file |= {"uploadUrl": url, "uploadHeaders": []}
        return {name: {"artifactManifest": {"id": f"m/{artifact}", "file": file}}}

    def _do_CreateArtifactFiles(self, values: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for spec in values["input"]["artifactFiles"]:
            artifact = spec["artifactID"]
            self.artifacts[artifact].append(spec["name"])
            place = f"{artifact}/{spec['name']}"
            node = {
                "storagePath": place,
                "uploadUrl": f"{self.address}/store/{place}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": artifact},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _do_CommitArtifact(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"commitArtifact": {"artifact": {"id": values["artifactID"], "digest": "0"}}}

    def _do_MarkRunFilesUploaded(self, values: dict[str, Any]) -> dict[str, Any]:
        del values
        return {"markRunFilesUploaded": {"success": True}}

    # --- file streams -----------------------------------------------------------------------

    def take_stream(self, name: str, sent: dict[str, Any]) -> None:
        """Take lines of a run's files; those at an offset that is there replace what is there."""
        with self.lock:
            run = self.runs[name]
            files = sent.get("files") or {}
            for place, target in (("wandb-history.jsonl", run.history),):
                if place in files:
                    offset = files[place].get("offset", 0)
                    rows = [json.loads(line) for line in files[place]["content"]]
                    target[offset : offset + len(rows)] = rows
            if "wandb-summary.json" in files:
                run.summary = json.loads(files["wandb-summary.json"]["content"][-1])
            if sent.get("complete"):
                run.exit_code = sent.get("exitcode")


class ConflictError(Exception):
    """What is answered with the status 409."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: LoopbackServer

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        """Answer, as the mode says."""
        self._handle(b"")

    def do_POST(self) -> None:
        """Answer, as the mode says."""
        self._handle(self._body())

    do_PUT = do_POST

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _handle(self, body: bytes) -> None:
        mode = self.state.mode
        if mode == "answer":
            self._answer(body)
        elif mode == "refuse":
            self._send(401, {"errors": [{"message": "user is not logged in"}]})
        elif mode == "fail":
            self._send(500, {"errors": [{"message": "out of order"}]})
        elif mode == "nonsense":
            self._send(200, ["not", {"what": "was asked"}])
        elif mode == "web page":
            self._send_bytes(200, b"<html>Welcome to this hotel's network</html>", "text/html")
        elif mode == "redirect":
            self.send_response(307)
            self.send_header("Location", f"{self.state.address}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            if mode == "stall":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.flush()
            self.state.closing.wait()
            self.close_connection = True

    def _answer(self, body: bytes) -> None:
        stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if self.path == "/graphql":
            asked = json.loads(body)
            try:
                data = self.state.answer(asked["query"], asked.get("variables") or {})
            except ConflictError as error:
                self._send(409, {"errors": [{"message": str(error)}]})
                return
            if data is None:
                self._send(400, {"errors": [{"message": "unknown operation"}]})
            else:
                self._send(200, {"data": data})
        elif stream is not None:
            self.state.take_stream(stream.group(1), json.loads(body))
            self._send(200, {"exitcode": None, "limits": {}})
        elif self.path.startswith("/store/"):
            self.state.uploads[self.path.removeprefix("/store/")] = body
            self._send(200, {})
        else:
            self._send(404, {})

    def _send(self, status: int, content: object) -> None:
        self._send_bytes(status, json.dumps(content).encode(), "application/json")

    def _send_bytes(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error."""


@contextmanager
def serving(mode: str = "answer") -> Iterator[LoopbackServer]:
    """Serve on a free port until the block is left."""
    assert mode in MODES
    state = LoopbackServer(mode)
    handler = type("Handler", (_Handler,), {"state": state})
    server = _Server(("127.0.0.1", 0), handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
