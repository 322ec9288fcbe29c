"""Random spikes in C: the key of what is presented, and 64 steps of each input at once."""

from __future__ import annotations

from typing import Any

from qspinn.export.c.text import Lines
from qspinn.export.program import Instruction
from qspinn.steps.random_spikes import PROBABILITY_BITS, WORD

__all__ = ["random_spikes"]


def random_spikes(
    name: str, number: int, one: Instruction, kind: str, made: str, code: Lines
) -> list[str]:
    """The body of the step; and the functions of keys and of 64 steps of spikes."""
    n, size = one.numbers, one.operation.size
    code("uint32_t i;", "if (s->step == 0) {", f"s->shown{number}[0] = key_of_{name}(x);", "}")
    code(f"if (s->step % {WORD}u == 0) {{")
    code(f"words_of_{name}(s->words{number}, x, s->shown{number}[0], s->step);", "}")
    code.loop("i", size)
    code(f"value[i] = ({made})(s->words{number}[i] >> (s->step & {WORD - 1}u) & 1u);")
    code.close()
    return [_probability(name, n), _content_key(name, n, size, kind), _words(name, n, size, kind)]


def _probability(name: str, n: Any) -> str:
    half, most = (1 << n.down) >> 1, (1 << PROBABILITY_BITS) - 1
    return f"""static uint64_t probability_of_{name}(uint64_t x)
{{
    const uint64_t p = (x * {n.multiplier}u + {half}u) >> {n.down};
    return p > {most}u ? {most}u : p;
}}"""


def _content_key(name: str, n: Any, size: int, kind: str) -> str:
    """Of the key of a presentation, which depends on what is presented alone."""
    code = Lines()
    code(f"static uint64_t key_of_{name}(const {kind} *x)", "{")
    code(f"uint64_t sum = 0x{n.key & (1 << 64) - 1:x}u;", "uint32_t i;")
    code.loop("i", size)
    code(f"sum += draw(probability_of_{name}(x[i]), i);")
    code.close()
    code("return mix(sum);")
    code("}")
    return str(code)


def _words(name: str, n: Any, size: int, kind: str) -> str:
    """Of the spikes of all inputs in 64 steps, of which this one is the first."""
    code = Lines()
    code(
        f"static void words_of_{name}(uint64_t *words, const {kind} *x, uint64_t shown, "
        "uint32_t step)",
        "{",
    )
    code(f"const uint64_t key = stream(shown, {n.purpose}u);", "uint32_t i, k;")
    code.loop("i", size)
    code(
        f"const uint64_t first = ((uint64_t)i * {n.words}u + step / {WORD}u) * "
        f"{PROBABILITY_BITS}u;",
        f"uint64_t p = probability_of_{name}(x[i]), word = 0;",
    )
    code("for (k = 0; p != 0; k++) {")
    code("if (p & 1u) {", "word |= draw(key, first + k);", "} else if (word != 0) {")
    code("word &= draw(key, first + k);", "}", "p >>= 1;")
    code.close()
    # Digits above the highest one are 0: each halves the probability again.
    code(f"for (; word != 0 && k < {PROBABILITY_BITS}u; k++) {{", "word &= draw(key, first + k);")
    code.close()
    code("words[i] = word;")
    code.close()
    code("}")
    return str(code)
