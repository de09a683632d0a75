"""Artefacts behind a URL: HTTP with ranges, of the standard library.

The only module of this package that opens connections, and only to the host of the URL that was
given: no redirect is followed, no proxy asked, nothing sent but the path. What comes is untrusted;
whoever asked compares digests.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlsplit

from ..errors import DeviceError, FormatError

TIMEOUT_S = 30.0
_BLOCK_BYTES = 1 << 20
_TRIES = 2  # a kept connection may have been closed by the other side


class RemoteReader:
    """url: of the directory. DeviceError where the host does not answer: what came before stays."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url, self._base = url, parts.path.rstrip("/")
        self._host, self._is_https = parts.netloc.rpartition("@")[2], parts.scheme == "https"
        self._connection: http.client.HTTPConnection | None = None

    def read(self, path: str, most: int) -> bytes:
        with self._answer(path, None) as answer:
            data = answer.read(most + 1)
            if len(data) <= most:
                _check_end(answer)
        if len(data) > most:
            raise FormatError(f"{self._url}: {path}: larger than {most} bytes", "json_too_large")
        return data

    def stream(self, path: str, offset: int, n_bytes: int) -> Iterator[bytes]:
        if not n_bytes:
            return
        with self._answer(path, (offset, offset + n_bytes - 1)) as answer:
            if answer.status == 200:
                _skip(answer, offset)  # a server without ranges sends all of it
            while n_bytes and (block := answer.read(min(n_bytes, _BLOCK_BYTES))):
                n_bytes -= len(block)
                yield block
            if n_bytes:
                _check_end(answer)

    def close(self) -> None:
        """Of the connection; the next request makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _answer(
        self, path: str, span: tuple[int, int] | None
    ) -> Iterator[http.client.HTTPResponse]:
        where = f"{self._url}: {path}"
        try:
            answer = self._request(path, span)
            self._check(answer, where, span)
            yield answer
            if not answer.isclosed():
                self.close()  # there is more than was wanted
        except (OSError, http.client.HTTPException) as error:
            self.close()
            message = f"{where}: no answer ({error or type(error).__name__}); try again"
            raise DeviceError(message, code="hub_unreachable") from error
        except BaseException:
            self.close()
            raise

    def _request(self, path: str, span: tuple[int, int] | None) -> http.client.HTTPResponse:
        headers = {"Accept-Encoding": "identity"}
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1]}"
        for left in reversed(range(_TRIES)):
            is_kept = self._connection is not None
            connection = self._connection = self._connection or self._connect()
            try:
                connection.request("GET", quote(f"{self._base}/{path}"), headers=headers)
                return connection.getresponse()
            except (ConnectionError, http.client.RemoteDisconnected):
                self.close()
                if not is_kept or not left:
                    raise
        raise AssertionError

    def _check(
        self, answer: http.client.HTTPResponse, where: str, span: tuple[int, int] | None
    ) -> None:
        if answer.status == 404:
            answer.read()
            raise FormatError(f"{where}: no such file", code="file_not_found")
        if answer.status == 206 and span is not None:
            told = answer.headers.get("Content-Range", "")
            if told.startswith(f"bytes {span[0]}-"):
                return
            raise DeviceError(f"{where}: the server sends another range", code="hub_failed")
        if answer.status != 200:
            message = f"{where}: answered {answer.status}; redirects are not followed"
            raise DeviceError(message, code="hub_failed")

    def _connect(self) -> http.client.HTTPConnection:
        if self._is_https:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(self._host, timeout=TIMEOUT_S, context=context)
        return http.client.HTTPConnection(self._host, timeout=TIMEOUT_S)


def _check_end(answer: http.client.HTTPResponse) -> None:
    """Nothing came any more: an error if more was announced."""
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)


def _skip(answer: http.client.HTTPResponse, n_bytes: int) -> None:
    while n_bytes:
        block = answer.read(min(n_bytes, _BLOCK_BYTES))
        if not block:
            return
        n_bytes -= len(block)
