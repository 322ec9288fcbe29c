"""NIR graphs and files that cannot be used: a clear error, and nothing built or followed."""

import contextlib
import os

import h5py
import nir
import numpy as np
import pytest
import torch

from qspinn.export.nir_file import NirError, read_nir
from qspinn.export.nir_modules import NIRNetwork, safe_names
from qspinn.export.nir_reading import network_from_nir
from tests.export import graphs
from tests.export.graphs import chain, conv2d, cuba, f32, full, graph, i_and_f, lif, weights

LINEAR = nir.Linear(weights(4, 6))
CYCLE = {"a": LINEAR, "x": lif((4,)), "w": nir.Linear(weights(4, 4)), "y": lif((4,))}
DEEP = graph((6,), {"only": nir.Scale(full(6, 1.0))})
for _ in range(20):
    DEEP = graph((6,), {"g": DEEP})


def cycle():
    return graph((6,), CYCLE, ("a", "x"), ("x", "w"), ("w", "y"), ("y", "x"))


def recurrent(neurons, back):
    nodes = {"a": LINEAR, "back": back, "n": neurons}
    return graph((6,), nodes, ("a", "n"), ("n", "back"), ("back", "n"))


def edges(*given, nodes=None):
    ends = {"in": nir.Input(np.array([6])), "out": nir.Output({"output": None})}
    return nir.NIRGraph(ends | (nodes or {"a": LINEAR}), list(given), type_check=False)


def shared():
    nodes = {"a": LINEAR, "x": lif((4,), v_leak=0.5), "y": lif((4,))}
    return graph((6,), nodes, ("a", "x"), ("a", "y"), ("x", "y"))


ONCE = [("in", "a"), ("a", "out")]
CASES = {
    "a delay": (lambda: chain((6,), nir.Delay(full(6, 1.0))), r"'0' \(Delay\): not supported"),
    "a long step": (lambda: chain((4,), lif((4,), tau=0.4)), r"'0' \(LIF\): dt=0.5 is longer"),
    "no time": (lambda: chain((4,), lif((4,), tau=0.0)), "tau has values that are not positive"),
    "not finite": (lambda: chain((4,), lif((4,), v_threshold=np.nan)), "v_threshold .* not finite"),
    "a bad weight": (lambda: chain((6,), nir.Linear(full((4, 6), np.inf))), "weight .* not finite"),
    "a negative r": (lambda: chain((4,), lif((4,), r=-1.0)), "numbers that are not positive"),
    "a leak from nowhere": (
        lambda: chain((4,), lif((4,), v_leak=0.5)),
        r"'0' \(LIF\): v_leak, which is not its v_reset, belongs into the weights or the bias",
    ),
    "a leak for two": (shared, r"'x' \(LIF\): v_leak"),
    "a leak of a place": (
        lambda: chain((2, 4, 4), conv2d(2, 2), lif((2, 2, 2), v_leak=weights(2, 2, 2))),
        "one value per channel",
    ),
    "a leak behind a synapse": (
        lambda: chain((6,), LINEAR, cuba((4,), v_leak=0.5)),
        r"'1' \(CubaLIF\): its v_leak is not its v_reset",
    ),
    "a scale of features": (lambda: chain((6,), nir.Scale(full(6, 2.0))), r"'0' \(Scale\)"),
    "another cycle": (cycle, "x -> w -> y -> x form a cycle|w -> y -> x -> w|y -> x -> w -> y"),
    "a loop of one": (
        lambda: graph((4,), {"n": lif((4,))}, ("n", "n")),
        "the edges n -> n form a cycle",
    ),
    "a recurrent synapse": (
        lambda: recurrent(cuba((4,)), nir.Linear(weights(4, 4))),
        r"'n' \(CubaLIF\): feeds back to itself, which only IF and LIF nodes can",
    ),
    "another size back": (
        lambda: recurrent(lif((4,)), nir.Linear(weights(3, 4))),
        r"'back' \(Linear\): feeds neurons of the shape \(4,\) with another one",
    ),
    "sizes": (lambda: chain((5,), LINEAR), r"'0' \(Linear\): shapes do not fit"),
    "sizes of neurons": (lambda: chain((6,), LINEAR, lif((3,))), r"\(3,\), its input \(4,\)"),
    "sizes that are summed": (
        lambda: graph((6,), {"a": LINEAR, "b": lif((6,))}, ("a", "b"), ("in", "b")),
        r"its sources have the shapes",
    ),
    "an image for a matrix": (lambda: chain((2, 3, 6), LINEAR), "shapes do not fit"),
    "a small image": (lambda: chain((2, 2, 2), conv2d(4, 2)), r"'0' \(Conv2d\): shapes do not"),
    "groups": (lambda: chain((2, 5, 5), conv2d(4, 2, groups=0)), r"'0' \(Conv2d\)"),
    "a stride": (lambda: chain((2, 5, 5), conv2d(4, 2, stride=1.5)), "stride=.1.5.; expected 2"),
    "same with a stride": (
        lambda: chain((2, 5, 5), conv2d(4, 2, stride=2, padding="same")),
        "shapes do not fit",
    ),
    "a bias": (lambda: chain((6,), nir.Affine(weights(4, 6), f32([1.0]))), "its bias has the"),
    "no edge to": (lambda: edges(*ONCE, ("b", "out"), nodes={"a": LINEAR, "b": LINEAR}), "'b'"),
    "no edge from": (
        lambda: edges(*ONCE, ("in", "b"), nodes={"a": LINEAR, "b": LINEAR}),
        r"'b' \(Linear\): no edge leads from it",
    ),
    "an edge to nowhere": (lambda: edges(*ONCE, ("a", "b")), "names 'b', which is no node"),
    "an edge twice": (lambda: edges(*ONCE, ONCE[0]), "is there 2 times"),
    "an edge back": (lambda: edges(*ONCE, ("a", "in")), "an edge leads to its Input|cycle"),
    "two inputs": (
        lambda: edges(*ONCE, ("b", "a"), nodes={"a": LINEAR, "b": nir.Input(np.array([6]))}),
        "has 2 Input and 1 Output nodes",
    ),
    "no nodes": (lambda: nir.NIRGraph({}, [], type_check=False), "has 0 Input and 0 Output"),
    "no shape": (
        lambda: nir.NIRGraph(
            {"in": nir.Input(np.array([0.5])), "out": nir.Output({"output": None})},
            [("in", "out")],
            type_check=False,
        ),
        r"'in' \(Input\): has the shape \[0.5\]",
    ),
    "deep": (lambda: DEEP, "nested more than 16 deep"),
}


@pytest.mark.parametrize("name", CASES)
def test_says_which_node_and_why(name, monkeypatch):
    make, message = CASES[name]

    def built(*_):
        raise AssertionError("something was built")

    monkeypatch.setattr(NIRNetwork, "__init__", built)
    monkeypatch.setattr(torch.nn.Module, "__init__", built)
    with pytest.raises(NirError, match=message):
        network_from_nir(make(), dt=0.5)


def test_a_reset_by_subtraction_wants_to_reset_to_0():
    with pytest.raises(NirError, match=r"'0' \(IF\): its v_reset is not 0"):
        network_from_nir(chain((4,), i_and_f((4,), v_reset=0.1)), reset="subtract")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dt": 0.0}, ValueError, "dt=0.0; write a positive"),
        ({"dt": "1 ms"}, TypeError, "dt is a str"),
        ({"method": "heun"}, ValueError, "method='heun'; write one of euler, exact"),
        ({"order": "both"}, ValueError, "order='both'"),
        ({"reset": None}, ValueError, "reset=None; write one of zero, subtract"),
        ({"comparison": "<"}, ValueError, "comparison='<'"),
    ],
)
def test_arguments(given, error, message):
    with pytest.raises(error, match=message):
        network_from_nir(graphs.nested(), **given)


def test_is_given_a_graph():
    with pytest.raises(TypeError, match=r"graph is a Linear; give a nir.NIRGraph or a path"):
        network_from_nir(LINEAR)


def test_a_graph_that_claims_much_takes_little():
    million = 2**20
    big = chain((million, million), nir.Scale(f32([1.0])), lif((1,), v_threshold=2.0))
    assert len(network_from_nir(big, dt=0.5).layers) == 2


def test_draws_no_random_numbers():
    before = torch.random.get_rng_state()
    network_from_nir(graphs.recurrent(), dt=0.5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_names_are_safe_and_different():
    given = ["", "a.b", "a_b", "../x", "keys", "__class__", "forward", "0", "é", "x" * 500, "a b"]
    names = safe_names(given)
    assert len(set(names.values())) == len(given)
    torch.nn.ModuleDict({name: torch.nn.Identity() for name in names.values()})
    assert all(name == "0" or name.isidentifier() for name in names.values())
    assert max(map(len, names.values())) < 100


class TestFiles:
    @pytest.fixture
    def path(self, tmp_path):
        written = graphs.branches()
        written.nodes["out"] = nir.Output(np.array([3]))
        nir.write(tmp_path / "graph.nir", written)
        return tmp_path / "graph.nir"

    def test_a_file_is_read(self, path):
        x = torch.rand(5, 2, 6)
        found, expected = (network_from_nir(one, dt=0.5) for one in (path, graphs.branches()))
        with torch.no_grad():
            assert torch.equal(found(x), expected(x))
        assert found.nir_names["spikes"] == "spikes"

    def test_all_kinds_of_graphs_are_read(self, tmp_path):
        for name, (make, _) in graphs.GRAPHS.items():
            written = make()
            for one in (written, *written.nodes.values()):
                if isinstance(one, nir.NIRGraph):
                    _declare(one)
            nir.write(tmp_path / name, written)
            assert read_nir(tmp_path / name).nodes.keys() == written.nodes.keys()

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            network_from_nir(tmp_path / "none.nir")

    def test_no_hdf5(self, tmp_path):
        (tmp_path / "text.nir").write_text("hello")
        with pytest.raises(NirError, match=r"text.nir: not a NIR file"):
            network_from_nir(tmp_path / "text.nir")

    def test_a_pickle_is_not_opened(self, tmp_path):
        torch.save({"a": torch.zeros(2)}, tmp_path / "a.nir")
        with pytest.raises(NirError, match="not a NIR file"):
            network_from_nir(tmp_path / "a.nir")

    def test_a_node_alone(self, tmp_path):
        nir.write(tmp_path / "node.nir", nir.Linear(weights(2, 2)))
        with pytest.raises(NirError, match="holds a Linear, where a NIRGraph is expected"):
            network_from_nir(tmp_path / "node.nir")

    @pytest.mark.parametrize("kind", ["Any", "__import__", "NIRGraph", "Unknown", b"\xff"])
    def test_a_type_that_is_none(self, path, kind):
        with h5py.File(path, "a") as file:
            del file["node/nodes/a/type"]
            file["node/nodes/a/type"] = kind
        with pytest.raises(NirError, match="not a NIR file that can be read"):
            network_from_nir(path)

    @pytest.mark.parametrize("missing", ["node", "node/edges", "node/nodes", "node/nodes/a/weight"])
    def test_something_is_missing(self, path, missing):
        with h5py.File(path, "a") as file:
            del file[missing]
        with pytest.raises(NirError, match="not a NIR file that can be read"):
            network_from_nir(path)

    def test_claims_more_than_is_allowed(self, path):
        with h5py.File(path, "a") as file:
            del file["node/nodes/a/weight"]
            shape, chunks = (2**20, 2**20), (1024, 1024)
            file.create_dataset("node/nodes/a/weight", shape, "f4", chunks=chunks, compression=9)
        assert os.path.getsize(path) < 100_000
        with pytest.raises(NirError, match=r"a/weight.* more than max_bytes=1073741824"):
            network_from_nir(path)
        with pytest.raises(NirError, match=r"more than max_bytes=10"):
            read_nir(path, max_bytes=10)

    @pytest.mark.parametrize("where", ["node", "node/nodes/a", "node/nodes/a/weight"])
    @pytest.mark.parametrize("kind", ["soft", "external"])
    def test_links_are_not_followed(self, path, tmp_path, where, kind):
        other = tmp_path / "other.nir"
        other.write_bytes(path.read_bytes())
        with h5py.File(path, "a") as file:
            file.move(where, "elsewhere")
            soft = kind == "soft"
            file[where] = h5py.SoftLink("/elsewhere") if soft else h5py.ExternalLink(other, where)
        with pytest.raises(NirError, match="a link to elsewhere"):
            network_from_nir(path)

    def test_values_in_other_files_are_not_read(self, path, tmp_path):
        (tmp_path / "secret").write_bytes(bytes(96))
        with h5py.File(path, "a") as file:
            del file["node/nodes/a/weight"]
            place = [(str(tmp_path / "secret"), 0, 96)]
            file.create_dataset("node/nodes/a/weight", (4, 6), "f4", external=place)
        with pytest.raises(NirError, match="its values lie in another file"):
            network_from_nir(path)

    def test_a_group_that_contains_itself(self, path):
        with h5py.File(path, "a") as file:
            file["node/nodes/a/again"] = file["node"]
        with pytest.raises(NirError, match="stored under two names"):
            network_from_nir(path)

    def test_a_file_that_is_cut_or_changed(self, path, tmp_path):
        content = path.read_bytes()
        generator = np.random.default_rng(0)
        for number in range(60):
            changed = bytearray(content)
            for place in generator.integers(0, len(content), 8):
                changed[place] ^= int(generator.integers(1, 256))
            kept = changed[: int(generator.integers(len(content)))] if number % 3 == 0 else changed
            (tmp_path / "changed.nir").write_bytes(kept)
            with contextlib.suppress(NirError):
                network_from_nir(tmp_path / "changed.nir", dt=0.5)


def _declare(one):
    for name, node in one.nodes.items():
        if isinstance(node, nir.Output):
            one.nodes[name] = nir.Output(np.array([1]))
        elif isinstance(node, nir.Conv1d | nir.Conv2d) and node.input_shape is None:
            node.input_shape = 8 if isinstance(node, nir.Conv1d) else (9, 9)
        elif isinstance(node, nir.Flatten):
            node.input_type = {"input": np.array([4, 2, 3])}
        elif isinstance(node, nir.NIRGraph):
            _declare(node)
