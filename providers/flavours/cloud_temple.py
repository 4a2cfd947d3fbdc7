"""Cloud Temple LLMaaS: every answer says which machine gave it, and the model list is vLLM's with aliases."""

import functools
import re
import unicodedata

from providers.flavours.plain import DRESSED, Flavour, decoded

PAIR = re.compile(r"\s*(engine_type|machine_name)\s*=\s*\"?([^;\",]+)\"?\s*(?:[;,]|$)")


class CloudTemple(Flavour):
    name = "cloud-temple"

    def headers(self, call, target=None, upstream_headers=None):
        """``id``, and ``backend`` where somebody was asked: Cloud Temple's own word if it was they."""
        told = [(b"id", call.id.encode())]
        if target is not None:
            said = _said(target, upstream_headers) or "; ".join(f"{k}={v}" for k, v in backend_of(target).items())
            told.append((b"backend", said.encode()))
        return told

    def rewrites(self, format_name, target):
        return format_name in DRESSED

    def dress(self, fields, answer):
        """Name the backend, in every chunk too, and put ``reasoning_tokens`` in the usage: 0 where none are told."""
        dressed = fields if "backend" in fields else {"backend": backend_of(answer.target, answer.headers)} | fields
        usage = decoded(fields, "usage")
        if isinstance(usage, dict) and "reasoning_tokens" not in usage:
            details = usage.get("completion_tokens_details")
            told = details.get("reasoning_tokens") if isinstance(details, dict) else None
            dressed = dressed | {"usage": usage | {"reasoning_tokens": told or 0}}
        return dressed

    def model_item(self, target):
        name, created = target.public_name, target.created
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "CloudTemple" if target.kind == "cloud-temple" else target.provider_name,
            "root": name,
            "aliases": [name, *target.aliases],
            "parent": None,
            "max_model_len": target.context_window,
            "permission": [
                {
                    "id": f"modelperm-{name}-{created}",
                    "object": "model_permission",
                    "created": created,
                    "allow_create_engine": False,
                    "allow_sampling": True,
                    "allow_logprobs": True,
                    "allow_search_indices": False,
                    "allow_view": True,
                    "allow_fine_tuning": False,
                    "organization": "*",
                    "group": None,
                    "is_blocking": False,
                }
            ],
        }


def backend_of(target, upstream_headers=None):
    """The engine and the machine: as Cloud Temple's header names them, else the provider's kind and name."""
    backend = {"engine_type": target.kind, "machine_name": identifier(target.provider_name)}
    return backend | dict(PAIR.findall(_said(target, upstream_headers) or ""))


def _said(target, upstream_headers):
    """Cloud Temple's own ``backend`` header, fit to be sent on; ``None`` of any other provider."""
    said = (upstream_headers or {}).get("backend") if target.kind == "cloud-temple" else None
    return said if said and len(said) <= 200 and said.isascii() and said.isprintable() else None


@functools.lru_cache(1024)
def identifier(name):
    """``name`` as letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or "provider"
