"""Run the command line as ``python -m minillm``.

Chapter: app
"""

from minillm.cli import main

if __name__ == "__main__":
    main()
