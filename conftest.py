"""What pytest needs to know before it collects anything: notebooks are tests too."""

pytest_plugins = ["tools.nbval_plugin"]
