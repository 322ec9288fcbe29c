"""Fixtures of the tests of selections and exports."""

from collections.abc import Callable

import pytest

from qspinn.app.choose.exporting import main


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str, str]]:
    """Return a function that runs ``python -m qspinn.export``: (code, out, err)."""

    def call(*arguments: object) -> tuple[object, str, str]:
        capsys.readouterr()
        code: object = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as stop:
            code = stop.code
        said = capsys.readouterr()
        return code, said.out, said.err

    return call
