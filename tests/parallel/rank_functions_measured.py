"""What ranks do in `test_measured`."""

from typing import Any

from minillm.parallel import measured


def everything() -> dict[str, Any]:
    """All that can be measured, in one launch."""
    return {
        "sum": measured.ring_sum(4),
        "equality": measured.equality(),
        "stages": [measured.bytes_of_stages(n) for n in (1, 2)],
        "times": measured.ring_times([2, 64], repeats=3),
    }
