"""
Amazon Bedrock as far as it can be without Amazon: signatures checked by the letter of their specification, Claude's
answers and streams in frames of the event stream. Nothing of Amazon's own library is in it.
"""

import base64
import binascii
import datetime
import hashlib
import hmac
import json
import re
import struct
import urllib.parse

from tests.upstream.providers import PROVIDERS
from tests.upstream.scripts import Script
from tests.upstream.server import Connection, Upstream
from tests.upstream.wire import dumps

ACCESS_KEY_ID = "AKIDSCRIPTEDUPSTREAM"
SECRET_ACCESS_KEY = "scripted/secret+of/the/upstream/0123456789"
PATH = re.compile(r"/model/([^/]+)/(invoke|invoke-with-response-stream|count-tokens)")
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+), Signature=(\w+)"
)
REFUSALS = {
    400: "ValidationException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    408: "ModelTimeoutException",
    424: "ModelErrorException",
    429: "ThrottlingException",
    503: "ServiceUnavailableException",
}
EXCEPTIONS = {"overloaded_error": "throttlingException", "invalid_request_error": "validationException"}


class BedrockConnection(Connection):
    """One connection: checks who calls, and plays the script of the model that the path names."""

    frames = False

    async def _play(self, request):
        self.frames = False
        target = self.target.decode()
        found = PATH.fullmatch(target)
        if problem := self.upstream.mistrusts(target, request):
            await self._deny(403, "InvalidSignatureException", problem)
        elif found is None:
            await self._deny(404, "UnknownOperationException", f"Nothing at {target}.")
        elif problem := mistake_in(self._message(request, found[2])):
            await self._deny(400, "ValidationException", problem)
        else:
            message, script = self._message(request, found[2]), self.upstream.script_for(urllib.parse.unquote(found[1]))
            if found[2] == "count-tokens" and script.status == 200:
                script = script.but(body=dumps({"inputTokens": script.bill(dumps(message)).input_tokens}))
            self.frames = found[2] == "invoke-with-response-stream"
            request.sent, request.endpoint = request.body, "messages"
            request.body = dumps(message | {"model": urllib.parse.unquote(found[1]), "stream": self.frames})
            await self._act(request, script)

    def _message(self, request, operation):
        if operation != "count-tokens":
            return request.json
        return json.loads(base64.b64decode(request.json["input"]["invokeModel"]["body"], validate=True))

    async def _deny(self, status, kind, message):
        headers = (("x-amzn-errortype", f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"),)
        await self._send(Script(status=status, body=dumps({"message": message}), headers=headers))

    async def _refuse(self, request, script):
        await self._deny(script.status, REFUSALS.get(script.status, "InternalServerException"), script.message)

    def _head(self, status, content_type, headers, **how):
        if self.frames and content_type.startswith("text/event-stream"):
            content_type = "application/vnd.amazon.eventstream"
        super()._head(status, content_type, (*headers, ("x-amzn-requestid", f"amazon-{self.current.id}")), **how)

    async def _event(self, request, script, event):
        if self.frames:
            event = frame_of(json.loads(event.partition(b"data: ")[2]))
        await self._body(request, script, event, chunked=script.framing == "chunked")


class BedrockUpstream(Upstream):
    """Bedrock in the region ``region`` for one pair of keys and one API key."""

    connection_class = BedrockConnection
    provider = PROVIDERS["anthropic"]

    def __init__(self, *, region="eu-west-3", session_token=None, api_key="bedrock-api-key-scripted", **options):
        super().__init__(**options)
        self.region, self.session_token, self.api_key = region, session_token, api_key

    @property
    def url(self):
        return self.origin

    @property
    def calls(self):
        return [request for request in self.requests if request.endpoint == "messages"]

    def credential_json(self, **changes):
        """Keys that are good here; the region because no host says it."""
        keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY, "region": self.region}
        if self.session_token:
            keys["session_token"] = self.session_token
        return json.dumps(keys | changes)

    def mistrusts(self, target, request):
        """Why a request is not let in, or ``None``."""
        given = request.headers.get("authorization", "")
        if given.startswith("Bearer "):
            return None if given == f"Bearer {self.api_key}" else "The API key is not valid."
        found = AUTHORIZATION.fullmatch(given)
        if not found:
            return "Missing Authentication Token"
        key_id, day, region, service, signed, signature = found.groups()
        moment = request.headers.get("x-amz-date", "")
        if request.headers.get("x-amz-security-token") != self.session_token:
            return "The security token included in the request is invalid."
        if (key_id, region, service) != (ACCESS_KEY_ID, self.region, "bedrock") or not moment.startswith(day):
            return f"Credential should be scoped to {self.region}/bedrock."
        age = datetime.datetime.now(datetime.UTC) - datetime.datetime.strptime(moment, "%Y%m%dT%H%M%S%z")
        if abs(age) > datetime.timedelta(minutes=5):
            return f"Signature expired: {moment}"
        names = signed.split(";")
        wanted = {"host", "x-amz-date"} | ({"x-amz-security-token"} if self.session_token else set())
        if names != sorted(names) or not wanted <= set(names):
            return "The headers that must be signed are not."
        expected = signature_of(target, request, names, day, region, service)
        return (
            None if hmac.compare_digest(signature, expected) else "The request signature we calculated does not match."
        )


def signature_of(target, request, names, day, region, service):
    """Signature Version 4, step by step."""
    path, _, query = target.partition("?")
    canonical = "\n".join(
        [
            request.method,
            urllib.parse.quote(path, safe="/-_.~"),
            "&".join(sorted(query.split("&"))),
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{SECRET_ACCESS_KEY}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    text = "\n".join(["AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope, hashed])
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def mistake_in(body):
    """What Bedrock would not take in a request for messages, or ``None``."""
    for name in ("model", "stream"):
        if name in body:
            return f"Malformed input request: #: extraneous key [{name}] is not permitted, please reformat your input."
    for name in ("anthropic_version", "max_tokens", "messages"):
        if name not in body:
            return f"Malformed input request: #: required key [{name}] not found, please reformat your input."
    if body["anthropic_version"] != "bedrock-2023-05-31":
        return "Invalid API version"
    if not isinstance(body.get("anthropic_beta", []), list):
        return "anthropic_beta: must be a list"
    return None


def frame_of(event):
    """An event of Claude's stream as Bedrock frames it; an error becomes an exception."""
    if event["type"] == "error":
        error = event["error"]
        kind = EXCEPTIONS.get(error["type"], "modelStreamErrorException")
        return frame({":message-type": "exception", ":exception-type": kind}, dumps({"message": error["message"]}))
    if event["type"] == "message_stop":
        event = event | {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 1, "outputTokenCount": 1}}
    payload = dumps({"bytes": base64.b64encode(dumps(event)).decode(), "p": "abcdefghijkl"})
    return frame({":event-type": "chunk", ":message-type": "event"}, payload)


def frame(headers, payload):
    """One message of the event stream: lengths, checksum, headers of type string, payload, checksum."""
    packed = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for name, value in ({":content-type": "application/json"} | headers).items()
    )
    prelude = struct.pack("!II", 16 + len(packed) + len(payload), len(packed))
    message = prelude + struct.pack("!I", binascii.crc32(prelude)) + packed + payload
    return message + struct.pack("!I", binascii.crc32(message))
