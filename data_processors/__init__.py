"""Public data sets and the visual gym, as canonical samples.

A processor is a module of this package with a DESCRIPTION, a function `convert(row)`, and, for a set that repeats its
rows, a function `key(row)`. Putting the module here is all it takes.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from data_processors.description import Processor


def _collect() -> dict[str, Processor]:
    found = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            continue
        names = vars(import_module(f"{__name__}.{module.name}"))
        if "DESCRIPTION" in names:
            description = names["DESCRIPTION"]
            found[description.name] = Processor(description=description, convert=names["convert"], key=names.get("key"))
    return dict(sorted(found.items()))


PROCESSORS: dict[str, Processor] = _collect()
