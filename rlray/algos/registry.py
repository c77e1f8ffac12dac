"""Finding an algorithm by name, without importing it (or torch) before it is asked for."""

from __future__ import annotations

import difflib
import importlib

from rlray.algos.types import Algorithm

BUNDLED = {
    "apex": "rlray.algos.apex:ALGORITHM",
    "appo": "rlray.algos.appo:ALGORITHM",
    "dqn": "rlray.algos.dqn:ALGORITHM",
    "es": "rlray.algos.es:ALGORITHM",
    "impala": "rlray.algos.impala:ALGORITHM",
    "ppo": "rlray.algos.ppo:ALGORITHM",
    "pqn": "rlray.algos.pqn:ALGORITHM",
    "sac": "rlray.algos.sac:ALGORITHM",
}


def get_algorithm(name: str) -> Algorithm:
    """The algorithm called ``name``: a bundled one (`algorithm_names`) or ``package.module:ATTRIBUTE``.

    Importing an algorithm's folder loads its settings only; torch comes with the first policy or learner made.

    Raises:
        TypeError: ``name`` is no string, or what it leads to is no `Algorithm`.
        ValueError: nothing is known under that name; the message has the nearest names.
    """
    if not isinstance(name, str):
        raise TypeError(f"algorithm name must be a string, got {name!r}")
    if name not in BUNDLED and ":" not in name:
        near = difflib.get_close_matches(name.lower(), BUNDLED, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Bundled are: {', '.join(BUNDLED)}."
        raise ValueError(f"unknown algorithm {name!r}. {hint} Your own is named as 'package.module:ATTRIBUTE'.")
    found = import_attribute(BUNDLED.get(name, name), "algorithm")
    if not isinstance(found, Algorithm):
        raise TypeError(
            f"algorithm {name!r} must be an rlray.algos.Algorithm, but is a {type(found).__name__}: make one by "
            f"Algorithm(name=..., config=..., make_policy=..., make_learner=...)"
        )
    return found


def algorithm_names() -> tuple[str, ...]:
    """The bundled names, sorted."""
    return tuple(sorted(BUNDLED))


def import_attribute(path: str, what: str) -> object:
    """What ``package.module:ATTRIBUTE`` names; ``what`` says in errors what it was meant for.

    An exception raised while the module runs is passed on as it is, but for a module that it does not find.

    Raises:
        ValueError: the path has another form, no such module can be found, or it has no such attribute.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute.isidentifier() or not all(p.isidentifier() for p in module_name.split(".")):
        raise ValueError(f"{what} {path!r} must have the form 'package.module:ATTRIBUTE'")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None:
            raise
        if not (module_name + ".").startswith(error.name + "."):
            text = f"{what} {path!r}: it imports {error.name!r}, and no such module can be found; install it"
            raise ModuleNotFoundError(text, name=error.name) from error
        raise ValueError(
            f"{what} {path!r}: no module {error.name!r} can be found; put it beside the configuration or into "
            f"the current folder, name its folder in the key 'code', or install it"
        ) from error
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        near = difflib.get_close_matches(attribute, public, n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Check its spelling."
        where = getattr(module, "__file__", None)
        raise ValueError(f"{what} {path!r}: module {module_name!r} ({where}) has no {attribute!r}. {hint}")
    return getattr(module, attribute)
