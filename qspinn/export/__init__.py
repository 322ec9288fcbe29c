"""Networks from and for elsewhere.

* :mod:`qspinn.export.nir_reading`: a NIR graph becomes a SpikingJelly module. It needs the package
  ``nir``, which nothing else does: import it by this name.
"""
