"""FSDP2: torch's engine finds what one process finds, and its state can be put together."""

import sys

import pytest

from minillm.parallel.cluster import run
from tests.parallel import rank_functions_zero
from tests.parallel.test_zero import check


# --- twin -----------------------------------------------------------------------------------------
@pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")
def test_training_under_fsdp_is_training_as_one():
    for rank in run(rank_functions_zero.fully_sharded, 2, time_limit=300.0):
        assert set(rank) == {"torch's AdamW", "Lion"}
        for result in rank.values():
            check(result)
