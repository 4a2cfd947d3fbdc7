"""Asking a model from inside the server: the same pipeline, records and limits as the API, without HTTP."""

import contextlib
from dataclasses import dataclass

import msgspec
from django.utils.translation import get_language

from gateway import errors, runtime
from gateway.calls import Call, Caller
from gateway.errors import GatewayError
from gateway.pipeline import complete
from gateway.serving import record_refusal
from providers.formats import chat_completions
from providers.request_body import InvalidRequest
from providers.sse import EventSplitter
from usage.models import Source

CLIENT = "Comptoir playground"


@dataclass(frozen=True, slots=True)
class Began:
    """The request has an id."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How the request ended: what its row says. ``error_message`` is for the reader, in the language that is active."""

    request_id: str
    outcome: str
    stop_reason: str | None
    error_message: str | None
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    usage_source: str
    cost_nanos: int | None
    time_to_first_token_ms: int | None
    duration_ms: int


async def ask(*, workspace, user, request):
    """
    Put ``request``, a chat completion in the OpenAI shape, and yield ``Began``, ``Delta`` … and one ``Ended``.

    ``workspace`` comes with its organization. Raises ``GatewayError`` where the request is refused before it begins; a
    provider that fails later ends the answer with an ``Ended`` that says so. Both speak the language that is active,
    the request's row English. Hold it in ``contextlib.aclosing``: leaving it early ends the provider's work and records
    the request as cancelled by its client, or as interrupted where ``is_cut_off`` says so.
    """
    serving, language, failure = runtime.current(), get_language() or "en", None
    if serving is None:
        raise errors.not_ready().speak(language)
    caller = Caller(
        organization_id=workspace.organization_id,
        organization_uid=workspace.organization.uid,
        workspace_id=workspace.pk,
        workspace_uid=workspace.uid,
        api_key_id=None,
        user_id=user.pk,
        source=Source.PLAYGROUND.value,
    )
    fields = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in (request | {"stream": True}).items()}
    call = Call(format=chat_completions, caller=caller, fields=fields, client=CLIENT)
    # A cancellation reaches the pipeline before it passes here, and who cancels this is the one who asked.
    call.client_gone = not serving.is_cutting_off
    serving.asked_here[call.id] = call
    try:
        call.model, call.stream = chat_completions.read_request(fields)
        async with contextlib.aclosing(complete(call, serving)) as chunks:
            yield Began(call.id)
            splitter = EventSplitter()
            async for chunk in chunks:
                for event in splitter.feed(chunk):
                    if text := chat_completions.text_in(event):
                        yield Delta(text)
    except InvalidRequest as error:
        raise _refused(call, errors.invalid(error), serving).speak(language) from None
    except GatewayError as error:
        if not call.recorded:
            raise _refused(call, error, serving).speak(language) from None
        failure = error.speak(language)
    finally:
        del serving.asked_here[call.id]
    yield _ended(call, failure)


def is_cut_off() -> bool:
    """Whether what is cancelled now is cancelled because this process ends, and by nobody who asked."""
    serving = runtime.current()
    return serving is None or serving.is_cutting_off


def _refused(call, error, serving):
    record_refusal(call, error, serving)
    return error


def _ended(call, failure):
    closed = call.closed
    told = {name: getattr(closed, name) for name in Ended.__dataclass_fields__ if name != "request_id"}
    return Ended(request_id=call.id, **(told | ({"error_message": failure.message} if failure else {})))
