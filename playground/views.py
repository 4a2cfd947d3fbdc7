"""The playground's pages, and the one streamed answer."""

import asyncio
import json
from contextlib import aclosing

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_required
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe
from django_htmx.http import reswap, retarget

from console.access import get_workspace
from console.addresses import base_url
from console.ids import is_uid
from playground import prices, services, snippets
from playground.forms import MessageForm, SettingsForm
from playground.models import Conversation, Message

PAGE_SIZE = 50
MOST_RUNS = 8
SILENCE_SECONDS = 15


@login_required
@require_safe
def start(request, workspace_slug):
    """A new conversation with the model of the person's last one; all else is as at first."""
    workspace = get_workspace(request, workspace_slug)
    talks = Conversation.objects.seen_by(request.user, workspace).select_related("model", "route")
    last = talks.order_by("-updated_at").first()
    initial = {"model": request.GET.get("model") or (last and last.asked_uid)}
    form = SettingsForm(services.enabled_models(workspace.organization), initial=initial)
    return _page(request, workspace, form=form)


@login_required
@require_safe
def conversation(request, workspace_slug, conversation_uid):
    """An earlier conversation, as it stands."""
    workspace = get_workspace(request, workspace_slug)
    return _page(request, workspace, _conversation(request, workspace, conversation_uid))


@login_required
@require_POST
async def send(request, workspace_slug):
    """
    Put a question and answer with the model's words: streamed to who accepts events, else with the page.

    ``message`` is the words, ``edits`` the question that they take the place of; without words the last question is
    asked again.
    """
    request.user = await request.auser()
    turn = await sync_to_async(_begin)(request, workspace_slug)
    if isinstance(turn, HttpResponse):
        return turn
    if _wants_events(request):
        return StreamingHttpResponse(
            _kept_alive(_events(request, turn)),
            content_type="text/event-stream; charset=utf-8",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )
    async with aclosing(services.answer(turn, request.user)) as pieces:
        async for _piece in pieces:
            pass
    return redirect(f"{turn.conversation.get_absolute_url()}#answer")


@login_required
@require_POST
def parameters(request, workspace_slug):
    """What the chosen model takes; kept where the conversation has begun and the values are valid."""
    workspace = get_workspace(request, workspace_slug)
    current = _posted_conversation(request, workspace)
    form = SettingsForm(services.enabled_models(workspace.organization), request.POST)
    valid = form.is_valid()
    if valid and current:
        services.save_settings(conversation=current, settings=_settings(form))
    context = _settings_context(workspace, form)
    return render(request, "playground/conversation.html#parameters", context, status=200 if valid else 422)


@login_required
@require_POST
def code(request, workspace_slug):
    """Programs that send the request as it stands, with what is typed but not sent."""
    workspace = get_workspace(request, workspace_slug)
    current = _posted_conversation(request, workspace)
    form = SettingsForm(services.enabled_models(workspace.organization), request.POST)
    if not form.is_valid():
        if request.htmx:
            context = _settings_context(workspace, form)
            response = render(request, "playground/conversation.html#parameters", context, status=422)
            return reswap(retarget(response, "#pane-parameters"), "outerHTML")
        return _refused(request, workspace, current, form)
    messages = list(current.messages.live()) if current else []
    draft = request.POST.get("message", "").strip()
    if draft:
        messages.append(Message(role=Message.Role.USER, content=draft))
    while messages and messages[-1].is_answer:
        messages.pop()
    if not messages:
        messages.append(Message(role=Message.Role.USER, content=_("Say hello in one sentence.")))
    chosen = form.chosen
    context = {
        "section": "playground",
        "workspace": workspace,
        "conversation": current,
        "dialects": [
            (dialect, snippets.DIALECTS[dialect], programs)
            for dialect, programs in snippets.all_snippets(
                services.request_of(_settings(form), messages), base_url(request)
            ).items()
        ],
        "title": _("Get code"),
        "back_url": current.get_absolute_url() if current else _start_url(workspace),
    }
    # The reader's dialect first: the one that the model's provider speaks.
    context["dialects"].sort(key=lambda entry: entry[0] != chosen.provider.dialect)
    return render(request, "playground/code.html", context)


@login_required
@require_safe
def snippet_list(request, workspace_slug):
    """A first call in each client, with a model of the organization: a fragment for other pages."""
    workspace = get_workspace(request, workspace_slug)
    model = next(iter(services.enabled_models(workspace.organization)), None)
    context = {"section": "playground", "title": _("Call it"), "back_url": _start_url(workspace)}
    if model:
        hello = {
            "model": model.public_name,
            "messages": [{"role": "user", "content": _("Say hello in one sentence.")}],
        }
        context["programs"] = [
            (
                f"{dialect}-{language}",
                label,
                snippets.snippet(dialect, language, hello, base_url(request), stream=False),
            )
            for label, dialect, language in [
                ("curl", "openai", "curl"),
                ("OpenAI SDK", "openai", "python"),
                ("Anthropic SDK", "anthropic", "python"),
                ("Node", "openai", "node"),
            ]
        ]
    return render(request, f"playground/{'_' if request.htmx else ''}snippets.html", context)


@login_required
@require_safe
def conversation_list(request, workspace_slug):
    """The person's conversations in this workspace, the last used first."""
    workspace = get_workspace(request, workspace_slug)
    own = Conversation.objects.seen_by(request.user, workspace).select_related("model", "route")
    own = own.order_by("-updated_at", "-pk")
    page = Paginator(own.defer("system_prompt"), PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "section": "playground",
        "page": page,
        "title": _("Your conversations"),
        "back_url": _start_url(workspace),
    }
    return render(request, "playground/conversation_list.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def conversation_delete(request, workspace_slug, conversation_uid):
    """Ask, then delete the conversation; its requests stay counted."""
    workspace = get_workspace(request, workspace_slug)
    current = _conversation(request, workspace, conversation_uid)
    if request.method == "POST":
        services.delete_conversation(conversation=current)
        return redirect("playground:start", workspace.slug)
    context = {
        "section": "playground",
        "conversation": current,
        "messages_count": current.messages.live().count(),
        "title": _("Delete the conversation"),
        "back_url": reverse("playground:conversation_list", args=[workspace.slug]),
    }
    return render(request, "playground/conversation_delete.html", context)


@login_required
@require_POST
def bring_back(request, workspace_slug, conversation_uid):
    """Exchange what an edit or a new answer replaced last with what took its place."""
    workspace = get_workspace(request, workspace_slug)
    current = _conversation(request, workspace, conversation_uid)
    services.bring_back(conversation=current)
    return redirect(current)


@login_required
@require_GET
def message_detail(request, workspace_slug, conversation_uid, message_uid):
    """One message: to htmx itself, else with its figures as JSON of fragments; 204 while it is not saved yet."""
    workspace = get_workspace(request, workspace_slug)
    current = _conversation(request, workspace, conversation_uid)
    message = current.messages.filter(uid=message_uid).first()
    if message is None:
        return HttpResponse(status=204)
    services.fill_figures([message])
    if request.htmx:
        return _message(request, current, message)
    return JsonResponse(_fragments(request, current, message))


@login_required
@require_GET
def message_answer(request, workspace_slug, conversation_uid, message_uid):
    """The answer to a question that stands, as JSON of fragments; 204 while none is saved."""
    workspace = get_workspace(request, workspace_slug)
    current = _conversation(request, workspace, conversation_uid)
    question = get_object_or_404(current.messages.live(), uid=message_uid, role=Message.Role.USER)
    answer = current.messages.live().filter(position=question.position + 1).first()
    if answer is None:
        return HttpResponse(status=204)
    services.fill_figures([answer])
    return JsonResponse(_fragments(request, current, answer))


@login_required
@require_http_methods(["GET", "POST"])
def message_edit(request, workspace_slug, conversation_uid, message_uid):
    """The form to edit a message; an answer is saved here, a question through ``send``."""
    workspace = get_workspace(request, workspace_slug)
    current = _conversation(request, workspace, conversation_uid)
    message = get_object_or_404(current.messages.live(), uid=message_uid)
    form = MessageForm(request.POST if request.method == "POST" else None, initial={"message": message.content})
    if request.method == "POST" and message.is_answer and form.is_valid():
        services.edit_answer(message=message, text=form.cleaned_data["message"])
        if request.htmx:
            return _message(request, current, message)
        return redirect(f"{current.get_absolute_url()}#{message.uid}")
    if request.htmx:
        context = {"workspace": workspace, "conversation": current, "message": message, "edit_form": form}
        status = 422 if form.errors else 200
        return render(request, "playground/_message_form.html", context, status=status)
    return _page(request, workspace, current, editing=message, edit_form=form, status=422 if form.errors else 200)


def _begin(request, workspace_slug):
    """The turn that the posted words begin, or the answer that says why there is none."""
    workspace = get_workspace(request, workspace_slug)
    current = _posted_conversation(request, workspace)
    models = services.enabled_models(workspace.organization)
    # A form of its own, that of an edit or of "ask again", brings no settings without JavaScript: the kept ones hold.
    form = SettingsForm(models, request.POST if "model" in request.POST else _kept_settings(current))
    words = MessageForm(request.POST) if "message" in request.POST else None
    if not form.is_valid() or (words and not words.is_valid()):
        return _refused(request, workspace, current, form, words)
    edits = None
    if current and (uid := request.POST.get("edits")):
        if not is_uid(uid):
            raise Http404
        edits = get_object_or_404(current.messages.live(), uid=uid, role=Message.Role.USER)
    try:
        return services.begin_turn(
            conversation=current or Conversation(workspace=workspace, user=request.user),
            settings=_settings(form),
            text=words.cleaned_data["message"] if words else None,
            edits=edits,
        )
    except ValidationError as error:
        words = words or MessageForm({"message": "-"})
        words.add_error("message", error)
        return _refused(request, workspace, current, form, words)


async def _events(request, turn):
    """The answer as events: ``turn`` (what now stands above it), ``text`` pieces, ``end`` (the answer as kept)."""
    reply = None
    async with aclosing(services.answer(turn, request.user)) as pieces:
        async for piece in pieces:
            if piece is turn:
                yield _event("turn", await sync_to_async(_turn_fragments)(request, turn))
            elif isinstance(piece, str):
                yield _event("text", piece)
            else:
                reply = piece
    yield _event("end", await sync_to_async(_end_fragments)(request, turn.conversation, reply))


async def _kept_alive(events):
    """Pass ``events`` on, and in a long silence a comment, so that no proxy takes the stream for dead."""
    waiting = None
    try:
        while True:
            waiting = waiting or asyncio.ensure_future(anext(events))
            if not (await asyncio.wait({waiting}, timeout=SILENCE_SECONDS))[0]:
                yield ": still here\n\n"
                continue
            arrived, waiting = waiting, None
            try:
                yield arrived.result()
            except StopAsyncIteration:
                return
    finally:
        if waiting:
            # The reader has left; what is under way ends by saving what there is.
            waiting.cancel()
            await asyncio.wait({waiting})
        await events.aclose()


def _event(name, data):
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _turn_fragments(request, turn):
    context = {"workspace": turn.conversation.workspace, "conversation": turn.conversation, "message": turn.question}
    is_new = turn.kept is None or turn.kept.pk != turn.question.pk
    return {
        "conversation": turn.conversation.uid,
        "url": turn.conversation.get_absolute_url(),
        "title": turn.conversation.title,
        "kept": turn.kept.uid if turn.kept else "",
        "question": render_to_string("playground/_message.html", context, request) if is_new else "",
        "answer": turn.answer_uid,
        "detail": reverse(
            "playground:message_detail",
            args=[turn.conversation.workspace.slug, turn.conversation.uid, turn.answer_uid],
        ),
    }


def _end_fragments(request, conversation, reply):
    try:
        return _fragments(request, conversation, reply)
    finally:
        services.release_connections()


def _fragments(request, conversation, message):
    workspace = conversation.workspace
    context = {
        "workspace": workspace,
        "organization": workspace.organization,
        "conversation": conversation,
        "message": message,
        "is_last": True,
        "run": message,
        "runs": _runs(conversation.messages.exclude(request_id=""), message),
        "replaced": _replaced_count(conversation),
    }
    return {
        "message": render_to_string("playground/_message.html", context, request),
        "run": render_to_string("playground/conversation.html#run", context, request),
        "replaced": render_to_string("playground/conversation.html#replaced", context, request),
        "waits": message.waits_for_figures,
    }


def _message(request, conversation, message):
    last = conversation.messages.live().last()
    context = {"conversation": conversation, "message": message, "is_last": last == message}
    return render(request, "playground/_message.html", context)


def _page(request, workspace, conversation=None, *, form=None, words=None, editing=None, edit_form=None, status=200):
    messages, earlier = [], []
    if conversation:
        everything = list(conversation.messages.order_by("position", "pk"))
        services.fill_figures(everything)
        messages = [message for message in everything if message.replaced_at is None]
        earlier = [message for message in everything if message.request_id]
        form = form or SettingsForm(
            services.enabled_models(workspace.organization), initial=_kept_settings(conversation)
        )
    run = next((message for message in reversed(messages) if message.is_answer), None)
    context = _settings_context(workspace, form) | {
        "section": "playground",
        "organization": workspace.organization,
        "conversation": conversation,
        "messages_live": messages,
        "unanswered": messages[-1] if messages and not messages[-1].is_answer and messages[-1] != editing else None,
        "words": words or MessageForm(),
        "run": run,
        "runs": _runs(earlier, run),
        "replaced": sum(message.replaced_at == conversation.replaced_at for message in everything)
        if conversation and conversation.replaced_at
        else 0,
        "editing": editing,
        "edit_form": edit_form,
    }
    return render(request, "playground/conversation.html", context, status=status)


def _refused(request, workspace, conversation, form, words=None):
    """The same words back, with what is wrong with them or with the settings."""
    if not _wants_events(request):
        return _page(request, workspace, conversation, form=form, words=words, status=422)
    context = _settings_context(workspace, form)
    errors = [*(words.errors.get("message", []) if words else []), *form.non_field_errors()]
    if not errors:
        errors = [_("Some settings cannot be sent; they are marked.")]
    pane = render_to_string("playground/conversation.html#parameters", context)
    return JsonResponse({"errors": errors, "parameters": pane}, status=422)


def _settings_context(workspace, form):
    model = form.chosen
    return {
        "workspace": workspace,
        "form": form,
        "model": model,
        "price_hint": prices.hint(model) if model else "",
    }


def _runs(answers, current):
    """The other requests of a conversation, the latest first."""
    others = [message for message in answers if message.is_answer and (current is None or message.pk != current.pk)]
    return sorted(others, key=lambda message: message.created_at, reverse=True)[:MOST_RUNS]


def _replaced_count(conversation):
    if conversation.replaced_at is None:
        return 0
    return conversation.messages.filter(replaced_at=conversation.replaced_at).count()


def _settings(form):
    return services.Settings(
        model=form.chosen,
        system_prompt=form.cleaned_data["system_prompt"],
        parameters=form.chosen_parameters(),
    )


def _kept_settings(conversation):
    """What ``conversation`` was last sent with, as a form's values."""
    if conversation is None:
        return {}
    return conversation.parameters | {
        "model": conversation.asked_uid,
        "system_prompt": conversation.system_prompt,
    }


def _conversation(request, workspace, uid):
    own = Conversation.objects.seen_by(request.user, workspace).select_related("model__provider", "route")
    conversation = get_object_or_404(own, uid=uid)
    conversation.workspace = workspace
    return conversation


def _posted_conversation(request, workspace):
    uid = request.POST.get("conversation")
    if uid and not is_uid(uid):
        raise Http404
    return _conversation(request, workspace, uid) if uid else None


def _wants_events(request):
    return "text/event-stream" in request.headers.get("accept", "")


def _start_url(workspace):
    return reverse("playground:start", args=[workspace.slug])
