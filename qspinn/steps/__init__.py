"""What one time step of a quantised network computes, written once for every engine.

A step is a function in a few words (:mod:`qspinn.steps.words`) over whole numbers:

* :mod:`qspinn.steps.roundings`: how an exact value becomes a code;
* :mod:`qspinn.steps.neurons`: charge, fire, reset, adaptive thresholds;
* :mod:`qspinn.steps.traces`: traces of synapses and of neurons;
* :mod:`qspinn.steps.plasticity`: how weights change by themselves.

Called with Python integers, NumPy integers or integer tensors it computes codes; called with floats
it computes the float network, or, where a format is given, the values on its grid with
straight-through gradients. :mod:`qspinn.steps.targets` compiles the same functions with numba and
Triton, and writes them in C. :mod:`qspinn.steps.lowering` makes the integer constants.
"""
