import argparse
import threading

from tests.upstream import Upstream

parser = argparse.ArgumentParser(prog="python -m tests.upstream", description="Run a scripted upstream by hand.")
parser.add_argument("--port", type=int, default=9100)
parser.add_argument("--model", action="append", help="listed under /v1/models; may be repeated")
options = parser.parse_args()
with Upstream(port=options.port, models=options.model or ["m-8-0", "m-50-20"]) as upstream:
    print(f"The scripted upstream listens at {upstream.url}")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
