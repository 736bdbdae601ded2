"""Run the command line as ``python -m minillm``.

Chapter: roof
"""

from minillm.cli import main

if __name__ == "__main__":
    main()
