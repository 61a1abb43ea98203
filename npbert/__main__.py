"""``python -m npbert`` is the command ``npbert``."""

import sys

from npbert.cli import main

if __name__ == "__main__":
    sys.exit(main())
