"""The mesh (设备网格): who works with whom, when several kinds of parallelism are combined.

N ranks are laid out in a grid with an axis for each kind: dp (copies that share the data), pp
(stages of the model's depth) and tp (slices of every layer), N = dp · pp · tp. A rank works along
an axis with those that differ from it in that axis alone. tp counts fastest, since it talks most,
and neighbours are near:

    dp=2, tp=2        tp →          tp groups: [0, 1] [2, 3]
                      0   1
              dp ↓    2   3         dp groups: [0, 2] [1, 3]

Paper: Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using
Megatron-LM", arXiv:2104.04473, section 3.2 (tp inside a machine).
Differs: none.

Chapter: 15
"""

from dataclasses import dataclass
from typing import Literal, final

from torch import distributed
from torch.distributed import ProcessGroup

AXES = ("dp", "pp", "tp")  # the last one fastest
KINDS = ("dp", "zero", "fsdp", "pp", "tp")


@final
@dataclass(frozen=True, kw_only=True)
class Mesh:
    """The grid of ranks.

    Args:
        dp, pp, tp: ranks along each axis.

    Raises:
        ValueError: an axis of less than one rank.

    Example:
        >>> mesh = Mesh(dp=2, tp=2)
        >>> mesh.place(3), mesh.line("dp", 3), mesh.line("tp", 3)
        ({'dp': 1, 'pp': 0, 'tp': 1}, [1, 3], [2, 3])
    """

    dp: int = 1
    pp: int = 1
    tp: int = 1

    def __post_init__(self):
        if min(self.dp, self.pp, self.tp) < 1:
            raise ValueError(f"each axis needs at least one rank; got {self}")

    @property
    def n_ranks(self) -> int:
        """N."""
        return self.dp * self.pp * self.tp

    def place(self, rank: int) -> dict[str, int]:
        """Where a rank stands along each axis."""
        place = {}
        for axis in reversed(AXES):
            rank, place[axis] = divmod(rank, getattr(self, axis))
        return {axis: place[axis] for axis in AXES}

    def line(self, axis: str, rank: int) -> list[int]:
        """The ranks that differ from this one along the axis alone, itself with them, in order."""
        place = self.place(rank)
        others = [each for each in AXES if each != axis]
        return [
            each
            for each in range(self.n_ranks)
            if all(self.place(each)[other] == place[other] for other in others)
        ]

    def groups(self) -> dict[str, ProcessGroup]:
        """This rank's process group along each axis; all ranks call this, once."""
        own = distributed.get_rank()
        groups = {}
        for axis in AXES:
            for ranks in {tuple(self.line(axis, rank)): None for rank in range(self.n_ranks)}:
                group = distributed.new_group(list(ranks))  # every rank makes all, in one order
                if own in ranks:
                    groups[axis] = group
        return groups


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a model is trained on many ranks.

    Args:
        mesh: the grid.
        data: what the ranks along dp hold: "dp" (all of it), "zero" (see stage) or "fsdp".
        stage: of ZeRO.
    """

    mesh: Mesh
    data: Literal["dp", "zero", "fsdp"] = "dp"
    stage: int = 0


def parse(text: str, n_ranks: int) -> Plan:
    """A plan as it is written on the command line.

    "dp=2", "fsdp=2", "tp=2", "pp=2" say ranks; "tp=2,dp=2" a product; "zero=3" the stage, on all.

    Raises:
        ValueError: an unknown word, no number, a stage that is none, a product that is not N.

    Example:
        >>> parse("tp=2,dp=2", 4).mesh
        Mesh(dp=2, pp=1, tp=2)
        >>> parse("zero=3", 2)
        Plan(mesh=Mesh(dp=2, pp=1, tp=1), data='zero', stage=3)
    """
    how = 'a plan is written "dp=2", "zero=3", "fsdp=2", "tp=2", "pp=2" or "tp=2,dp=2"'
    numbers: dict[str, int] = {}
    for part in text.split(","):
        kind, _, number = part.strip().partition("=")
        if kind not in KINDS or not number.isdecimal() or kind in numbers:
            raise ValueError(f"{how}; got {text!r}")
        numbers[kind] = int(number)
    alone = [kind for kind in ("zero", "fsdp") if kind in numbers]
    if alone and len(numbers) > 1:
        raise ValueError(f"{alone[0]} takes all ranks, and is not combined here; got {text!r}")
    if "zero" in numbers:
        if numbers["zero"] not in range(4):
            raise ValueError(f"ZeRO has the stages 0 to 3; got {text!r}")
        return Plan(mesh=Mesh(dp=n_ranks), data="zero", stage=numbers["zero"])
    data = alone[0] if alone else "dp"
    mesh = Mesh(dp=numbers.pop(data, 1), **numbers)
    if mesh.n_ranks != n_ranks:
        raise ValueError(
            f"the plan {text!r} is for {mesh.n_ranks} ranks, and there are {n_ranks}; its numbers "
            "multiplied must be the number of ranks (--ranks, or torchrun's)"
        )
    return Plan(mesh=mesh, data=data)
