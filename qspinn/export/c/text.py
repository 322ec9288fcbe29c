"""Names, types and lines of C."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["Lines", "array", "bytes_of", "comment", "holding", "identifier", "scaled"]

_WIDTH = 96


def identifier(text: str) -> str:
    """A name in C, from any text."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lower()
    return name if name and not name[0].isdigit() else f"n_{name}".rstrip("_")


def holding(low: int, high: int) -> str:
    """The smallest type that holds all numbers from `low` to `high`."""
    for bits in (8, 16, 32, 64):
        if low >= 0 and high < 1 << bits and bits < 32:
            return f"uint{bits}_t"
        if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1):
            return f"int{bits}_t"
    raise ValueError(f"no type of C holds numbers from {low} to {high}")


def bytes_of(kind: str) -> int:
    """The bytes of a type: of ``uint16_t`` 2."""
    return int(kind.removeprefix("u").removeprefix("int").removesuffix("_t")) // 8


def scaled(expression: str, up: int, kind: str = "int32_t") -> str:
    """An expression times a power of two; a shift of a negative number is not defined in C.

    The product is of the type `kind`, where that is ``int64_t``.
    """
    if up == 0:
        return expression
    wide = "(int64_t)" if kind == "int64_t" else ""
    return f"{wide}{expression} * {1 << up}"


def comment(text: str, indent: int = 0) -> str:
    """A comment of one or more lines; nothing in `text` can end it early."""
    safe = text.replace("*/", "* /").replace("/*", "/ *")
    safe = "".join(one if one.isprintable() else " " for one in safe)
    words, lines = safe.split(" "), [" " * indent + "/*"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > _WIDTH:
            lines.append(" " * indent + " *")
        lines[-1] += f" {word}"
    return "\n".join(lines) + " */"


def array(kind: str, name: str, values: Iterable[int]) -> str:
    """A constant array."""
    held = [str(int(one)) for one in values]
    lines: list[str] = [f"static const {kind} {name}[{len(held)}] = {{"]
    line = "   "
    for one in held:
        if len(line) + len(one) + 2 > _WIDTH:
            lines.append(line)
            line = "   "
        line += f" {one},"
    return "\n".join([*lines, line.rstrip(","), "};"])


class Lines:
    """Lines of C, indented by their braces."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.depth = 0

    def __call__(self, *lines: str) -> None:
        """Adds lines; ``}`` at the beginning closes a block, ``{`` at the end opens one."""
        for line in lines:
            if line.startswith("}"):
                self.depth -= 1
            self.lines.append("    " * self.depth + line if line else "")
            if line.endswith("{"):
                self.depth += 1

    def loop(self, name: str, count: int) -> None:
        """Opens a loop."""
        self(f"for ({name} = 0; {name} < {count}u; {name}++) {{")

    def close(self, count: int = 1) -> None:
        """Closes blocks."""
        for _ in range(count):
            self("}")

    def unused(self, *names: str) -> None:
        """Says of parameters that nothing reads them, where that is so: compilers warn of it."""
        text = str(self).partition("{")[2]
        for name in names:
            if not re.search(rf"\b{name}\b", text):
                self(f"(void){name};")

    def __str__(self) -> str:
        """The text."""
        return "\n".join(self.lines)
