"""How fast the gateway is, as ratios against the bare upstream in the same run. ``python -m bench --help``."""
