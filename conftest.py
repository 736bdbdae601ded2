"""What pytest needs to know before it collects anything: notebooks are tests, and which come first.

Files run side by side, so the long ones begin first: then no core waits for the last of them.
"""

import signal

pytest_plugins = ["tools.nbval_plugin"]

# in the background of a shell Ctrl-C is ignored, and so it would be by all that tests start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = ("test_cli", "test_nbval", "test_jobs", "test_bootstrap", "test_writer", "test_compiled")
LONG += ("test_run", "test_run_stopped", "test_recall", "test_sweep")
LONG += tuple(f"{chapter:02}" for chapter in range(31, 4, -1))  # from 05 on, notebooks train models


def pytest_collection_modifyitems(items):
    """Long files first; the others, and what stands in one file, stay in their order."""
    places = {name: place for place, name in enumerate(LONG)}

    def place(item):
        name = item.path.stem
        return places.get(name[:2] if item.path.suffix == ".ipynb" else name, len(places))

    items.sort(key=place)
