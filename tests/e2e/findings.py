"""Whether bytes hold a text, however it was wrapped."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{24,}")
_HEX: Final = re.compile(rb"(?:[0-9a-f]{2}){24,}", re.IGNORECASE)
_CHUNK_HEAD: Final = re.compile(rb"\r\n[0-9a-f]{1,8}\r\n")
# First bytes of zlib and gzip streams; 47 has zlib tell them apart.
_PRESSED: Final = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")
_EITHER: Final = 47
_MOST_INFLATED: Final = 1 << 20
_LEAST: Final = 8
_STEP: Final = 64


def forms_of(needle: bytes) -> set[bytes]:
    """A text as it would stand in files, frames and answers."""
    found = {needle, needle.hex().encode(), needle.hex().upper().encode()}
    for shift in range(3):
        # Other bytes may come before and after: only digits that the needle alone decides are looked for.
        digits = base64.b64encode(bytes(shift) + needle)
        inner = digits[(shift * 8 + 5) // 6 : (shift + len(needle)) * 8 // 6]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    try:
        text = needle.decode()
    except UnicodeDecodeError:
        return found
    once = json.dumps(text)[1:-1]
    written = [
        once,
        json.dumps(once)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        urllib.parse.quote(text),
    ]
    found |= {form.encode() for form in written}
    found |= {text.encode("utf-16-le"), text.encode("utf-16-be")}
    return found


def layers_of(data: bytes) -> list[bytes]:
    """The bytes, and what is inside them: chunked bodies joined, base64, hex and compressed parts opened."""
    outer = [data, _CHUNK_HEAD.sub(b"", data)]
    inner = [_decoded(data), b"\0".join(bytes.fromhex(part.decode()) for part in _HEX.findall(data))]
    return [*outer, *inner, *(_inflated(layer) for layer in [data, *inner])]


def found_in(needles: Mapping[str, Iterable[bytes]], layers: Iterable[bytes]) -> set[str]:
    """Names of the needles of which some form is in some layer."""
    looked_in = list(layers)
    forms = {name: {form for text in texts for form in forms_of(text)} for name, texts in needles.items()}
    short = [name for name, wanted in forms.items() if min(map(len, wanted), default=0) < _LEAST]
    assert short == [], "too short to be looked for"
    return {name for name, wanted in forms.items() if any(f in layer for layer in looked_in for f in wanted)}


def files_below(*folders: Path) -> bytes:
    """All bytes of all files of these folders, journals and free pages too."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    return b"\0".join(path.read_bytes() for path in paths)


def _decoded(data: bytes) -> bytes:
    parts = []
    for part in _BASE64.findall(data):
        digits = part.replace(b"-", b"+").replace(b"_", b"/")
        # Where the text began cannot be told from the digits: every place is tried, the last ones filled up.
        parts += [base64.b64decode(digits[start:] + b"A" * (-len(digits[start:]) % 4)) for start in range(4)]
    return b"\0".join(parts)


def _inflated(data: bytes) -> bytes:
    return b"\0".join(_stream(data[start.start() :][:_MOST_INFLATED]) for start in _PRESSED.finditer(data))


def _stream(data: bytes) -> bytes:
    """As much of a compressed stream as there is before its end, or before it turns out to be none."""
    found, reader = b"", zlib.decompressobj(_EITHER)
    try:
        for start in range(0, len(data), _STEP):
            found += reader.decompress(data[start : start + _STEP], _MOST_INFLATED)
            if reader.eof:
                break
    except zlib.error:
        return found
    return found
