"""Shapes checked while tests run: beartype for functions whose signature speaks of tensors.

The library itself never pays for it (DESIGN §2.8). Other functions are left as they are, since
their own messages, not beartype's, are what a learner must see for a wrong argument.
"""

from collections.abc import Callable

from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

_CHECK = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float


def checked(function: Callable) -> Callable:
    """Beartype's version of a function with a jaxtyping annotation; any other one unchanged."""
    annotations = getattr(function, "__annotations__", {}).values()
    if any(_names_a_shape(annotation) for annotation in annotations):
        return _CHECK(function)
    return function


def _names_a_shape(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return True
    return any(_names_a_shape(part) for part in getattr(annotation, "__args__", ()))
