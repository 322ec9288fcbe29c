"""The engines that steps are compiled for, besides Python, NumPy and torch.

``qspinn.steps.targets.numba`` and ``qspinn.steps.targets.triton`` supply the words;
``qspinn.steps.targets.c`` writes steps in C.
"""
