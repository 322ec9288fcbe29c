"""Operations between layers in C: sums, products, poolings, roundings, gathers."""

from __future__ import annotations

import itertools
import math

import numpy as np

from qspinn.export.c.site import Site
from qspinn.export.c.text import Lines, array, holding, scaled
from qspinn.export.model import Arithmetic, Gather, Pooling, Round
from qspinn.export.program import places_of, word_length_of
from qspinn.steps.roundings import kept
from qspinn.steps.targets.c import Range, c_function

__all__ = ["between_function", "table_text"]


def between_function(site: Site) -> str:
    """The definition of ``name(s, x0, x1, ..., value)``."""
    code, what = Lines(), site.one.what
    parameters = "".join(f", const {place.kind} *x{n}" for n, place in enumerate(site.taken))
    state = f"{site.prefix}_state *s" if site.draws else ""
    listed = f"{state}{parameters}, {site.made.kind} *value".removeprefix(", ")
    before: list[str] = []
    code(f"static void {site.name}({listed})", "{")
    if isinstance(what, Round):
        before.append(_round(site, code))
    elif isinstance(what, Arithmetic):
        _arithmetic(site, code)
    elif isinstance(what, Pooling) and what.window is not None:
        _window(site, code)
    elif isinstance(what, Pooling):
        _rows(site, code)
    else:
        assert isinstance(what, Gather)
        _gather(site, code)
    code.unused(*(["s"] if site.draws else []), *(f"x{n}" for n in range(len(site.taken))))
    code("}")
    return "\n\n".join([*before, str(code)])


def _round(site: Site, code: Lines) -> str:
    one, (source,) = site.one, site.sources
    up = max(-one.down, 0)
    exact = Range(source.low << up, source.high << up)
    arguments = {"exact": exact, "bits": max(one.down, 0), "to": one.to}
    function = c_function(kept, f"round_{site.name}", arguments)
    call = function.call({"exact": scaled("x0[i]", up, function.kind), "random": site.random})
    code("uint32_t i;")
    code.loop("i", one.operation.size)
    code(f"value[i] = ({site.made.kind}){call};")
    code.close()
    return function.text


def _arithmetic(site: Site, code: Lines) -> None:
    one, sources = site.one, site.sources
    what = one.what
    pairs = zip(sources, one.ups or (0,) * len(sources), strict=True)
    ends = [end << up for source, up in pairs for end in (source.low, source.high)]
    wide = "int64_t" if word_length_of(one.low, one.high, *ends) > 31 else "int32_t"
    if what.kind == "multiply":
        text = f"({wide})x0[i] * x1[i]"
    elif what.kind == "scale":
        text = f"({wide})x0[i] * {one.factor}"
    elif what.kind == "offset":
        text = f"{scaled(f'({wide})x0[i]', one.ups[0])} + {one.factor}"
    else:
        text = ""
        for place, (up, sign) in enumerate(zip(one.ups, what.signs, strict=True)):
            term = scaled(f"({wide})x{place}[i]", up)
            text += f" {'+' if sign > 0 else '-'} {term}"
        text = text.removeprefix(" + ").removeprefix(" ")
    code("uint32_t i;")
    code.loop("i", one.operation.size)
    code(f"value[i] = ({site.made.kind})({text});")
    code.close()


def _window(site: Site, code: Lines) -> None:
    """A pooling over one to three axes, each of which becomes the last three."""
    one = site.one
    window = one.what.window
    missing = 3 - len(window.size)
    size, kernel, stride, padding, output = (
        (fill,) * missing + tuple(values)
        for fill, values in (
            (1, window.size),
            (1, window.kernel),
            (1, window.stride),
            (0, window.padding),
            (1, window.output),
        )
    )
    channels = one.operation.size // math.prod(output)
    wide = "int64_t" if one.word_length > 32 else "int32_t"
    code("uint32_t c, z, y, x, kz, ky, kx, o = 0;")
    for name, count in (("c", channels), ("z", output[0]), ("y", output[1]), ("x", output[2])):
        code.loop(name, count)
    begin = "0" if one.what.kind == "sum" else str(one.low)
    code(f"{wide} total = {begin};")
    for axis, name in enumerate("zyx"):
        code.loop(f"k{name}", kernel[axis])
    terms = []
    for axis, name in enumerate("zyx"):
        shifted = f"{name} * {stride[axis]}u + k{name}"
        if padding[axis]:
            shifted += f" - {padding[axis]}u"
        terms.append(shifted)
        needs = padding[axis] > 0
        if needs:
            code(f"if ({shifted} >= {size[axis]}u) {{", "continue;", "}")
    at = f"((c * {size[0]}u + {terms[0]}) * {size[1]}u + {terms[1]}) * {size[2]}u + {terms[2]}"
    code(f"const {wide} one = x0[{at}];")
    code("total += one;" if one.what.kind == "sum" else "total = one > total ? one : total;")
    code.close(3)
    code(f"value[o++] = ({site.made.kind})total;")
    code.close(4)


def _rows(site: Site, code: Lines) -> None:
    one = site.one
    table = places_of(site.model, one.operation)
    wide = "int64_t" if one.word_length > 32 else "int32_t"
    site.tables.append(table_text(f"table_{site.name}", table))
    code("uint32_t o, k;")
    code.loop("o", len(table))
    code(f"{wide} total = {0 if one.what.kind == 'sum' else one.low};")
    code.loop("k", table.shape[1])
    read = f"table_{site.name}[o * {table.shape[1]}u + k]"
    if (table < 0).any():
        code(f"if ({read} == 0) {{", "continue;", "}")
        read = f"{read} - 1u"
    code(f"const {wide} one = x0[{read}];")
    code("total += one;" if one.what.kind == "sum" else "total = one > total ? one : total;")
    code.close()
    code(f"value[o] = ({site.made.kind})total;")
    code.close()


def _gather(site: Site, code: Lines) -> None:
    """Runs of numbers that follow each other are copied in loops, others by a table."""
    one, sources, made = site.one, site.sources, site.made
    table = places_of(site.model, one.operation)
    begins = np.cumsum([0, *(source.operation.size for source in sources)])
    owners = np.searchsorted(begins, table, side="right") - 1
    breaks = np.flatnonzero((np.diff(table) != 1) | (np.diff(owners) != 0)) + 1
    runs = np.split(np.arange(len(table)), breaks)
    code("uint32_t i;")
    used = set(owners[table >= 0].tolist())
    if len(runs) <= 16 and (table >= 0).all():
        for run in runs:
            owner = int(owners[run[0]])
            first = int(table[run[0]] - begins[owner])
            code.loop("i", len(run))
            read = scaled(f"x{owner}[{first}u + i]", one.ups[owner], made.kind)
            code(f"value[{int(run[0])}u + i] = ({made.kind})({read});")
            code.close()
        return
    site.tables.append(table_text(f"table_{site.name}", table))
    shift = 1 if (table < 0).any() else 0
    code.loop("i", len(table))
    code(f"const uint32_t place = table_{site.name}[i];")
    if shift:
        code("if (place == 0) {", "value[i] = 0;", "continue;", "}")
    for owner, (begin, end) in enumerate(itertools.pairwise(begins)):
        if owner not in used:
            continue
        first, after = int(begin) + shift, int(end) + shift
        read = scaled(f"x{owner}[place - {first}u]", one.ups[owner], made.kind)
        # Compilers warn of comparisons that are always true.
        low = f"place >= {first}u && " if first else ""
        code(f"if ({low}place < {after}u) {{")
        code(f"value[i] = ({made.kind})({read});", "}")
    code.close()


def table_text(name: str, table: np.ndarray) -> str:
    """A table of places as a constant array; where some stand for nothing, all are one more."""
    shift = 1 if (table < 0).any() else 0
    values = (table + shift).reshape(-1)
    return array(holding(0, int(values.max())), name, values)
