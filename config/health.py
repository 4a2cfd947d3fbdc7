"""Whether the server on this machine is ready: the exit status says so. Containers ask it."""

import os
import sys

from config.up import answers

if __name__ == "__main__":
    sys.exit(not answers("127.0.0.1", int(os.environ.get("COMPTOIR_PORT") or 8000), "/readyz"))
