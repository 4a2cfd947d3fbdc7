"""
How an OpenAI-shaped answer is dressed for its caller: five systems share the shape, each with extras of its own.

Which flavour applies follows the path, then the API key, then its workspace, and never guesswork. A flavour reads and
writes one level of JSON; the plain one of OpenAI changes nothing and costs nothing.
"""

from providers.flavours.cloud_temple import CloudTemple
from providers.flavours.ektos import Ektos
from providers.flavours.evolink import EvoLink
from providers.flavours.ikalas import PATHS as IKALAS_PATHS
from providers.flavours.ikalas import Ikalas
from providers.flavours.plain import Flavour

OPENAI = Flavour()
BY_NAME = {flavour.name: flavour for flavour in (OPENAI, Ikalas(), CloudTemple(), EvoLink(), Ektos())}

# What stands before a path of the API and says whose flavour is meant.
PREFIXES = {
    "/api/v1/": BY_NAME["ikalas"],
    "/ikalas/api/v1/": BY_NAME["ikalas"],
    "/cloud-temple/v1/": BY_NAME["cloud-temple"],
    "/evolink/v1/": BY_NAME["evolink"],
    "/ektos/v1/": BY_NAME["ektos"],
    "/openai/v1/": OPENAI,
}
ROOTS = tuple(PREFIXES)


def at_path(path: str) -> tuple[Flavour | None, str]:
    """
    The flavour that a path says, ``None`` where it says none, and the same path under ``/v1/``.

    ``/api/v1/conversation`` is Ikalas' name for ``/v1/chat/completions``.
    """
    if path.startswith("/v1/") or not path.startswith(ROOTS):
        return None, path
    prefix = next(prefix for prefix in ROOTS if path.startswith(prefix))
    flavour, rest = PREFIXES[prefix], path.removeprefix(prefix)
    return flavour, "/v1/" + (IKALAS_PATHS.get(rest, rest) if flavour.name == "ikalas" else rest)
