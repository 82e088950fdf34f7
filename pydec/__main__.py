"""``python -m pydec`` is the ``pydec`` command."""

from __future__ import annotations

import sys

from pydec.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
