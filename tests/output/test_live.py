"""The live page's server: who may ask, and what it makes of messages that are none."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.live_runs import make_dance, serving
from tests.output.test_session import unpack
from vidcvae.errors import DataError
from vidcvae.output.live import MOST_JSON, Server
from vidcvae.workflow.play import open_session, secret_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("place")
    with serving(open_session(make_dance(place).path, place / "played", precision="float32")) as server:
        yield server


def ask(server: Server, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        line.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = line.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        line.close()


def frames(server: Server) -> int:
    return len(server.session.take.steps)


PLAY = json.dumps({"play": 1}).encode()


def test_only_who_knows_the_address_and_is_at_home_may_ask(server: Server) -> None:
    port, done = server.server_port, frames(server)
    status, page, headers = ask(server, "GET", "/a-secret/")
    assert status == 200 and b"<canvas" in page
    assert headers["X-Frame-Options"] == "DENY" and headers["Cache-Control"] == "no-store"
    refused: list[tuple[int, dict[str, str], str]] = [
        (404, {}, "/another/frame"),
        (404, {}, "/frame"),
        (404, {}, "/"),
        (403, {"Origin": "http://evil.example"}, "/a-secret/frame"),
        (403, {"Origin": f"http://evil.example:{port}"}, "/a-secret/frame"),
        (403, {"Origin": "null"}, "/a-secret/frame"),
        (403, {"Origin": f"http://127.0.0.1:{port + 1}"}, "/a-secret/frame"),
        (403, {"Sec_Fetch_Site": "cross-site"}, "/a-secret/frame"),
        (421, {"Host": "rebound.example"}, "/a-secret/frame"),
        (421, {"Host": f"rebound.example:{port}"}, "/a-secret/frame"),
        (421, {"Host": "127.0.0.1"}, "/a-secret/frame"),
    ]
    for wanted, given, path in refused:
        for method in ("POST", "GET"):
            status, body, _ = ask(server, method, path, PLAY if method == "POST" else None, **given)
            assert status == wanted, (given, path)
            assert json.loads(body)["error"].endswith(".")
            assert b"a-secret" not in body
    assert frames(server) == done, "nothing was made"
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        assert ask(server, "POST", "/a-secret/frame", PLAY, Origin=origin, Sec_Fetch_Site="same-origin")[0] == 200
    assert frames(server) == done + 2


def test_it_listens_on_this_machine_only_and_a_taken_port_is_said(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(DataError, match=f"cannot serve on port {server.server_port}"):
        Server(server.session, "x", server.server_port)


def test_messages_that_are_none_are_refused_in_a_sentence_and_change_nothing(server: Server) -> None:
    ask(server, "POST", "/a-secret/start", b"{}")
    before = unpack(server.session, ask(server, "POST", "/a-secret/frame", PLAY)[1])[1]["model"]
    done, pose = frames(server), [[1, 2]] * 25
    bad: list[tuple[str, Any]] = [
        *(("frame", text) for text in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"play": NaN}', b"[" * 60000)),
        *(("frame", {"play": value}) for value in (-1, 40, 10**12, 1.5, "1", None, True, [1])),
        *(("frame", {"pose": value}) for value in (None, [], pose[:24], [*pose, [1, 2]], [[1]] * 25, [["a", 1]] * 25)),
        *(("frame", {"pose": [*pose[:24], point]}) for point in ([1e9, 1], [float("inf"), 0], [True, 1], {}, [[1], 2])),
        *(("frame", {"play": 1, "scale": value}) for value in (-1, 11, "1", None, float("nan"))),
        *(("frame", {"play": 1, "latent": value}) for value in ("posterior", 1, None, ["zero"], {})),
        *(("frame", {"play": 1, "seed": value}) for value in (-1, 2**60, 0.5, "x")),
        *(("frame", {"play": 1, name: 1}) for name in ("beside", "nearest", "truth")),
        ("frame", {"play": 1, "pose": pose}),
        ("frame", {"action": [0, 0, 0, 0]}),
        ("frame", {"play": 1, "other": 1}),
        *(("start", {"sequence": value}) for value in (-1, 99, "0", None)),
        *(("start", {"sequence": 0, "frame": value}) for value in (-1, 40, 1e3)),
        ("save", {"kind": "exe"}),
        ("save", {}),
        ("picture", b""),
        ("picture", b"GIF89a"),
        *((kind, {}) for kind in ("", "made", "../frame", "status", "x" * 3000)),
    ]
    for kind, message in bad:
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        status, answer, _ = ask(server, "POST", f"/a-secret/{kind}", body)
        assert status == 400, (kind, message, answer)
        error = json.loads(answer)["error"]
        assert 10 < len(error) < 300 and "Traceback" not in error, error
    noise = np.random.default_rng(0)
    for _ in range(200):
        body = bytearray(json.dumps({"pose": pose, "latent": "prior", "scale": 1.0, "seed": 3}).encode())
        for at in noise.integers(0, len(body), noise.integers(1, 6)):
            body[at] = noise.integers(0, 256)
        status, answer, _ = ask(server, "POST", "/a-secret/frame", bytes(body))
        assert status in (200, 400)
        done += status == 200
    assert frames(server) == done
    ask(server, "POST", "/a-secret/start", b"{}")
    after = unpack(server.session, ask(server, "POST", "/a-secret/frame", PLAY)[1])[1]["model"]
    assert np.array_equal(before, after), "it goes on as before"


def test_messages_have_a_length_and_a_limit(server: Server) -> None:
    done = frames(server)
    assert ask(server, "POST", "/a-secret/frame", b" " * (MOST_JSON + 1))[0] == 413
    for head in (
        "Content-Length: -1",
        "Content-Length: 1e3",
        "Transfer-Encoding: chunked",
        "Content-Length: " + "9" * 40,
        "X: y",
    ):
        with socket.create_connection(("127.0.0.1", server.server_port), 20) as line:
            line.sendall(
                f"POST /a-secret/frame HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n{head}\r\n\r\n".encode()
            )
            answer = line.makefile("rb").read()  # to its end: the connection is closed
        assert answer.split()[1] in (b"411", b"413"), (head, answer)
    with socket.create_connection(("127.0.0.1", server.server_port), 20) as line:  # breaks off in the middle
        line.sendall(
            b"POST /a-secret/frame HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: 90\r\n\r\n{" % server.server_port
        )
        line.shutdown(socket.SHUT_WR)
        assert line.makefile("rb").read().split()[1] == b"400"
    assert frames(server) == done


def test_every_fault_is_answered_and_printed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as absent:
        absent.setattr("tempfile.tempdir", str(tmp_path / "absent"))
        status, answer, _ = ask(server, "POST", "/a-secret/picture", b"GIF89a")
    assert status == 500 and json.loads(answer)["error"] == "This did not work: No such file or directory."
    assert "FileNotFoundError" in capsys.readouterr().err
    monkeypatch.setattr(server.session, "_frame", lambda table: table["no"])
    status, answer, _ = ask(server, "POST", "/a-secret/frame", PLAY)
    assert status == 500 and json.loads(answer)["error"] == "This is a fault of vidcvae: KeyError."
    assert "Traceback" in capsys.readouterr().err


def test_a_connection_is_kept_for_many_frames(server: Server) -> None:
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    line.connect()
    at_first = line.sock
    for _ in range(5):
        line.request("POST", "/a-secret/frame", PLAY)
        assert line.getresponse().read()[4:5] == b"{" and line.sock is at_first
    line.close()


def test_recordings_of_this_session_alone_can_be_fetched(server: Server, tmp_path: Path) -> None:
    for path in ("/a-secret/001.gif", "/a-secret/../../etc/passwd", "/a-secret/%2e%2e/x", "/a-secret/played/001"):
        assert ask(server, "GET", path)[0] == 404
    ask(server, "POST", "/a-secret/start", b"{}")
    ask(server, "POST", "/a-secret/record", b"{}")
    ask(server, "POST", "/a-secret/frame", PLAY)
    about = unpack(server.session, ask(server, "POST", "/a-secret/save", b'{"kind": "gif"}')[1])[0]
    status, content, headers = ask(server, "GET", f"/a-secret/{about['video']}")
    assert status == 200 and content[:4] == b"GIF8" and headers["Content-Type"] == "image/gif"
    server.session.made[about["video"]].unlink()
    status, content, _ = ask(server, "GET", f"/a-secret/{about['video']}")
    assert status == 404 and b"is no longer there" in content


def test_the_secret_stays_for_a_run_and_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first = secret_of(tmp_path / "a")
    assert first == secret_of(tmp_path / "a") != secret_of(tmp_path / "b") and len(first) == 32
    key = tmp_path / "cache/vidcvae/play.key"
    assert key.stat().st_mode & 0o077 == 0
    key.unlink()
    assert secret_of(tmp_path / "a") != first
