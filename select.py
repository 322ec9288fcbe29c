"""Select the best run: ``python select.py runs=outputs``.

This file has the name of a module of the standard library and hides it from every program that
runs from this folder (``subprocess`` needs it). Imported under that name, it therefore loads the
standard library's module and puts that in its place. It holds nothing else.
"""

import sys

if __name__ == "select":
    from importlib.machinery import BuiltinImporter, ExtensionFileLoader, PathFinder
    from importlib.util import module_from_spec

    # By the type of loader, one entry of the path after the other: a second checkout on the path
    # holds a file of this name as well, and must not be taken for the standard library's.
    found = [BuiltinImporter.find_spec(__name__)]
    found += [PathFinder.find_spec(__name__, [entry]) for entry in sys.path]
    for spec in found:
        loader = getattr(spec, "loader", None)
        if loader is BuiltinImporter or isinstance(loader, ExtensionFileLoader):
            module = module_from_spec(spec)
            sys.modules[__name__] = module
            loader.exec_module(module)
            break
    else:
        raise ImportError("the standard library's module select is not on sys.path", name=__name__)

elif __name__ == "__main__":
    # Under `python -m select` worker processes would import the main module again by its name,
    # get the standard library's, and never start. Without a spec they run this file by its path.
    __spec__ = None

    from qspinn.app.choose.select import main

    main()
