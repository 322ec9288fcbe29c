"""A device model as C99: no heap, no float, no recursion, nothing but ``<stdint.h>``."""

from qspinn.export.c.writing import CSizes, write_c

__all__ = ["CSizes", "write_c"]
