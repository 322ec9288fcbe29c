"""What :class:`qspinn.export.compiled.CompiledEngine` is made of.

* :mod:`qspinn.export.kernels.listing`: from a program to a list of calls of kernels, with places of
  all numbers in one array, which is the memory of one sample;
* :mod:`qspinn.export.kernels.run`: the compiled loop over samples, steps and calls;
* the other modules: how a kind of operation is listed, or compiled.
"""
