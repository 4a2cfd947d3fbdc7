import pytest
from django.core.exceptions import ValidationError

from playground import services
from playground.models import Conversation, Message
from providers import routes
from tests import factories
from usage.models import Outcome

USER, ASSISTANT = Message.Role.USER, Message.Role.ASSISTANT


@pytest.fixture
def model(organization):
    return factories.make_model(factories.make_provider(organization), "gpt-test")


@pytest.fixture
def settings_of_turn(model):
    return services.Settings(model=model, system_prompt="Plain words.", parameters={"temperature": 0.7})


@pytest.fixture
def conversation(alice, workspace):
    return Conversation(workspace=workspace, user=alice)


def say(conversation, settings, text, answer="An answer.", **fields):
    """A turn with its answer, as the pipeline would leave it."""
    turn = services.begin_turn(conversation=conversation, settings=settings, text=text, **fields)
    answered(turn, answer)
    return turn


def answered(turn, text):
    reply = Message(
        conversation=turn.conversation, uid=turn.answer_uid, position=turn.question.position + 1, role=ASSISTANT,
        content=text, outcome=Outcome.COMPLETED, model_name=turn.model.public_name,
    )  # fmt: skip
    services._save_answer(turn, reply)
    return reply


def talk(conversation):
    return [message.content for message in conversation.messages.live()]


def test_the_first_words_begin_a_conversation_and_name_it(conversation, settings_of_turn):
    turn = services.begin_turn(conversation=conversation, settings=settings_of_turn, text="Hello\n  you " + "x" * 90)
    assert conversation.pk
    assert conversation.title.startswith("Hello you xxx")
    assert len(conversation.title) <= 80
    assert turn.kept is None
    assert conversation.model == settings_of_turn.model
    assert turn.request["messages"][0] == {"role": "system", "content": "Plain words."}
    assert turn.request["temperature"] == 0.7


def test_a_turn_asks_with_all_that_was_said(conversation, settings_of_turn):
    say(conversation, settings_of_turn, "One")
    turn = services.begin_turn(conversation=conversation, settings=settings_of_turn, text="Two")
    assert [message["content"] for message in turn.request["messages"]] == ["Plain words.", "One", "An answer.", "Two"]
    assert turn.kept.content == "An answer."


def test_an_edit_takes_the_place_of_all_that_followed(conversation, settings_of_turn):
    first = say(conversation, settings_of_turn, "One")
    say(conversation, settings_of_turn, "Two")
    turn = say(conversation, settings_of_turn, "Uno", "Respuesta.", edits=first.question)
    assert talk(conversation) == ["Uno", "Respuesta."]
    assert [message["content"] for message in turn.request["messages"]] == ["Plain words.", "Uno"]
    assert turn.kept is None


def test_what_an_edit_replaced_comes_back_and_goes_again(conversation, settings_of_turn):
    say(conversation, settings_of_turn, "One")
    second = say(conversation, settings_of_turn, "Two")
    say(conversation, settings_of_turn, "Dos", "Respuesta.", edits=second.question)
    services.bring_back(conversation=conversation)
    assert talk(conversation) == ["One", "An answer.", "Two", "An answer."]
    services.bring_back(conversation=conversation)
    assert talk(conversation) == ["One", "An answer.", "Dos", "Respuesta."]


def test_what_was_said_since_is_kept_when_the_replaced_comes_back(conversation, settings_of_turn):
    first = say(conversation, settings_of_turn, "One")
    say(conversation, settings_of_turn, "Uno", "Respuesta.", edits=first.question)
    say(conversation, settings_of_turn, "Dos")
    services.bring_back(conversation=conversation)
    assert talk(conversation) == ["One", "An answer."]
    services.bring_back(conversation=conversation)
    assert talk(conversation) == ["Uno", "Respuesta.", "Dos", "An answer."]


def test_only_what_was_replaced_last_is_kept(conversation, settings_of_turn):
    turn = say(conversation, settings_of_turn, "One")
    for text in ("Two", "Three"):
        turn = say(conversation, settings_of_turn, text, edits=turn.question)
    assert conversation.messages.count() == 4
    services.bring_back(conversation=conversation)
    assert talk(conversation) == ["Two", "An answer."]


def test_nothing_replaced_is_nothing_to_bring_back(conversation, settings_of_turn):
    say(conversation, settings_of_turn, "One")
    services.bring_back(conversation=conversation)
    assert talk(conversation) == ["One", "An answer."]


def test_asking_again_replaces_the_last_answer_alone(conversation, settings_of_turn):
    say(conversation, settings_of_turn, "One")
    turn = services.begin_turn(conversation=conversation, settings=settings_of_turn)
    assert turn.question.content == "One"
    assert turn.kept == turn.question
    answered(turn, "Another answer.")
    assert talk(conversation) == ["One", "Another answer."]
    services.bring_back(conversation=conversation)
    assert talk(conversation) == ["One", "An answer."]


def test_there_must_be_something_to_ask_again(conversation, settings_of_turn):
    conversation.save()
    with pytest.raises(ValidationError):
        services.begin_turn(conversation=conversation, settings=settings_of_turn)


def test_a_conversation_ends_at_200_messages(conversation, settings_of_turn):
    conversation.save()
    Message.objects.bulk_create(
        Message(conversation=conversation, position=place, role=(USER, ASSISTANT)[place % 2], content="x")
        for place in range(198)
    )
    turn = say(conversation, settings_of_turn, "The last")
    assert conversation.messages.live().count() == services.MOST_MESSAGES
    with pytest.raises(ValidationError):
        services.begin_turn(conversation=conversation, settings=settings_of_turn, text="One more")
    services.begin_turn(conversation=conversation, settings=settings_of_turn, text="Another", edits=turn.question)


def test_an_answer_that_comes_late_stays_out_of_sight(conversation, settings_of_turn):
    turn = services.begin_turn(conversation=conversation, settings=settings_of_turn, text="One")
    later = services.begin_turn(conversation=conversation, settings=settings_of_turn, text="Two", edits=turn.question)
    answered(turn, "Late.")
    answered(later, "In time.")
    assert talk(conversation) == ["Two", "In time."]


def test_the_last_asked_answer_stands_where_an_earlier_one_of_the_same_question_came_late(
    conversation, settings_of_turn
):
    turn = services.begin_turn(conversation=conversation, settings=settings_of_turn, text="One")
    again = services.begin_turn(conversation=conversation, settings=settings_of_turn)
    answered(turn, "Stopped by a rel")
    answered(again, "The whole.")
    assert talk(conversation) == ["One", "The whole."]
    services.bring_back(conversation=Conversation.objects.get(pk=conversation.pk))
    assert talk(conversation) == ["One", "Stopped by a rel"]


def test_an_answer_to_a_deleted_conversation_is_let_go(conversation, settings_of_turn):
    turn = services.begin_turn(conversation=conversation, settings=settings_of_turn, text="One")
    services.delete_conversation(conversation=Conversation.objects.get(pk=conversation.pk))
    answered(turn, "Late.")
    assert not Message.objects.exists()


def test_models_are_told_turns_that_alternate(conversation):
    said = services.said([
        Message(role=USER, content="One"), Message(role=ASSISTANT, content="", outcome=Outcome.UPSTREAM_ERROR),
        Message(role=USER, content="Two"), Message(role=ASSISTANT, content="Answer"),
    ])  # fmt: skip
    assert said == [{"role": "user", "content": "One\n\nTwo"}, {"role": "assistant", "content": "Answer"}]


def test_an_edited_answer_is_what_the_model_is_told(conversation, settings_of_turn):
    say(conversation, settings_of_turn, "One")
    services.edit_answer(message=conversation.messages.get(role=ASSISTANT), text="Something else.")
    turn = services.begin_turn(conversation=conversation, settings=settings_of_turn, text="Two")
    assert turn.request["messages"][2] == {"role": "assistant", "content": "Something else."}
    assert conversation.messages.get(role=ASSISTANT).edited_at


def test_a_stopped_answer_learns_its_figures_from_the_requests_row(conversation, settings_of_turn, workspace):
    log = factories.make_request_log(
        workspace, outcome=Outcome.CLIENT_CANCELLED, usage_source="counted", output_tokens=9
    )
    turn = services.begin_turn(conversation=conversation, settings=settings_of_turn, text="One")
    reply = answered(turn, "Half an")
    Message.objects.filter(pk=reply.pk).update(request_id=log.pk, outcome=Outcome.CLIENT_CANCELLED)
    reply.refresh_from_db()
    assert reply.waits_for_figures
    services.fill_figures([reply])
    reply.refresh_from_db()
    assert not reply.waits_for_figures
    assert (reply.output_tokens, reply.usage_source, reply.cost_nanos) == (9, "counted", 600_000)
    assert reply.outcome == Outcome.CLIENT_CANCELLED


def test_the_speed_is_that_of_the_writing():
    message = Message(output_tokens=96, duration_ms=1840, time_to_first_token_ms=571)
    assert round(message.tokens_per_second, 1) == 75.7
    assert Message(output_tokens=None, duration_ms=5, time_to_first_token_ms=1).tokens_per_second is None
    assert Message(output_tokens=5, duration_ms=5, time_to_first_token_ms=5).tokens_per_second is None


def test_tokens_are_summed_where_any_is_known():
    assert Message(input_tokens=118, cache_read_tokens=0, output_tokens=96).total_tokens == 214
    assert Message().total_tokens is None


# Routes ----------------------------------------------------------------------------------------------------------


def test_a_route_is_asked_under_its_own_name_and_kept(alice, workspace, model):
    routes.create_route(
        organization=workspace.organization, name="fast", strategy="ordered", targets=[(model, 1)], actor=alice
    )
    offered = services.enabled_models(workspace.organization)
    assert [each.public_name for each in offered] == [model.public_name, "fast"]
    turn = services.begin_turn(
        conversation=Conversation(workspace=workspace, user=alice),
        settings=services.Settings(model=offered[1], system_prompt="", parameters={}),
        text="Hello",
    )
    assert turn.request["model"] == "fast"
    kept = Conversation.objects.get()
    assert (kept.model, kept.route.name, kept.asked_uid) == (model, "fast", kept.route.uid)


def test_a_route_takes_the_place_of_the_model_of_its_name(alice, workspace, model):
    routes.create_route(
        organization=workspace.organization, name="gpt-test", strategy="ordered", targets=[(model, 1)], actor=None
    )
    assert [each.uid for each in services.enabled_models(workspace.organization)] == [
        workspace.organization.routes.get().uid
    ]
