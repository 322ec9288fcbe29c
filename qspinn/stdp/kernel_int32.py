"""Arithmetic of 32 bits in the kernel: numba itself widens sums and products of int32 to 64 bits.

With 32 bits one instruction works on twice as many neurons. Results wrap around, and shifts are of
0 to 31 bits: who uses these has made sure that nothing exceeds 32 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

__all__ = ["I32", "add", "bits_of_both", "left", "product", "right", "sub"]

I32 = np.int32


def _operation(instruction: str) -> Any:
    """An instruction of LLVM on two int32."""

    @intrinsic
    def operation(typing: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
            return getattr(builder, instruction)(*operands)

        return types.int32(types.int32, types.int32), code

    return operation


add, sub, product = _operation("add"), _operation("sub"), _operation("mul")
left, right = _operation("shl"), _operation("ashr")
bits_of_both = _operation("and_")
