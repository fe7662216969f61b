"""Access control of the dashboard for reading and for changes: a token, a cookie, and the HTTP methods allowed."""

import hashlib
import hmac
import html
import ipaddress
import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

SHORTEST_TOKEN = 16
READING = ("GET", "HEAD", "OPTIONS")
COOKIE = "restune_dashboard"

Environ = dict[str, Any]
Start = Callable[..., Any]
App = Callable[[Environ, Start], Iterable[bytes]]

_ASK = """<!doctype html><html lang="en"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Token</title><style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui;margin:15vh auto;
max-width:22rem;padding:0 1rem}}input,button{{font:inherit;
padding:.4rem .6rem;width:100%;margin:.3rem 0;box-sizing:border-box}}</style>
<form action="{path}"><p>{why}</p><input type="password" name="token" aria-label="token" autofocus required>
<button>Look at the studies</button></form></html>"""


def is_loopback(host: str) -> bool:
    """True if only this machine can connect to `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


class AccessControl:
    """Lets requests through to a WSGI application.

    With a token: only requests that carry it, in the address (`?token=`, then in a cookie) or as a bearer token.
    Without: only requests whose Host header is a name of this machine; a page of another site cannot send that.
    Changes must come from the dashboard's own pages, and with `read_only` there are none.
    """

    def __init__(self, app: App, token: str | None, read_only: bool) -> None:
        self._app, self._token, self._read_only = app, token, read_only
        # The cookie proves the token without telling it.
        self._proof = hmac.digest((token or "").encode(), COOKIE.encode(), hashlib.sha256).hex()

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        if self._token is None:
            if not is_loopback(_host_name(environ)):
                return _refuse(start, HTTPStatus.FORBIDDEN, "this dashboard is for this machine only")
        else:
            query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
            offered = next((value for key, value in query if key == "token"), None)
            if offered is not None and method in READING:
                if not _same(offered, self._token):
                    return self._ask_for_token(environ, start, "This is not the token.")
                rest = urlencode([pair for pair in query if pair[0] != "token"])
                return self._redirect_with_cookie(environ, start, rest)
            if not self._has_token(environ):
                if environ.get("PATH_INFO", "").startswith("/api"):
                    return _refuse(start, HTTPStatus.UNAUTHORIZED, "a token is needed")
                return self._ask_for_token(
                    environ, start, "The token was printed where the dashboard was started."
                )
        if method not in READING:
            if self._read_only:
                headers = [("Allow", ", ".join(READING))]
                return _refuse(start, HTTPStatus.METHOD_NOT_ALLOWED, "this dashboard is read-only", headers)
            if not _from_own_page(environ):
                return _refuse(start, HTTPStatus.FORBIDDEN, "changes come from the dashboard's own pages")
        return self._app(environ, _Careful(start, environ.get("PATH_INFO", "")))

    def _has_token(self, environ: Environ) -> bool:
        assert self._token is not None
        kind, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if kind.lower() == "bearer" and _same(bearer.strip(), self._token):
            return True
        try:
            cookie = SimpleCookie(environ.get("HTTP_COOKIE", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and _same(cookie.value, self._proof)

    def _redirect_with_cookie(self, environ: Environ, start: Start, query: str) -> list[bytes]:
        """Redirect to the same page with the token in a cookie, so that it stays out of history and logs."""
        # One slash: "//host" would lead elsewhere.
        path = "/" + environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("latin-1").lstrip("/\\")
        safe = "".join(sign for sign in path if sign.isascii() and sign.isprintable())
        headers = [
            ("Location", safe + (f"?{query}" if query else "")),
            ("Set-Cookie", f"{COOKIE}={self._proof}; Path=/; HttpOnly; SameSite=Lax"),
            ("Cache-Control", "no-store"),
            ("Content-Length", "0"),
        ]
        start(_line(HTTPStatus.SEE_OTHER), headers)
        return []

    def _ask_for_token(self, environ: Environ, start: Start, why: str) -> list[bytes]:
        path = html.escape("/" + environ.get("PATH_INFO", "").lstrip("/\\"))
        body = _ASK.format(path=path, why=why).encode("utf-8", "replace")
        headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
        ]
        start(_line(HTTPStatus.UNAUTHORIZED), headers)
        return [body]


class _Careful:
    """Starts an answer with what keeps browsers from running what is a file of somebody else's, or in a frame."""

    def __init__(self, start: Start, path: str) -> None:
        self._start, self._is_file = start, path.startswith("/artifacts/")

    def __call__(self, status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        policy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:"
        more = [
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", policy if self._is_file else "frame-ancestors 'none'"),
        ]
        return self._start(status, [*headers, *more], *rest)


def _same(offered: str, expected: str) -> bool:
    """Comparison in constant time, so that the time of an answer does not show how much was right."""
    return hmac.compare_digest(offered.encode("utf-8", "surrogateescape"), expected.encode())


def _host_name(environ: Environ) -> str:
    return urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""


def _from_own_page(environ: Environ) -> bool:
    """True unless a browser says that another site's page sent this."""
    origin = environ.get("HTTP_ORIGIN")
    return origin is None or urlsplit(origin).netloc == environ.get("HTTP_HOST")


def _refuse(
    start: Start, status: HTTPStatus, reason: str, headers: Iterable[tuple[str, str]] = ()
) -> list[bytes]:
    """An answer in the form that the dashboard shows as a message."""
    body = json.dumps({"reason": reason}).encode()
    start(
        _line(status),
        [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers],
    )
    return [body]


def _line(status: HTTPStatus) -> str:
    return f"{status.value} {status.phrase}"
