"""The mesh: who works with whom; and plans as they are written."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.parallel import mesh as meshes
from minillm.parallel.mesh import AXES, Mesh, Plan, parse

MESHES = st.builds(Mesh, dp=st.integers(1, 3), pp=st.integers(1, 3), tp=st.integers(1, 3))


# --- by hand --------------------------------------------------------------------------------------
def test_tp_counts_fastest_then_pp_then_dp():
    mesh = Mesh(dp=2, pp=2, tp=2)
    assert mesh.place(6) == {"dp": 1, "pp": 1, "tp": 0}
    lines = {axis: mesh.line(axis, 6) for axis in AXES}
    assert lines == {"dp": [2, 6], "pp": [4, 6], "tp": [6, 7]}


@pytest.mark.parametrize(
    ("text", "n_ranks", "plan"),
    [
        ("dp=2", 2, Plan(mesh=Mesh(dp=2))),
        ("zero=0", 3, Plan(mesh=Mesh(dp=3), data="zero", stage=0)),
        ("zero=3", 4, Plan(mesh=Mesh(dp=4), data="zero", stage=3)),
        ("fsdp=4", 4, Plan(mesh=Mesh(dp=4), data="fsdp")),
        (" tp=2, pp=3 ,dp=2", 12, Plan(mesh=Mesh(dp=2, pp=3, tp=2))),
    ],
)
def test_a_plan_is_read(text, n_ranks, plan):
    assert parse(text, n_ranks) == plan


# --- law ------------------------------------------------------------------------------------------
@given(MESHES)
def test_places_are_all_different_and_in_order(mesh):
    places = [[mesh.place(rank)[axis] for axis in AXES] for rank in range(mesh.n_ranks)]
    assert all(one < two for one, two in pairwise(places))


@given(MESHES, st.sampled_from(AXES))
def test_the_lines_of_an_axis_are_all_ranks_once_and_two_axes_meet_in_one_rank(mesh, axis):
    lines = {rank: mesh.line(axis, rank) for rank in range(mesh.n_ranks)}
    for rank, line in lines.items():
        assert len(line) == getattr(mesh, axis)
        assert line[mesh.place(rank)[axis]] == rank
        assert all(lines[other] == line for other in line)
        for another in set(AXES) - {axis}:
            assert set(line) & set(mesh.line(another, rank)) == {rank}


@given(MESHES)
@settings(max_examples=15)  # all ranks of each ask for all lines
def test_all_ranks_make_the_same_groups_in_the_same_order(mesh):
    asked = {}
    for rank in range(mesh.n_ranks):
        with pytest.MonkeyPatch.context() as patched:
            made = asked[rank] = {}
            patched.setattr(meshes.distributed, "get_rank", lambda rank=rank: rank)
            patched.setattr(
                meshes.distributed,
                "new_group",
                lambda ranks, made=made: (
                    made.setdefault(meshes.ProcessGroup(0, 1), ranks) and [*made][-1]
                ),
            )
            own = {axis: made[group] for axis, group in mesh.groups().items()}
        assert own == {axis: mesh.line(axis, rank) for axis in AXES}
    assert all(list(made.values()) == list(asked[0].values()) for made in asked.values())


# --- refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "n_ranks", "message"),
    [
        ("dp", 2, "a plan is written .* got 'dp'"),
        ("dp=two", 2, "a plan is written"),
        ("dp=-2", 2, "a plan is written"),
        ("ep=2", 2, "a plan is written"),
        ("dp=2,dp=2", 4, "a plan is written"),
        ("", 1, "a plan is written"),
        ("zero=4", 2, "stages 0 to 3; got 'zero=4'"),
        ("fsdp=2,tp=2", 4, "fsdp takes all ranks, and is not combined here"),
        ("dp=2,zero=3", 2, "zero takes all ranks"),
        ("tp=2,dp=2", 2, "is for 4 ranks, and there are 2"),
        ("fsdp=4", 2, "is for 4 ranks, and there are 2"),
        ("dp=0", 1, "each axis needs at least one rank"),
        ("fsdp=0", 1, "each axis needs at least one rank"),
    ],
)
def test_a_plan_that_is_none_is_refused(text, n_ranks, message):
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        parse(text, n_ranks)
