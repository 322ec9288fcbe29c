"""Arguments as people type them, and as Hydra reads them."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from qspinn.app.compose.command_line import quoted

PARSER = OverridesParser.create()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("runs=outputs/grid/seed=1", "outputs/grid/seed=1"),
        ("runs=outputs/case=unsupervised*", "outputs/case=unsupervised*"),
        ("hydra.run.dir=out/network.neurons=100,seed=1-3f", "out/network.neurons=100,seed=1-3f"),
        ("+a=b=c d", "b=c d"),
    ],
)
def test_names_of_folders_need_no_quotes(argument, value):
    with pytest.raises(Exception, match="="):
        PARSER.parse_override(argument)
    override = PARSER.parse_override(quoted(argument))
    assert override.value() == value
    assert not override.is_sweep_override()


@pytest.mark.parametrize(
    "argument",
    [
        "runs=outputs",
        "seed=0,1,2",
        "a='b=c'",
        'a="b=c"',
        r"a=b\=c",
        "a={b:1}",
        "rules=[{layers: '*=*'}]",
        "a=${b}",
        "~a",
        "~a=b",
        "--config-name=other=one",
        "-m",
        "a=",
    ],
)
def test_what_hydra_reads_is_left_alone(argument):
    assert quoted(argument) == argument


@given(st.text("ab1=.,/*'\"[]{}() \\$:", max_size=12))
def test_no_valid_override_is_changed(text):
    argument = f"key={text}"
    try:
        PARSER.parse_override(argument)
    except Exception:
        return
    assert quoted(argument) == argument
