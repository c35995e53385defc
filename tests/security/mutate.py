"""Valid files, broken at random: byte by byte, or where it hurts, with the checksums made right again.

Every mutant is a function of its random generator, so that a seed and a number bring it back.
"""

from __future__ import annotations

import copy
import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

INTERESTING = (0, 1, -1, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
NUMBERS = (
    b"0", b"-0", b"-1", b"1.5", b"1e999", b"-1e400", b"nan", b"NaN", b"Infinity", b"inf", b"9" * 30, b"9" * 5000,
    b"0x7fffffff", b"1_000", b"2147483648", b"18446744073709551616", b"true", b"null", b'""', b"[]", b"{}",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, 1e308, float("nan"), float("inf"), 2**31, 2**48, 2**63, 2**64, 10**400,
    "", "x", "..", "../../etc/passwd", "/etc/passwd", "C:\\x", "a\0b", "\ud800", "\x1b[2J", "[red]", "\n", "9" * 300,
    [], [[]], [0], [-1], [2**40, 2**40], {}, {"a": 1}, [None] * 4, [[[[[[]]]]]],
)  # fmt: skip
LITERALS = (
    b"0", b"-1", b"1e400", b"-inf", b"nan", b"0x7fffffffffffffffff", b"9" * 5000, b"true", b"[]", b"[[[]]]", b"{}",
    b"{a = 1}", b'"\\u0000"', b'"\\u001b[2J"', b'"\\n"', b"'..'", b"1979-05-27", b"07:32:00", b"[-1, 2]", b"[2, 1]",
    b"1_0", b"[" * 2000 + b"]" * 2000, b'"x"', b'"auto"', b"64", b"[64, 64]", b"0.5",
)  # fmt: skip


def mutate(data: bytes, draw: random.Random, tokens: Sequence[bytes] = ()) -> bytes:
    """One to a few random changes of ``data``."""
    out = bytearray(data)
    for _ in range(min(1 + int(draw.expovariate(1)), 8)):
        _CHANGES[draw.randrange(len(_CHANGES))](out, draw, tokens)
    return bytes(out)


Change = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def _at(out: bytearray, draw: random.Random) -> int:
    return draw.randrange(len(out) + 1)


def _flip(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    if out:
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)


def _set(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    if out:
        out[draw.randrange(len(out))] = draw.randrange(256)


def _integer(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    size, at = draw.choice((1, 2, 4, 8)), _at(out, draw)
    value = draw.choice(INTERESTING) % 256**size
    out[at : at + size] = value.to_bytes(size, draw.choice(("little", "big")))


def _cut(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    del out[_at(out, draw) :]


def _delete(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    at = _at(out, draw)
    del out[at : at + draw.choice((1, 2, 4, 16, 200))]


def _insert(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    at = _at(out, draw)
    out[at:at] = draw.randbytes(draw.choice((1, 2, 8, 100)))


def _splice(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    start, at = _at(out, draw), _at(out, draw)
    part = out[start : start + draw.choice((1, 4, 32, 400))]
    if draw.random() < 0.5:
        out[at:at] = part
    else:
        out[at : at + len(part)] = part


def _repeat(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    at = _at(out, draw)
    part = bytes(out[at : at + draw.choice((1, 2, 10))])
    out[at:at] = part * draw.choice((10, 100, 3000))


def _zero(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    at = _at(out, draw)
    size = min(draw.choice((4, 64, 512)), len(out) - at)
    out[at : at + size] = bytes(size)


def _token(out: bytearray, draw: random.Random, tokens: Sequence[bytes]) -> None:
    at = _at(out, draw)
    token = draw.choice(tokens or NUMBERS)
    out[at : at + (len(token) if draw.random() < 0.5 else 0)] = token


def _number(out: bytearray, draw: random.Random, _: Sequence[bytes]) -> None:
    """Another number where one is written in digits."""
    start = _at(out, draw)
    found = re.search(rb"[0-9]+(\.[0-9]+)?", out[start : start + 5000])
    if found:
        out[start + found.start() : start + found.end()] = draw.choice(NUMBERS)


_CHANGES: tuple[Change, ...] = (
    _flip, _set, _integer, _cut, _delete, _insert, _splice, _repeat, _zero, _token, _number,
)  # fmt: skip


# --- formats ---------------------------------------------------------------------------------------


def mutate_json(text: bytes, draw: random.Random) -> bytes:
    """Another value, a key less or a level more somewhere in a JSON document."""
    tree = json.loads(text)
    for _ in range(1 + int(draw.expovariate(1))):
        places = list(_places(tree))
        if not places:
            break
        parent, key = draw.choice(places)
        match draw.randrange(5):
            case 0 if isinstance(parent, dict):
                parent[draw.choice(("", "x", "../x", "\x1b[0m", *map(str, parent)))] = parent.pop(key)
            case 1:
                del parent[key]
            case 2 if isinstance(parent, list):
                parent += [parent[key]] * draw.choice((1, 10, 100))
            case 3 if isinstance(parent[key], int):
                parent[key] += draw.choice((-1, 1, *INTERESTING))
            case _:
                parent[key] = copy.deepcopy(draw.choice(VALUES))
    return json.dumps(tree).encode()


def mutate_toml(text: bytes, draw: random.Random) -> bytes:
    """Another value, a line twice, or a line elsewhere in a TOML document."""
    lines = text.split(b"\n")
    for _ in range(1 + int(draw.expovariate(1))):
        at = draw.randrange(len(lines))
        key, equals, _value = lines[at].partition(b" = ")
        match draw.randrange(6):
            case 0:
                lines.insert(draw.randrange(len(lines)), lines[at])
            case 1:
                del lines[at : at + draw.choice((0, 1))]
                lines = lines or [b""]
            case 2 if equals:
                lines[at] = b".".join([key[:40]] * draw.choice((2, 90, 3000))) + b" = 1"
            case _ if equals:
                lines[at] = key + equals + draw.choice(LITERALS)
    return b"\n".join(lines)


def _places(tree: Any) -> Any:
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def mend_png(data: bytes) -> bytes:
    """The same chunks with right checksums, as far as there are chunks."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + size]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(out + data[at:])
