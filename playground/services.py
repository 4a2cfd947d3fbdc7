"""What a person does in the playground; the answers come through the gateway's own pipeline."""

import asyncio
import copy
from contextlib import aclosing
from dataclasses import dataclass

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.db.models import Min
from django.utils import timezone
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from gateway.errors import GatewayError
from gateway.inprocess import Began, Delta, Ended, ask, is_cut_off
from playground.models import Conversation, Message, new_message_id
from playground.parameters import required_defaults
from providers import formats
from providers.models import ProviderModel
from usage.models import Outcome, RequestLog

MOST_MESSAGES = 200
MOST_ANSWER_CHARACTERS = 1_000_000
FIGURES = [
    "outcome", "stop_reason", "error_message", "input_tokens", "cache_read_tokens", "cache_write_tokens",
    "output_tokens", "reasoning_tokens", "usage_source", "cost_nanos", "time_to_first_token_ms", "duration_ms",
]  # fmt: skip
TEXT_FIGURES = {"outcome", "stop_reason", "error_message", "usage_source"}

# The loop keeps only weak references to its tasks; a save must not be collected half-way.
_saves = set()


@dataclass(frozen=True)
class Settings:
    """What a request says beside the messages; ``model`` is one of ``enabled_models``."""

    model: ProviderModel
    system_prompt: str
    parameters: dict


@dataclass(frozen=True)
class Turn:
    """One question that waits for its answer, and the request that asks it."""

    conversation: Conversation
    question: Message
    model: ProviderModel
    request: dict
    answer_uid: str
    kept: Message | None
    """The last message that stays as it was; what the page shows below it is out of date."""


def enabled_models(organization):
    """
    What can be asked, with provider and prices: models grouped by provider, then routes, each as its first model.

    Of a route ``route`` is set, and ``uid`` and ``public_name`` are its own. A model whose place one takes is left out.
    """
    models = list(
        ProviderModel.objects.current()
        .filter(organization=organization, disabled_at=None, provider__disabled_at=None)
        .select_related("provider")
        .prefetch_related("prices")
        .order_by("provider__created_at", "provider_id", "public_name")
    )
    enabled = {model.pk: model for model in models}
    routes = []
    for route in organization.routes.prefetch_related("targets"):
        first = next((enabled[pk] for step in route.targets.all() if (pk := step.provider_model_id) in enabled), None)
        if first:
            routes.append(asked_by(route, first))
    taken = {model.public_name for model in routes}
    return [model for model in models if model.public_name not in taken] + routes


def asked_by(route, model):
    """``model`` under the name of ``route``, which leads to it first."""
    named = copy.copy(model)
    named.route, named.uid, named.public_name = route, route.uid, route.name
    return named


@transaction.atomic
def save_settings(*, conversation, settings):
    """Keep what the next request of ``conversation`` is to say beside the messages."""
    _take_settings(conversation, settings)
    conversation.save()


@transaction.atomic
def begin_turn(*, conversation, settings, text=None, edits=None):
    """
    Put the next question into ``conversation``, which is saved where it is new, and say what to ask.

    With ``text`` alone the question is new; with ``edits``, a user's message, it takes the place of that one and of
    all that followed; with neither, the last question is asked again and its answer replaced. What is replaced can
    be brought back once. Raises ``ValidationError`` where the conversation is full or there is nothing to ask again.
    """
    _take_settings(conversation, settings)
    if conversation.pk is None:
        if not text:
            raise ValidationError(_("There is nothing to ask again."))
        conversation.title = Truncator(" ".join(text.split())).chars(80)
    conversation.updated_at = timezone.now()
    conversation.save()
    # Two tabs must not both take the same place.
    Conversation.objects.select_for_update().get(pk=conversation.pk)
    live = list(conversation.messages.live())
    if text is None:
        questions = [message for message in live if not message.is_answer]
        if not questions:
            raise ValidationError(_("There is nothing to ask again."))
        question = questions[-1]
        _replace_from(conversation, question.position + 1)
    else:
        position = edits.position if edits else (live[-1].position + 1 if live else 0)
        if position + 2 > MOST_MESSAGES:
            raise ValidationError(
                _("A conversation has at most %(most)d messages. Begin a new one.") % {"most": MOST_MESSAGES}
            )
        if edits:
            _replace_from(conversation, position)
        question = conversation.messages.create(position=position, role=Message.Role.USER, content=text)
    asked = [message for message in live if message.position < question.position]
    return Turn(
        conversation=conversation,
        question=question,
        model=settings.model,
        request=request_of(settings, [*asked, question]),
        answer_uid=new_message_id(),
        kept=question if text is None else (asked[-1] if asked else None),
    )


def request_of(settings, messages):
    """The request in OpenAI's shape: what is sent, and what "Get code" shows."""
    system = [{"role": "system", "content": settings.system_prompt}] if settings.system_prompt else []
    return {
        "model": settings.model.public_name,
        "messages": system + said(messages),
        **required_defaults(settings.model),
        **settings.parameters,
    }


def said(messages):
    """
    The messages as a model is told them: empty answers left out, what one side said in a row joined.

    Some models' templates fail where the two sides do not take turns.
    """
    turns = []
    for message in messages:
        if not message.content:
            continue
        if turns and turns[-1]["role"] == message.role:
            turns[-1] = {"role": message.role, "content": f"{turns[-1]['content']}\n\n{message.content}"}
        else:
            turns.append({"role": message.role, "content": message.content})
    return turns


async def answer(turn, user):
    """
    Yield ``turn``, then each piece of the answer as text, then the saved ``Message``, however the request ended.

    Where the reader leaves, the provider's call is cancelled and what has been written is saved all the same. No
    database connection is held while the model writes.
    """
    reply = Message(
        conversation=turn.conversation,
        uid=turn.answer_uid,
        position=turn.question.position + 1,
        role=Message.Role.ASSISTANT,
        model_name=turn.model.public_name,
        outcome=Outcome.INTERRUPTED,
    )
    pieces, length = [], 0
    try:
        yield turn
        await sync_to_async(release_connections)()
        async with aclosing(ask(workspace=turn.conversation.workspace, user=user, request=turn.request)) as events:
            async for event in events:
                match event:
                    case Began():
                        reply.request_id = event.request_id
                    case Delta():
                        pieces.append(event.text)
                        length += len(event.text)
                        yield event.text
                        if length > MOST_ANSWER_CHARACTERS:
                            reply.outcome = Outcome.CLIENT_CANCELLED
                            break
                    case Ended():
                        _take_figures(reply, event)
    except GatewayError as error:
        reply.outcome = Outcome.REFUSED
        reply.error_message = _storable(_as_said_here(error, turn))[:500]
    except (asyncio.CancelledError, GeneratorExit):
        reply.outcome = Outcome.INTERRUPTED if is_cut_off() else Outcome.CLIENT_CANCELLED
        raise
    finally:
        reply.content = _storable("".join(pieces)).strip("\n")
        save = asyncio.ensure_future(sync_to_async(_save_answer)(turn, reply))
        _saves.add(save)
        save.add_done_callback(_saves.discard)
        await asyncio.shield(save)
    yield reply


def _as_said_here(error, turn):
    """What a refusal says; of a length that must be given, what it is called on the page."""
    lengths = formats.chat_completions.MAX_TOKENS_FIELDS
    if error.param in lengths and turn.request.keys().isdisjoint(lengths):
        return _("A spend limit applies, and nothing else says how long the answer may get: set “Max output tokens”.")
    return error.message


@transaction.atomic
def edit_answer(*, message, text):
    """Let the model have said ``text``; what follows stays."""
    message.content = text
    message.edited_at = timezone.now()
    message.save(update_fields=["content", "edited_at"])


def delete_conversation(*, conversation):
    """Delete the conversation with its messages; its requests stay counted."""
    conversation.delete()


@transaction.atomic
def bring_back(*, conversation):
    """Exchange what was replaced last with what took its place; doing it twice changes nothing."""
    replaced = conversation.messages.filter(replaced_at=conversation.replaced_at)
    if conversation.replaced_at is None or not replaced:
        return
    returning = list(replaced.values_list("pk", flat=True))
    first = replaced.aggregate(first=Min("position"))["first"]
    now = timezone.now()
    conversation.messages.filter(replaced_at=None, position__gte=first).update(replaced_at=now)
    conversation.messages.filter(pk__in=returning).update(replaced_at=None)
    conversation.replaced_at = now if conversation.messages.filter(replaced_at=now).exists() else None
    conversation.save(update_fields=["replaced_at"])


def fill_figures(messages):
    """
    Complete the answers whose end was not seen, those that were stopped, from the requests' rows.

    The gateway writes such a row within about a second; until then the figures stay unknown.
    """
    waiting = {message.request_id: message for message in messages if message.request_id and not message.usage_source}
    for log in RequestLog.objects.filter(pk__in=waiting) if waiting else []:
        message = waiting[log.pk]
        _take_figures(message, log)
        message.save(update_fields=FIGURES)


def _take_settings(conversation, settings):
    conversation.model = settings.model
    conversation.route = getattr(settings.model, "route", None)
    conversation.system_prompt = settings.system_prompt
    conversation.parameters = settings.parameters


def _take_figures(message, ended):
    for name in FIGURES:
        value = getattr(ended, name)
        setattr(message, name, _storable(value or "")[:500] if name in TEXT_FIGURES else value)


def _storable(text):
    """What a provider wrote without what a database cannot keep: NUL and halves of surrogate pairs."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _replace_from(conversation, position):
    """Take the messages from ``position`` on out of the conversation; an earlier batch is forgotten."""
    leaving = conversation.messages.filter(replaced_at=None, position__gte=position)
    pks = list(leaving.values_list("pk", flat=True))
    if not pks:
        return
    conversation.messages.exclude(replaced_at=None).delete()
    now = timezone.now()
    conversation.messages.filter(pk__in=pks).update(replaced_at=now)
    conversation.replaced_at = now
    conversation.save(update_fields=["replaced_at"])


def _save_answer(turn, reply):
    """Keep ``reply`` below its question; out of sight where that has been replaced or answered meanwhile."""
    try:
        with transaction.atomic():
            conversation = Conversation.objects.select_for_update().filter(pk=turn.conversation.pk).first()
            if conversation is None:
                return
            last = conversation.messages.live().last()
            if last and last.is_answer and last.created_at < reply.created_at and _answers(last, turn.question):
                # An earlier request for the same, whose reader had left, has only now come to its end.
                _replace_from(conversation, reply.position)
            elif last is None or last.pk != turn.question.pk:
                reply.replaced_at = timezone.now()
            reply.save()
    finally:
        release_connections()


def _answers(message, question):
    """Whether ``message`` stands right below ``question``, and that one still in its place."""
    below = message.conversation.messages.live().filter(position=message.position - 1)
    return below.filter(pk=question.pk).exists()


def release_connections():
    """Close this thread's connections to the database: those of a streamed answer would stay open for its length."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
