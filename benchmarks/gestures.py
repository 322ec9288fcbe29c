"""The tables of docs/results/gestures.md: synthetic gestures, 32-bit against quantised, two rules.

Runs ``train.py`` once per learning rule and seed: in 32-bit, with all post-training quantisations
of that training, and once more per in-training quantisation and per mixture of word lengths; those
of 4 and about 6 times smaller first. Finished runs are kept in the folder --runs, so the script can
be stopped and started again; the page has all that it finds there, and says what is missing.

    python benchmarks/gestures.py                                         # all of it, some hours
    python benchmarks/gestures.py --itq 8:nearest,5:nearest
    python benchmarks/gestures.py --experiment synthetic_gesture_decolle
    python benchmarks/gestures.py --report                                # only writes the page
"""

from __future__ import annotations

from event_results import NONE, Row, Rows, Setting, Study, main, percent, points

SEEDS = 3
# The trade-offs that are asked for most: about 4 and about 6 times smaller.
HIGHLIGHTS = tuple(Setting(scheme, bits, "nearest") for bits in (5, 8) for scheme in ("ptq", "itq"))
# Weights are most of the footprint: all else may have more bits and is still about 6 times smaller.
MIXED = tuple(Setting(scheme, 8, "nearest", weights=5) for scheme in ("ptq", "itq"))
RULES = {"synthetic_gesture": "Surrogate gradient", "synthetic_gesture_decolle": "DECOLLE"}


def overrides(seed: int) -> list[str]:
    """Of ``train.py``; no pictures of activity, which would take as long as a test.

    Nothing is chosen here, so that no subject needs to be held out for it.
    """
    return [f"seed={seed}", "callbacks.activity=null", "data.val_subjects=0"]


def introduction(rows: Rows) -> str:
    """What was learned from, and the rows that matter most."""
    return (
        "**Synthetic data**: recordings of `data=synthetic_gesture`, simulated in the format of "
        "DVS128 Gesture ([comparison with real clips](synthetic_gesture.md)). Accuracies on "
        "them say nothing about accuracies on DVS128 Gesture.\n\n"
        "605 training and 264 test samples of different subjects, eleven classes, 16 frames of "
        f"32x32 pixels and both polarities; {SEEDS} seeds (the recordings are the same for all). "
        "One test sample is 0.38 points. No subject is held out for validation "
        "(`data.val_subjects=0`): the tables report every setting and select none. The settings of "
        "DECOLLE were chosen on the test samples, by short trainings with one seed, so its 32-bit "
        "accuracy may be slightly too high.\n\n"
        f"{highlights(rows)}"
    )


def highlights(rows: Rows) -> str:
    """Rounding to nearest, one line per rule and setting."""
    lines = [
        "| rule | scheme | everything at | footprint | accuracy | loss | seeds |",
        "|---" * 7 + "|",
    ]
    for name, found in rows.items():
        measured = {row.setting: row for row in found}
        lines += [line(RULES[name], one, measured.get(one)) for one in (NONE, *HIGHLIGHTS, *MIXED)]
    return "\n".join(lines)


def line(rule: str, setting: Setting, row: Row | None) -> str:
    """One line of the highlights."""
    scheme = "none" if setting == NONE else setting.scheme.upper()
    head = f"| {rule} | {scheme} | {setting.word_length} bits |"
    if row is None:
        return f"{head} | not run | | 0 |"
    smaller = "" if setting == NONE else f"{row.baseline_bits / row.bits:.1f}x smaller"
    loss = "" if setting == NONE else points(row.losses)
    return f"{head} {smaller} | {percent(row.accuracies)} | {loss} | {len(row.accuracies)} |"


STUDY = Study(
    name="gestures",
    title="Synthetic gestures: surrogate gradient and DECOLLE in fixed point",
    rules=RULES,
    repetition="seed",
    repetitions=SEEDS,
    overrides=overrides,
    introduction=introduction,
    quantised=(
        "weights, biases, membrane potentials at every time step, thresholds, decays (for DECOLLE "
        "also the readout and the traces), all counted in the footprint, and event counts, which "
        "only pass through"
    ),
    command="python benchmarks/gestures.py",
    first=tuple(setting for setting in HIGHLIGHTS if setting.scheme == "itq"),
    mixed=MIXED,
)

if __name__ == "__main__":
    main(STUDY, __doc__)
