"""What the instruction set of a processor means for int8."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

X86 = frozenset({"sse4_2", "avx", "avx2", "avx512f", "fma"})
VNNI = frozenset({"avx_vnni", "avx512_vnni", "avx512vnni", "amx_int8"})
"""CPU features, as Linux and as Intel name them, that add products of u8 and s8 in 32 bits."""


def saturates(features: Iterable[str]) -> bool:
    """Whether a CPU adds two products of u8 and s8 in 16 bits, as an x86 one without VNNI does.

    2 x 255 x 127 is too much for them, and 2 x 255 x 64 is not: weights of 7 bits are safe.
    """
    known = set(features)
    return bool(known & X86) and not known & VNNI
