"""The table of docs/results/nmnist.md: real event-camera recordings, 32-bit against quantised.

Runs ``train.py`` once per fold of a cross-validation over all recordings: in 32-bit, with all
post-training quantisations of that training, and once more per in-training quantisation. Finished
runs are kept in the folder --runs, so the script can be stopped and started again, and run for
other experiments (learning rules) later; the page has all that it finds there.

    python benchmarks/nmnist.py data.root=FOLDER                         # all of it, some hours
    python benchmarks/nmnist.py --itq 6:nearest,4:nearest data.root=FOLDER
    python benchmarks/nmnist.py --experiment nmnist data.root=FOLDER
    python benchmarks/nmnist.py --report                                 # only writes the page
"""

from __future__ import annotations

from event_results import Rows, Study, main

FOLDS = 5


def introduction(rows: Rows) -> str:
    """What was learned from."""
    return (
        "1,100 real recordings of N-MNIST (Orchard and others, 2015), 34x34 pixels, both "
        f"polarities; {FOLDS}-fold cross-validation over all of them: 880 for training, "
        "220 for testing. One recording of a fold is 0.45 points. No recording is held out for "
        "validation (`data.val_fraction=0`): the tables report every setting and select none.\n\n"
        "Surrogate gradient: three convolutional layers and an output layer with four neurons per "
        "class. DECOLLE: a convolutional and a fully connected layer, each trained by its own "
        "fixed random readout ([local learning](../local_learning.md)); synaptic and membrane "
        "traces of all inputs, refractory states and the last readout are also quantised and "
        "counted. Its number of epochs was chosen by the accuracy on fold 0."
    )


STUDY = Study(
    name="nmnist",
    title="N-MNIST: real recordings of an event camera",
    rules={"nmnist": "Surrogate gradient", "nmnist_decolle": "DECOLLE"},
    repetition="fold",
    repetitions=FOLDS,
    # Nothing is chosen here, so that no recording needs to be held out for it.
    overrides=lambda fold: [f"data.folds={FOLDS}", f"data.fold={fold}", "data.val_fraction=0"],
    introduction=introduction,
    quantised=(
        "weights, biases, membrane potentials at every time step, thresholds, decays and event "
        "counts (the footprint excludes the counts, which only pass through)"
    ),
    command="python benchmarks/nmnist.py data.root=FOLDER",
)

if __name__ == "__main__":
    main(STUDY, __doc__)
