"""What users type, made ready for Hydra."""

from __future__ import annotations

import re
import sys

__all__ = ["quote_arguments", "quoted"]

# A folder of a sweep is named by its overrides, "network.neurons=100,seed=1": in Hydra's grammar no
# value has a "=" unless it is quoted. What has quotes, brackets, braces or backslashes is Hydra's
# grammar already, and left alone.
_UNQUOTED = re.compile(r"""(?P<key>[^=\s]+)=(?P<value>[^"'\[\](){}\\]*=[^"'\[\](){}\\]*)""")


def quoted(argument: str) -> str:
    """An override with its value in quotes, where Hydra would refuse it for an "=" in the value."""
    found = _UNQUOTED.fullmatch(argument)
    if argument.startswith("-") or found is None:
        return argument
    return f'{found["key"]}="{found["value"]}"'


def quote_arguments() -> None:
    """Quotes the command line of this process, see `quoted`."""
    sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]
