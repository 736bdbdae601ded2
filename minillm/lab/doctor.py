"""What this machine is, and what it will take for the course.

Chapter: 00
"""

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator

from minillm.lab.project import building, my, root, syllabus
from minillm.lab.setup import threads

PACKAGES = ("torch", "numpy", "tiktoken", "matplotlib", "jupyterlab", "nbval")
REFERENCE_GFLOPS = 60  # two idle cores of the machines on which the budgets were measured
SECONDS_A_NOTEBOOK = 45  # the budget's average, on that reference


def measure_gflops(seconds: float = 2.0, size: int = 1024) -> float:
    """Multiply float32 matrices for a while, and give the rate.

    A product of two n×n matrices is 2n³ operations: n² dot products of n multiplications and n
    additions each.

    Args:
        seconds: how long to multiply.
        size: n.

    Returns:
        10⁹ floating-point operations a second, on the threads that torch is set to.
    """
    import torch

    left, right = torch.rand(size, size), torch.rand(size, size)
    out = left @ right
    products, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        torch.matmul(left, right, out=out)
        products += 1
    return products * 2 * size**3 / elapsed / 1e9


def memory_gib() -> float | None:
    """The machine's memory in GiB, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return _windows_memory_gib()


def diagnose(seconds: float = 2.0) -> Iterator[tuple[str, str, str]]:
    """One line a fact: its name, what was found, and a remark ("" if all is well)."""
    version = platform.python_version()
    yield "Python", version, "" if sys.version_info >= (3, 11) else "needs 3.11 or later"
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name), ""
        except importlib.metadata.PackageNotFoundError:
            yield name, "missing", "type `make learn`, or pip install -e .[course,test]"
    cores = os.cpu_count() or 1
    yield "cores", str(cores), "" if cores > 1 else "one core: expect twice the time"
    yield "threads used", str(threads()), ""
    memory = memory_gib()
    if memory is None:
        yield "memory", "unknown", "the course needs 4 GiB"
    else:
        yield "memory", f"{memory:.1f} GiB", "" if memory >= 4 else "the course needs 4 GiB"
    free = shutil.disk_usage(root()).free / 2**30
    yield "disk free", f"{free:.1f} GiB", "" if free >= 2 else "the course needs 2 GiB"
    yield "your folder", str(my()), "" if my().exists() else "made by `minillm start`"
    yield "figure font", *_font()
    rate = measure_gflops(seconds)
    yield "matrix product", f"{rate:.0f} GFLOP/s", "" if rate >= 15 else "slow; is it busy?"
    chapters = sum(chapter.finished for chapter in syllabus())
    minutes = chapters * SECONDS_A_NOTEBOOK * REFERENCE_GFLOPS / rate / 60
    yield (
        "running all",
        f"about {max(1, round(minutes))} min",
        f"{chapters} chapters, top to bottom",
    )


def report() -> None:
    """Print the diagnosis as a table."""
    if not building():
        print("looking around, and multiplying matrices for two seconds …")
    for name, found, remark in diagnose():
        print(f"{name:>15}  {found}{f'   ({remark})' if remark else ''}")


def _font() -> tuple[str, str]:
    from matplotlib import font_manager

    names = {font.name for font in font_manager.fontManager.ttflist}
    found = "DejaVu Sans" in names
    return ("DejaVu Sans", "") if found else ("none", "figures fall back to another font")


def _windows_memory_gib() -> float | None:
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().total / 2**30
