"""The live page's server: Python's own, on this machine only, and only for those who have the address.

The page requests its next frame when it has received this one, so one answer for each request over a persistent
connection is enough. A framework, or WebSockets, would add a dependency without a benefit.

Other pages in the same browser must not reach the server. The address therefore contains a secret, Host must be this
machine's own name (which stops DNS rebinding), and Origin, if present, must be the page's own.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import sys
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vidcvae import reading
from vidcvae.data.images import PICTURE_SUFFIXES
from vidcvae.errors import DataError, VidcvaeError, typed
from vidcvae.output import templates
from vidcvae.output.session import Session

HOST = "127.0.0.1"
PORTS = range(8317, 8337)  # tried in turn unless --port is given, so that an open page finds a new server
MOST_JSON, MOST_PICTURE = 1 << 16, 32 << 20  # the largest messages, in bytes
_TYPES = {".gif": "image/gif", ".mp4": "video/mp4"}


class Server(ThreadingHTTPServer):
    """Serves one session until ``shutdown``. ``address`` is the address of the page, with the secret."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, session: Session, secret: str, port: int | None = None) -> None:
        self.session, self.secret = session, secret
        for number in PORTS if port is None else [port]:
            try:
                super().__init__((HOST, number), _Handler)
                break
            except OSError as error:
                refused = error
        else:
            raise DataError(
                f"cannot serve on port {port or PORTS[0]}: {refused.strerror}.",
                f"Choose another one: {typed('play', '--port', 0)} takes any free port.",
            )
        self.names = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}
        self.number = secrets.token_hex(8)  # a different number tells an open page that this is a new server

    @property
    def address(self) -> str:
        return address(self.secret, self.server_port)

    def server_bind(self) -> None:
        if sys.platform == "win32":  # SO_REUSEADDR would let two servers share a port
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:  # otherwise the port would stay taken for a while after its server has ended
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of a fault, but not if the browser closed the connection."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 600  # seconds until an idle connection is closed
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""

    def version_string(self) -> str:
        return "vidcvae"

    def do_GET(self) -> None:
        match self._path():
            case None:
                return
            case "":
                content = page(self.server.session, self.server.number).encode()
                self._send(HTTPStatus.OK, content, "text/html; charset=utf-8")
            case "status":
                self._send_json(HTTPStatus.OK, {**self.server.session.status(), "server": self.server.number})
            case name if name in self.server.session.made:
                path = self.server.session.made[name]
                try:
                    content = reading.read_bytes(path)
                except OSError:
                    return self._refuse(HTTPStatus.NOT_FOUND, f"{path} is no longer there.")
                self._send(HTTPStatus.OK, content, _TYPES[path.suffix], name)
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def do_POST(self) -> None:
        kind = self._path()
        if kind is None:
            return
        most = MOST_PICTURE if kind == "picture" else MOST_JSON
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()) or "Transfer-Encoding" in self.headers:
            return self._refuse(HTTPStatus.LENGTH_REQUIRED, "This message has no Content-Length.")
        if len(length) > 12 or int(length) > most:
            return self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A message may have at most {most:,} bytes.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return self._refuse(HTTPStatus.BAD_REQUEST, "This message is cut off.")
        try:
            answer = self.server.session.answer(kind, body)
        except VidcvaeError as error:
            return self._send_json(HTTPStatus.BAD_REQUEST, {"error": str(error).replace("\n ", "")})
        except Exception as error:
            traceback.print_exc()
            fault = f"This is a fault of vidcvae: {type(error).__name__}."
            if isinstance(error, OSError):  # such as a full disk
                fault = f"This did not work: {error.strerror or error}."
            return self._send_json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": fault})
        self._send(HTTPStatus.OK, answer, "application/octet-stream")

    def _path(self) -> str | None:
        """The part of the path after the secret; None if the request has been refused."""
        names, origins = self.server.names, {None, *(f"http://{name}" for name in self.server.names)}
        at_home = self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
        secret, _, rest = self.path.lstrip("/").partition("/")
        if self.headers.get("Host") not in names:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This server answers only to 127.0.0.1 and localhost.")
        elif self.headers.get("Origin") not in origins or not at_home:
            self._refuse(HTTPStatus.FORBIDDEN, "Requests from other pages are refused.")
        elif not hmac.compare_digest(secret.encode(), self.server.secret.encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")
        else:
            return rest
        return None

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        """Refuse in one sentence, and close the connection: the rest of the request has not been read."""
        self.close_connection = True
        self._send_json(status, {"error": text})

    def _send_json(self, status: HTTPStatus, table: dict[str, Any]) -> None:
        self._send(status, json.dumps(table).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, download: str = "") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "X-Frame-Options": "DENY",
            **({"Connection": "close"} if self.close_connection else {}),
            **({"Content-Disposition": f'attachment; filename="{download}"'} if download else {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def address(secret: str, port: int) -> str:
    return f"http://{HOST}:{port}/{secret}/"


def free_port() -> int:
    """The port that a server started now would use."""
    for number in (*PORTS, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(sys.platform != "win32"))
            probe.bind((HOST, number))
            return int(probe.getsockname()[1])
    return PORTS[0]


def page(session: Session, number: str) -> str:
    """The page as HTML. Its script and style are allowed by hash; it may send requests to its own server only."""
    style, script = templates.source("play.css"), templates.source("play.js")
    return templates.render(
        "play.html.j2",
        about={**session.about(), "server": number, "most_picture": MOST_PICTURE},
        style=style,
        script=script,
        style_hash=templates.digest(style),
        script_hash=templates.digest(script),
        suffixes=",".join(PICTURE_SUFFIXES),
    )
