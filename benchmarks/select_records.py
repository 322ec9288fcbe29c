"""How long select.py takes for many records: writes record files, selects among them, measures.

    python benchmarks/select_records.py            # 1,000, 10,000 and 100,000 records
    python benchmarks/select_records.py 5000 --keep FOLDER

The records are those of a convolutional network with 21 tensors (11 kB each), five seeds per
setting, with and without a measured baseline; each in a folder of its own as train.py writes them.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import ROOT

from qspinn.records import RunRecord, baseline_key, config_hash, setting_key

SCHEMES = ("ptq", "itq")
ROUNDINGS = ("truncate", "nearest", "stochastic")
ROLES = {"weight": 48588, "bias": 124, "membrane": 4336, "threshold": 4, "decay": 4}
SEEDS = 5


def config_of(scheme: str, rounding: str, lengths: dict[str, int], seed: int) -> dict:
    """A configuration as large as a real one."""
    role = {"calibration": None, "format": None, "overflow": None, "rounding": None}
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.008}
    trainer = {f"limit_{name}_batches": None for name in ("train", "val", "test")}
    return {
        "data": {"_target_": "qspinn.data.MNISTSubset", "batch_size": 64, "max_shift": 2},
        "learning": {"_target_": "qspinn.learning.SupervisedLearning", "optimizer": optimizer},
        "network": {
            "_target_": "qspinn.networks.ConvSNN",
            "channels": [12, 24, 48],
            "neuron": {"kind": "lif", "tau": 2.0, "v_threshold": 1.0},
        },
        "quantization": {
            "scheme": scheme,
            "rounding": rounding,
            "roles": {name: role | {"word_length": bits} for name, bits in lengths.items()},
        },
        "seed": seed,
        "trainer": trainer | {"_target_": "lightning.Trainer", "max_epochs": 40},
    }


def record_of(index: int, random_numbers: random.Random) -> RunRecord:
    """The record with a number: its setting, and its seed."""
    setting, seed = divmod(index, SEEDS)
    choice = random.Random(setting)
    scheme, rounding = choice.choice(SCHEMES), choice.choice(ROUNDINGS)
    lengths = {role: choice.randint(2, 12) for role in ROLES}
    bits = {role: count * lengths[role] for role, count in ROLES.items()}
    baseline = {role: 32 * count for role, count in ROLES.items()}
    formats = {
        f"network.blocks.{block}.{role}": {
            "role": role,
            "format": f"Q{choice.randint(-3, 4)}.{lengths[role]}",
            "rounding": rounding,
            "overflow": "saturate",
        }
        for block in range(4)
        for role in ROLES
    }
    config = config_of(scheme, rounding, lengths, seed)
    accuracy = 0.98 - 0.6 * 2.0 ** -min(lengths.values()) + random_numbers.gauss(0, 0.002)
    validation = min(max(accuracy + random_numbers.gauss(0, 0.006), 0.0), 1.0)
    metrics = {f"{part}/{name}": random_numbers.random() for part in "abcd" for name in "xyz"}
    return RunRecord(
        accuracy=round(min(accuracy, 1.0), 7),
        baseline_accuracy=0.98 if scheme == "ptq" else None,
        samples=1000,
        validation_accuracy=round(validation, 7),
        validation_baseline_accuracy=0.98 if scheme == "ptq" else None,
        validation_samples=500,
        footprint_bits=sum(bits.values()),
        baseline_footprint_bits=sum(baseline.values()),
        training_footprint_bits=sum(bits.values()),
        flash_bits=sum(bits.values()) - bits["membrane"],
        ram_bits=bits["membrane"],
        learning_ram_bits=sum(bits.values()) - bits["threshold"] - bits["decay"],
        fidelity=fidelity_of(random_numbers),
        work=work_of(random_numbers),
        footprint_bits_by_role=bits,
        baseline_footprint_bits_by_role=baseline,
        scheme=scheme,
        rounding=rounding,
        word_lengths={role: [length] for role, length in lengths.items()},
        formats=formats,
        network="ConvSNN",
        data="mnist_subset",
        seed=seed,
        config=config,
        config_hash=config_hash(config),
        accumulator_word_lengths={f"network.blocks.{block}": 20 for block in range(4)},
        checkpoint="checkpoints/last.ckpt",
        versions={"torch": "2.11.0", "lightning": "2.6.6", "python": "3.11.7"},
        seconds={"fit": round(random_numbers.random(), 3), "test": 0.1},
        metrics=metrics,
        created="2026-01-02T03:04:05+00:00",
        baseline_key=baseline_key(config),
        setting_key=setting_key(config),
    )


def fidelity_of(random_numbers: random.Random) -> dict:
    """How the network behaves, as large as a real one."""
    names = ("rate", "silent", "saturated")
    layers = [
        {
            "layer": f"network.blocks.{block}.neuron",
            "neurons": 1084,
            **{name: round(random_numbers.random(), 7) for name in names},
            **{f"reference_{name}": round(random_numbers.random(), 7) for name in names},
            "rate_distance": round(random_numbers.random(), 7),
            "agreement": round(random_numbers.random(), 7),
            "overlap": round(random_numbers.random(), 7),
            "first_step": 1,
            "first_neuron": [random_numbers.randrange(12), 3, 4],
            "membrane_distance": round(random_numbers.random(), 7),
            "role": "membrane",
        }
        for block in range(4)
    ]
    return {
        "samples": 64,
        "agreement": 0.984375,
        "first_layer": layers[0]["layer"],
        "layers": layers,
        "warnings": [],
        "notes": [],
    }


def work_of(random_numbers: random.Random) -> dict:
    """What it computes, as large as a real one."""
    counts = ("synaptic_operations", "dense_synaptic_operations", "multiplications", "additions")

    def layer() -> dict[str, float]:
        arithmetic, memory = random_numbers.random() * 100, random_numbers.random() * 1000
        return {
            **{name: round(random_numbers.random() * 1e6, 1) for name in counts},
            "state_updates": 4336.0,
            "bits_moved": round(random_numbers.random() * 1e6, 1),
            "energy_compute_nj": arithmetic,
            "energy_memory_nj": memory,
            "energy_nj": arithmetic + memory,
        }

    return {
        **layer(),
        "float_energy_nj": 20344.0,
        "ann_energy_nj": 682.1,
        "ann_float_energy_nj": 27489.0,
        "time_steps": 4,
        "samples": 64,
        "energy_model": "Horowitz, ISSCC 2014: 45 nm, 0.9 V",
        "layers": {f"network.blocks.{block}.synapse": layer() for block in range(4)},
        "lines": [f"line {index} {random_numbers.random()} of the work" for index in range(4)],
    }


def write(folder: Path, start: int, stop: int) -> None:
    """Write records as train.py does, without waiting for the disk each time."""
    random_numbers = random.Random(start)
    for index in range(start, stop):
        path = folder / f"{index // 1000:03}" / f"run{index:06}" / "record.json"
        path.parent.mkdir(parents=True)
        values = record_of(index, random_numbers).to_dict()
        path.write_text(json.dumps(values, sort_keys=True, indent=2) + "\n")


def measure(folder: Path, *overrides: str) -> tuple[float, float, str]:
    """Seconds of wall clock, seconds of CPU, and the first line of one run of select.py."""
    command = [sys.executable, str(ROOT / "select.py"), f"runs={folder}", *overrides]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, done.stdout.partition("\n")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time select.py on many records.")
    parser.add_argument("counts", nargs="*", type=int, default=[1000, 10_000, 100_000])
    parser.add_argument("--keep", type=Path, help="write the records here, and leave them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        written = len(list(folder.glob("*/run*")))
        for count in sorted(given.counts):
            write(folder, written, max(written, count))
            written = max(written, count)
            wall, cpu, line = measure(folder, "target.max_drop=0.1")
            print(f"{count:,} records: {wall:.2f} s, {cpu:.2f} s of CPU; {line}", flush=True)


if __name__ == "__main__":
    main()
