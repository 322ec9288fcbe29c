"""The command line as users type it, prepared for Hydra."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from qspinn.app.errors import ConfigurationError, print_error

CONFIG_FOLDER = Path(__file__).resolve().parents[3] / "conf"

# A folder of a sweep is named by its overrides, "network.neurons=100,seed=1": in Hydra's grammar no
# value has a "=" unless it is quoted. What has quotes, brackets, braces or backslashes is Hydra's
# grammar already, and left alone.
_UNQUOTED = re.compile(r"""(?P<key>[^=\s]+)=(?P<value>[^"'\[\](){}\\]*=[^"'\[\](){}\\]*)""")
_FLAGS = ("-m", "--multirun")
_GROUP = re.compile(r"\+{0,2}(?P<group>\w+)=(?P<values>[\w\s,]+)")


def quoted(argument: str) -> str:
    """An override with its value in quotes, where Hydra would refuse it for an "=" in the value."""
    found = _UNQUOTED.fullmatch(argument)
    if argument.startswith("-") or found is None:
        return argument
    return f'{found["key"]}="{found["value"]}"'


def without_null_groups(argument: str, folder: Path = CONFIG_FOLDER) -> str:
    """``GROUP=null`` as ``~GROUP``: Hydra deletes a group, but has no null for one.

    Groups are the folders in that of the configuration.

    Raises:
        ConfigurationError: null among several options of a group.
    """
    found = _GROUP.fullmatch(argument)
    # The folder of Hydra's own groups is no group.
    if found is None or found["group"] == "hydra" or not (folder / found["group"]).is_dir():
        return argument
    group = found["group"]
    values = [value.strip() for value in found["values"].split(",")]
    options = [value for value in values if value.lower() != "null"]
    if len(options) == len(values):
        return argument
    if not options:
        return f"~{group}"
    known = ", ".join(sorted(path.stem for path in (folder / group).glob("*.yaml")))
    raise ConfigurationError(
        f"{argument}: null is no option of a group among others; write some of {known}, "
        f"or {group}=null alone"
    )


def prepare_arguments() -> None:
    """Makes the command line of this process ready for Hydra: see the functions above.

    An invalid argument ends the process with a message and exit code 2.
    """
    try:
        arguments = [quoted(without_null_groups(argument)) for argument in sys.argv[1:]]
    except ConfigurationError as error:
        print_error(error)
        raise SystemExit(2) from None
    # Hydra takes no overrides behind this flag if there are some in front of it.
    sys.argv[1:] = sorted(arguments, key=lambda argument: argument not in _FLAGS)
