"""Reports for people: tables in the terminal, plain text if the output is piped."""

from qspinn.report.footprint import footprint_table, print_footprint
from qspinn.report.selection import SHOW_ALL, print_selection

# The other modules are imported by name, where they are needed: matplotlib takes half a second.

__all__ = ["SHOW_ALL", "footprint_table", "print_footprint", "print_selection"]
