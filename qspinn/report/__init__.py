"""What people read: tables in the terminal, plain text where the output is piped."""

from qspinn.report.footprint import footprint_table, print_footprint
from qspinn.report.selection import print_selection

__all__ = ["footprint_table", "print_footprint", "print_selection"]
