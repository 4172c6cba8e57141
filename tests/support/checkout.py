"""Where the checkout is that is tested."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
