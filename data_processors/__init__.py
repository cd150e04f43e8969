"""Public data sets and the visual gym, as canonical samples.

A processor is a module of this package with a DESCRIPTION, a function `convert(row)`, and, for a set that repeats its
rows, a function `key(row)`. Putting the module here is all it takes.
"""

from __future__ import annotations

import difflib
import pkgutil
from importlib import import_module

from data_processors.conversion.description import Processor
from mm_agrae.errors import ConfigError


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


def processor_named(name: str) -> Processor:
    """The processor of a data set.

    Raises:
        ConfigError: If there is none of this name; the message offers the nearest.
    """
    if name not in PROCESSORS:
        near = difflib.get_close_matches(name, PROCESSORS, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(PROCESSORS)}."
        raise ConfigError(f"no data processor is called {name!r}. {remedy}")
    return PROCESSORS[name]
