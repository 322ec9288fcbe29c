"""Checks within seconds, without wandb's own retries, whether a W&B server can be used."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

PROBE_SECONDS = 4.0
PATIENCE_SECONDS = 1.0  # between two checks whether the server still answers
_QUERY = json.dumps({"query": "query Viewer { viewer { id entity } }"}).encode()
_LONGEST_ANSWER = 1_000_000

T = TypeVar("T")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a redirected query would lose its key or its body."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow no redirect."""


@dataclass(frozen=True)
class Server:
    """A W&B server and how to reach it.

    Attributes:
        address: Base URL, without a slash at the end.
        key: API key; None: another kind of credentials, which only wandb can use.
        headers: Sent with every request.
        proxies: Scheme to proxy; these go before the environment variables of that name.
        checks_certificate: Whether the server's certificate is verified.
    """

    address: str
    key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxies: Mapping[str, str] = field(default_factory=dict)
    checks_certificate: bool = True

    def why_unusable(self, seconds: float | None = None) -> str | None:
        """Query the owner of the key, and return why that fails; None: it works.

        All of it, looking up names included, takes so many seconds at most; None: a few.
        """
        seconds = PROBE_SECONDS if seconds is None else seconds
        try:
            reason = in_time(self._ask, seconds)
        except TimeoutError:
            reason = f"has not answered within {seconds:g} s"
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = f"does not answer ({getattr(error, 'reason', None) or error})"
        return None if reason is None else _printable(f"{self.address} {reason}")

    def _ask(self) -> str | None:
        headers = {"Content-Type": "application/json", "User-Agent": "qspinn", **self.headers}
        if self.key is not None:
            text = base64.b64encode(f"api:{self.key}".encode()).decode()
            headers["Authorization"] = f"Basic {text}"
        request = urllib.request.Request(f"{self.address}/graphql", _QUERY, headers)
        try:
            with self._opener().open(request, timeout=PROBE_SECONDS) as answer:
                data = answer.read(_LONGEST_ANSWER)
        except urllib.error.HTTPError as error:
            with error:
                return self._why_not(error)
        try:
            viewer = json.loads(data)["data"]["viewer"]
        except (ValueError, LookupError, TypeError):
            return "does not answer as a W&B server does (is a login page or a proxy in between?)"
        accepts = self.key is None or isinstance(viewer, dict)
        return None if accepts else "does not accept the API key"

    def _why_not(self, error: urllib.error.HTTPError) -> str | None:
        if error.code in (401, 403):
            return None if self.key is None else f"does not accept the API key ({error.code})"
        if 300 <= error.code < 400:
            return (
                f"redirects to {error.headers.get('Location')}; set WANDB_BASE_URL to that server"
            )
        return f"answers with the error {error.code}"

    def _opener(self) -> urllib.request.OpenerDirector:
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if self.proxies:
            proxies = {**urllib.request.getproxies(), **self.proxies}
            handlers.append(urllib.request.ProxyHandler(proxies))
        if not self.checks_certificate:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            handlers.append(urllib.request.HTTPSHandler(context=context))
        return urllib.request.build_opener(*handlers)


def in_background(function: Callable[[], T]) -> Future[T]:
    """Call a function in a thread that ends with the process."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


def in_time(function: Callable[[], T], seconds: float) -> T:
    """Return what a function returns, or raise what it raises.

    Raises:
        TimeoutError: It has not ended within these seconds; it continues in its thread.
    """
    return in_background(function).result(seconds)


def uploaded(
    upload: Callable[[], object], server: Server | None, seconds: float, known: str | None = None
) -> str | None:
    """Wait for an upload as long as its server can be used.

    Args:
        upload: Ends when all is uploaded.
        server: Asked every few seconds; two failures in a row end the waiting. None: not asked.
        seconds: How long to wait at most.
        known: Why the server cannot be used, if that is known; then the wait is short.

    Returns:
        Why it failed or was abandoned; None: it is done. An abandoned upload continues.
    """
    end = time.monotonic() + seconds
    work, failures = in_background(upload), 0
    while True:
        with suppress(TimeoutError):
            error = work.exception(PATIENCE_SECONDS)
            return None if error is None else f"the upload failed ({_printable(repr(error))})"
        if known is not None:
            return known
        why = None if server is None else server.why_unusable()
        failures = 0 if why is None else failures + 1
        if why is not None and failures == 2:
            return why
        if time.monotonic() > end:
            return f"the upload has not ended after {seconds:g} s"


def _printable(text: str) -> str:
    """The answer of a server as one line without control characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)[:300]
