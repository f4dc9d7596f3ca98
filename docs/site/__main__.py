"""Build the site into a directory: python -m docs.site OUT"""

from __future__ import annotations

import sys
from pathlib import Path

from docs.site.build import build

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    sys.exit("\n".join(build(Path(sys.argv[1]))) or None)
