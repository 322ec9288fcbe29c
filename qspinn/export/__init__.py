"""The quantised network as it leaves qspinn: the device model and its file, ``model.qspinn``.

* :mod:`qspinn.export.packing`: codes at their word length, without unused bits;
* :mod:`qspinn.export.container`: the file, byte by byte in ``docs/model_file.md``.
"""
