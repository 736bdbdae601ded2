"""What this machine is, and what it will take for the course.

Chapter: 00
"""

import importlib.metadata
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Iterable, Iterator

from minillm.lab.project import building, my, root, syllabus
from minillm.lab.threads import threads, use_threads

PACKAGES = ("torch", "numpy", "tiktoken", "matplotlib", "jupyterlab", "nbval")
REFERENCE_GFLOPS = 50  # one core of the machines on which the budgets were measured
WORTH_IT = 1.3  # times as fast, from which on a second thread is worth its risk
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


def gain_of_a_second_thread(seconds: float = 1.0) -> float:
    """Pass forward and back through a small network with one and with two threads, in turns.

    The passes are as small as the course's: 512 tokens, 130,000 parameters.

    Args:
        seconds: how long to measure; each number of threads has at least three passes.

    Returns:
        How many times as fast a pass is with two threads: median of one ÷ median of two.
    """
    import torch
    from torch import nn

    blocks = [
        nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        for _ in range(2)
    ]
    network = nn.Sequential(nn.Embedding(512, 64), *blocks, nn.Linear(64, 512))
    tokens = torch.arange(512)
    before, took = torch.get_num_threads(), {1: [], 2: []}
    start = time.perf_counter()
    while len(took[1]) < 4 or time.perf_counter() - start < seconds:
        for n_threads, times in took.items():
            torch.set_num_threads(n_threads)
            began = time.perf_counter()
            nn.functional.cross_entropy(network(tokens), tokens).backward()
            network.zero_grad()
            times.append(time.perf_counter() - began)
    torch.set_num_threads(before)
    # the first of each makes buffers and starts the threads
    return statistics.median(took[1][1:]) / statistics.median(took[2][1:])


def gain_of_bfloat16(seconds: float = 1.0) -> float:
    """Pass forward and back through a network, in float32 and with products in bfloat16, in turns.

    Its matrices have the size from which on it is worth it where a processor has instructions for
    bfloat16; where it has none, the course's float32 is several times faster.

    Args:
        seconds: how long to measure; each way has at least three passes.

    Returns:
        How many times as fast a pass is in bfloat16: the ratio of the medians.
    """
    import torch
    from torch import nn

    blocks = [
        nn.Sequential(nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384)) for _ in range(2)
    ]
    network = nn.Sequential(*blocks)
    x = torch.randn(128, 384, generator=torch.Generator().manual_seed(0))
    took = {False: [], True: []}
    start = time.perf_counter()
    while len(took[True]) < 4 or time.perf_counter() - start < seconds:
        for in_bfloat16, times in took.items():
            began = time.perf_counter()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16):
                y = network(x)
            y.float().square().mean().backward()
            network.zero_grad()
            times.append(time.perf_counter() - began)
    return statistics.median(took[False][1:]) / statistics.median(took[True][1:])


def busy_cores(seconds: float = 0.5) -> float | None:
    """How many cores other programs keep busy while this one sleeps; None if nobody can tell."""
    try:
        import psutil
    except ImportError:  # it comes with Jupyter's kernel
        return None
    return psutil.cpu_percent(seconds) / 100 * (os.cpu_count() or 1)


def memory_gib() -> float | None:
    """The machine's memory in GiB, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return _windows_memory_gib()


def diagnose(seconds: float = 2.0) -> Iterator[tuple[str, str, str]]:
    """One line a fact: its name, what was found, and a remark ("" if all is well).

    Args:
        seconds: for the matrices; half of that for each of the three other measurements.
    """
    use_threads()
    version = platform.python_version()
    yield "Python", version, "" if sys.version_info >= (3, 11) else "needs 3.11 or later"
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name), ""
        except importlib.metadata.PackageNotFoundError:
            yield name, "missing", "type `make learn`, or pip install -e .[course,test]"
    cores = os.cpu_count() or 1
    yield "cores", str(cores), "" if cores > 1 else "one core: make test takes twice as long"
    yield "threads used", str(threads()), "" if threads() == 1 else "OMP_NUM_THREADS says so"
    busy = busy_cores(seconds / 2)
    load = "unknown" if busy is None else f"keep {busy:.1f} cores busy"
    remark = (
        "what is timed will differ; more threads would be slower" if busy and busy > 0.5 else ""
    )
    yield "other programs", load, remark
    if cores - (busy or 0) < 1.5:  # the two threads would wait for each other
        yield "a second thread", "not measured", "no core is free for it"
    else:
        gain = gain_of_a_second_thread(seconds / 2)
        remark = "the course uses one" if gain < WORTH_IT else "OMP_NUM_THREADS=2 asks for it"
        yield "a second thread", f"steps {gain:.2f} times as fast", remark
    gain = gain_of_bfloat16(seconds / 2)
    remark = 'for models of 10 M: precision = "bf16" in a recipe'
    remark = remark if gain >= WORTH_IT else "the course trains in float32"
    yield "bfloat16", f"steps {gain:.2f} times as fast", remark
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
    yield "matrix product", f"{rate:.0f} GFLOP/s", "" if rate >= 12 else "slow; is it busy?"
    chapters = sum(chapter.finished for chapter in syllabus())
    minutes = chapters * SECONDS_A_NOTEBOOK * REFERENCE_GFLOPS / rate / 60
    yield (
        "running all",
        f"about {max(1, round(minutes))} min",
        f"{chapters} chapters, top to bottom",
    )


def report(later: Iterable[tuple[str, str, str]] = ()) -> None:
    """Print the diagnosis as a table.

    Args:
        later: lines that modules of later chapters add.
    """
    if not building():
        print("looking around, and computing for five seconds …")
    for name, value, remark in (*diagnose(), *later):
        print(f"{name:>15}  {value}{f'   ({remark})' if remark else ''}")


def _font() -> tuple[str, str]:
    from matplotlib import font_manager

    names = {font.name for font in font_manager.fontManager.ttflist}
    is_there = "DejaVu Sans" in names
    return ("DejaVu Sans", "") if is_there else ("none", "figures fall back to another font")


def _windows_memory_gib() -> float | None:
    try:
        import psutil
    except ImportError:
        return None
    return psutil.virtual_memory().total / 2**30
