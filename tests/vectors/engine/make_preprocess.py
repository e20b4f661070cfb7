"""Write `preprocess.json`: tiny pictures, what is declared, and the tensor worked out by hand.

The pictures are encoded here byte by byte (PNG specification, third edition), and the values are
literals: neither comes from the code under test. Run it from the repository's root.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

GREY, RGB, PALETTE, RGBA = 0, 2, 3, 6


def png(
    width: int, height: int, kind: int, rows: list[bytes], *, bits: int = 8, extra: bytes = b""
) -> bytes:
    """A PNG with unfiltered rows; `extra` chunks go before the data."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + data + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    """Length, type, data and CRC."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


CASES: list[dict[str, Any]] = [
    {
        "name": "grey to NCHW, scaled",
        "encoded": png(2, 2, GREY, [bytes([0, 51]), bytes([102, 255])]),
        "datatype": "FP32", "shape": [-1, 1, 2, 2],
        "transforms": [
            {"decode": {"mode": "L"}}, {"scale": {"factor": 1 / 255}}, {"layout": "NCHW"},
        ],
        "made": {"shape": [1, 1, 2, 2], "values": [0, 0.2, 0.4, 1]},
    },
    {
        "name": "colour to NCHW",
        "encoded": png(2, 1, RGB, [bytes([1, 2, 3, 4, 5, 6])]),
        "datatype": "UINT8", "shape": [-1, 3, 1, 2],
        "transforms": [{"decode": {"mode": "RGB"}}, {"layout": "NCHW"}],
        "made": {"shape": [1, 3, 1, 2], "values": [1, 4, 2, 5, 3, 6]},
    },
    {
        "name": "colour to NHWC in BGR order",
        "encoded": png(2, 1, RGB, [bytes([1, 2, 3, 4, 5, 6])]),
        "datatype": "UINT8", "shape": [-1, 1, 2, 3],
        "transforms": [{"decode": {"mode": "BGR"}}, {"layout": "NHWC"}],
        "made": {"shape": [1, 1, 2, 3], "values": [3, 2, 1, 6, 5, 4]},
    },
    {
        "name": "normalised per channel",
        "encoded": png(1, 1, RGB, [bytes([10, 20, 30])]),
        "datatype": "FP32", "shape": [1, 3, 1, 1],
        "transforms": [
            {"decode": {}}, {"normalize": {"mean": [8, 16, 32], "std": [2, 4, 0.5]}},
            {"layout": {"order": "NCHW"}},
        ],
        "made": {"shape": [1, 3, 1, 1], "values": [1, 1, -4]},
    },
    {
        "name": "palette of dark ink, inverted",
        "encoded": png(
            2, 1, PALETTE, [bytes([0b10 << 6 | 0b01 << 4])], bits=2,
            extra=chunk(b"PLTE", bytes([9, 9, 9, 40, 40, 40, 250, 250, 250])),
        ),
        "datatype": "FP32", "shape": [-1, 2],
        "transforms": [{"decode": {"mode": "L"}}, {"invert": {}}, {"reshape": {"to": [2]}}],
        "made": {"shape": [1, 2], "values": [5, 215]},
    },
    {
        "name": "sixteen bits",
        "encoded": png(2, 1, GREY, [struct.pack(">HH", 65535, 32896)], bits=16),
        "datatype": "UINT8", "shape": [-1, 1, 2, 1],
        "transforms": [{"decode": {"mode": "L"}}],
        "made": {"shape": [1, 1, 2, 1], "values": [255, 128]},
    },
    {
        "name": "transparency over white",
        "encoded": png(2, 1, RGBA, [bytes([7, 7, 7, 0, 60, 60, 60, 255])]),
        "datatype": "UINT8", "shape": [-1, 1, 2, 1],
        "transforms": [{"decode": {"mode": "L", "background": 255}}],
        "made": {"shape": [1, 1, 2, 1], "values": [255, 60]},
    },
    {
        "name": "letterboxed",
        "encoded": png(2, 1, GREY, [bytes([200, 200])]),
        "datatype": "UINT8", "shape": [1, 4, 4, 1],
        "transforms": [
            {"decode": {"mode": "L"}},
            {"resize": {"width": 4, "height": 4, "fit": "contain", "fill": 114}},
        ],
        "made": {"shape": [1, 4, 4, 1], "values": [114] * 4 + [200] * 8 + [114] * 4},
    },
    {
        "name": "covered and cropped",
        "encoded": png(4, 2, GREY, [bytes([1, 2, 3, 4]), bytes([5, 6, 7, 8])]),
        "datatype": "UINT8", "shape": [1, 2, 1, 1],
        "transforms": [
            {"decode": {"mode": "L"}},
            {"resize": {"width": 2, "height": 2, "fit": "cover", "filter": "nearest"}},
            {"crop": {"width": 1, "height": 2}},
        ],
        "made": {"shape": [1, 2, 1, 1], "values": [2, 6]},
    },
]  # fmt: skip


def main() -> None:
    """Write the file beside this one."""
    for case in CASES:
        case["encoded"] = base64.b64encode(case["encoded"]).decode("ascii")
    path = Path(__file__).with_name("preprocess.json")
    path.write_text(json.dumps(CASES, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
