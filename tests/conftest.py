"""For all tests: tensor signatures are checked, torch has one thread, and no clock decides.

Other programs may keep the cores busy, so an example may take any time, and an answer longer than
a learner's.
"""

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

from tests import typecheck

# the hook writes this name into every module of the library
install_import_hook("minillm", f"{typecheck.__name__}.{typecheck.checked.__name__}")

from minillm.lab import answers  # noqa: E402  (after the hook)
from minillm.lab.threads import use_threads  # noqa: E402

use_threads()
answers.SECONDS = 200
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture
def torch_threads():
    """Afterwards torch has as many threads as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
