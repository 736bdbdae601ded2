"""The tests' own shape checking: it must see a wrong shape, and leave other functions alone."""

import importlib

import pytest
import torch
from jaxtyping import TypeCheckError, install_import_hook

NAME = "planted_shapes"
SOURCE = """
from jaxtyping import Float, Int
from torch import Tensor

def doubled(x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
    return 2 * x

def transposed_by_mistake(x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
    return x.T

def optional(x: Int[Tensor, "T"] | None, scale: float) -> float:
    return scale

def plain(n: int) -> str:
    return f"got {n}"
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    (tmp_path / f"{NAME}.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with install_import_hook(NAME, "tests.typecheck.checked"):
        yield importlib.import_module(NAME)


def test_a_right_shape_passes(planted):
    assert planted.doubled(torch.ones(2, 3)).tolist() == [[2.0] * 3] * 2


def test_a_wrong_number_of_axes_is_seen(planted):
    with pytest.raises(TypeCheckError, match="T D"):
        planted.doubled(torch.ones(3))


def test_two_axes_that_change_places_are_seen(planted):
    with pytest.raises(TypeCheckError):
        planted.transposed_by_mistake(torch.ones(2, 3))


def test_an_int_may_stand_for_a_float_and_none_for_an_optional_tensor(planted):
    assert planted.optional(None, 2) == 2


def test_a_function_without_tensors_is_left_to_its_own_messages(planted):
    assert planted.plain("three") == "got three"
