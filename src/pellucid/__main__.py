"""``python -m pellucid``: the command line."""

from __future__ import annotations

from pellucid.cli import main

raise SystemExit(main())
