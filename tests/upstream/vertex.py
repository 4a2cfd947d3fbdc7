"""
Google's Vertex AI as far as it can be without Google: a token endpoint that checks the assertion it is given, and
Claude behind the paths of predictions. Nothing of Google's own library is in it.
"""

import base64
import json
import re
import time
import urllib.parse
from functools import cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.upstream.providers import PROVIDERS
from tests.upstream.scripts import Script
from tests.upstream.server import Connection, Upstream
from tests.upstream.wire import dumps

EMAIL = "comptoir@scripted.iam.gserviceaccount.com"
PROJECT = "/v1/projects/scripted/locations/europe-west1"
PREDICTION = re.compile(rf"{PROJECT}/publishers/anthropic/models/([^/:]+):(rawPredict|streamRawPredict)")
REFUSALS = {400: "INVALID_ARGUMENT", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
# Whom assertions are for, wherever the key file says that tokens are given out.
AUDIENCE = "https://oauth2.googleapis.com/token"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class VertexConnection(Connection):
    """One connection: gives tokens out, checks them, and plays the script of the model that the path names."""

    async def _play(self, request):
        if request.path == "/token":
            await self._give_token(request)
            return
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.upstream.tokens:
            await self._deny(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
            return
        found = PREDICTION.fullmatch(self.target.decode())
        if found is None:
            await self._deny(404, "NOT_FOUND", f"Nothing at {self.target.decode()}.")
            return
        model, method = urllib.parse.unquote(found[1]), found[2]
        asked = request.json
        counts = model == "count-tokens"
        if asked.get("anthropic_version") != "vertex-2023-10-16" or "anthropic-version" in request.headers:
            await self._deny(400, "INVALID_ARGUMENT", "anthropic_version: Field required")
        elif counts:
            request.endpoint = "messages/count_tokens"
            await self._act(request, self.upstream.script_for(asked["model"]))
        elif "model" in asked:
            await self._deny(400, "INVALID_ARGUMENT", "model: Extra inputs are not permitted")
        elif asked.get("stream", False) != (method == "streamRawPredict"):
            await self._deny(400, "INVALID_ARGUMENT", "stream does not go with the method")
        else:
            request.sent, request.endpoint = request.body, "messages"
            request.body = dumps(asked | {"model": model})
            await self._act(request, self.upstream.script_for(model))

    async def _give_token(self, request):
        upstream = self.upstream
        upstream.asked_for_token += 1
        await self._pause(upstream.token_delay)
        if upstream.token_refusal:
            status, body = upstream.token_refusal
            await self._send(Script(status=status, body=dumps(body)))
            return
        form = dict(urllib.parse.parse_qsl(request.body.decode(), strict_parsing=True))
        if problem := upstream.mistrusts(form):
            error = {"error": "invalid_grant", "error_description": problem}
            await self._send(Script(status=400, body=dumps(error)))
            return
        token = f"ya29.scripted-{len(upstream.tokens)}"
        upstream.tokens.append(token)
        answer = {"access_token": token, "expires_in": upstream.token_seconds, "token_type": "Bearer"}
        await self._send(Script(body=dumps(answer)))

    async def _refuse(self, request, script):
        await self._deny(script.status, REFUSALS.get(script.status, "INTERNAL"), script.message)

    async def _deny(self, status, kind, message):
        error = {"code": status, "message": message, "status": kind}
        await self._send(Script(status=status, body=dumps([{"error": error}])))


class VertexUpstream(Upstream):
    """Vertex AI in one project for one service account."""

    connection_class = VertexConnection
    provider = PROVIDERS["anthropic"]

    def __init__(self, **options):
        super().__init__(**options)
        self.forget()

    def forget(self):
        super().forget()
        self.tokens = []
        self.asked_for_token = 0
        self.token_seconds = 3599
        self.token_delay = 0
        self.token_refusal = None  # a status and a body

    @property
    def url(self):
        return f"{self.origin}{PROJECT}"

    @property
    def calls(self):
        return [request for request in self.requests if request.endpoint == "messages"]

    def credential_json(self, **changes):
        """The key file of the service account."""
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "scripted",
                "private_key_id": "scripted-key",
                "private_key": private_pem(),
                "client_email": EMAIL,
                "client_id": "1",
                "token_uri": f"{self.origin}/token",
            }
            | changes
        )

    def mistrusts(self, form):
        """Why an assertion is worth no token, or ``None``."""
        head, claims, signature = form["assertion"].split(".")
        try:
            private_key().public_key().verify(
                _decoded(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            return "Invalid JWT Signature."
        claims, now = json.loads(_decoded(claims)), time.time()
        if form["grant_type"] != GRANT or json.loads(_decoded(head))["alg"] != "RS256":
            return "Not an assertion."
        if claims["iss"] != EMAIL or claims["aud"] != AUDIENCE:
            return "Issued by or for somebody else."
        if not claims["iat"] - 60 <= now < claims["exp"] <= claims["iat"] + 3600:
            return "Not now."
        return None if "https://www.googleapis.com/auth/cloud-platform" in claims["scope"].split() else "No scope."


@cache
def private_key():
    return rsa.generate_private_key(65537, 2048)


@cache
def private_pem():
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return private_key().private_bytes(*form).decode()


def _decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
