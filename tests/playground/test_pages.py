import pytest
from django.test import Client
from django.urls import reverse

from playground import services
from playground.models import Conversation, Message, new_message_id
from providers.services import remove_model
from tests import factories
from tests.conftest import signed_in
from usage.models import Outcome


@pytest.fixture
def model(organization):
    provider = factories.make_provider(organization, name="Ektos")
    model = factories.make_model(provider, "gpt-test")
    factories.make_price(model, input="3", output="15")
    return model


def make_conversation(user, workspace, model, *texts, **fields):
    """A conversation in which ``user`` and the model say ``texts`` in turn."""
    fields = {"title": texts[0] if texts else "Empty", "model": model} | fields
    conversation = Conversation.objects.create(user=user, workspace=workspace, **fields)
    figures = {
        "outcome": Outcome.COMPLETED, "usage_source": "reported", "input_tokens": 118, "cache_read_tokens": 0,
        "cache_write_tokens": 0, "output_tokens": 96, "cost_nanos": 1_600_000, "time_to_first_token_ms": 571,
        "duration_ms": 1840, "model_name": model.public_name,
    }  # fmt: skip
    for position, text in enumerate(texts):
        answer = figures | {"request_id": f"req_{conversation.pk:013}{position:013}"} if position % 2 else {}
        role = (Message.Role.USER, Message.Role.ASSISTANT)[position % 2]
        Message.objects.create(conversation=conversation, position=position, role=role, content=text, **answer)
    return conversation


@pytest.fixture
def conversation(alice, workspace, model):
    return make_conversation(alice, workspace, model, "Where is my order?", "On its **way**.")


def url(name, workspace, *arguments):
    return reverse(f"playground:{name}", args=[workspace.slug, *arguments])


def urls_of(conversation):
    """Every address of one conversation, with how it is asked."""
    workspace, message = conversation.workspace, conversation.messages.first()
    yield "get", url("conversation", workspace, conversation.uid), {}
    yield "get", url("conversation_delete", workspace, conversation.uid), {}
    yield "post", url("conversation_delete", workspace, conversation.uid), {}
    yield "post", url("bring_back", workspace, conversation.uid), {}
    for each in conversation.messages.all():
        yield "get", url("message_detail", workspace, conversation.uid, each.uid), {}
        yield "get", url("message_answer", workspace, conversation.uid, each.uid), {}
        yield "get", url("message_edit", workspace, conversation.uid, each.uid), {}
        yield "post", url("message_edit", workspace, conversation.uid, each.uid), {"message": "Mine now"}
    posted = {"conversation": conversation.uid, "model": conversation.model.uid, "message": "Hi", "edits": message.uid}
    for name in ("send", "code", "parameters"):
        yield "post", url(name, workspace), posted


# Who sees what -------------------------------------------------------------------------------------------------


def test_only_the_author_sees_a_conversation(conversation, bob_client, charlie_client):
    before = list(Message.objects.values())
    for client in (bob_client, charlie_client):
        for method, address, data in urls_of(conversation):
            assert getattr(client, method)(address, data).status_code == 404, (method, address)
    assert list(Message.objects.values()) == before


def test_a_conversation_is_not_found_from_another_workspace(conversation, alice_client, organization, alice):
    elsewhere = factories.make_workspace(organization=organization)
    assert alice_client.get(url("conversation", elsewhere, conversation.uid)).status_code == 404
    data = {"conversation": conversation.uid, "model": conversation.model.uid, "message": "Hi"}
    assert alice_client.post(url("send", elsewhere), data).status_code == 404


def test_a_stranger_finds_no_playground(charlie_client, workspace, model):
    for name in ("start", "snippets", "conversation_list"):
        assert charlie_client.get(url(name, workspace)).status_code == 404
    for name in ("send", "code", "parameters"):
        assert charlie_client.post(url(name, workspace), {"model": model.uid, "message": "Hi"}).status_code == 404


def test_who_is_not_signed_in_is_asked_to(workspace, conversation):
    for method, address, data in urls_of(conversation):
        response = getattr(Client(), method)(address, data)
        assert response.status_code == 302
        assert response.url.startswith(reverse("console:sign_in"))


def test_a_developer_has_a_playground_too(bob_client, workspace, model):
    assert bob_client.get(url("start", workspace)).status_code == 200


def test_what_changes_something_is_posted_with_a_token(alice, conversation):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    for method, address, data in urls_of(conversation):
        if method == "post":
            assert client.post(address, data).status_code == 403, address
    for name in ("send", "parameters", "code"):
        assert signed_in(alice).get(url(name, conversation.workspace)).status_code == 405
    assert signed_in(alice).get(url("bring_back", conversation.workspace, conversation.uid)).status_code == 405


def test_an_unknown_message_of_an_own_conversation_is_not_there_yet(alice_client, conversation):
    address = url("message_detail", conversation.workspace, conversation.uid, new_message_id())
    assert alice_client.get(address).status_code == 204


def test_another_conversations_message_cannot_be_edited_through_ones_own(alice_client, alice, bob, conversation, model):
    foreign = make_conversation(bob, conversation.workspace, model, "Bob's words", "For Bob").messages.first()
    assert (
        alice_client.get(url("message_edit", conversation.workspace, conversation.uid, foreign.uid)).status_code == 404
    )
    data = {"conversation": conversation.uid, "model": model.uid, "message": "Hi", "edits": foreign.uid}
    assert alice_client.post(url("send", conversation.workspace), data).status_code == 404


def test_a_model_of_another_organization_cannot_be_asked(alice_client, workspace, model):
    foreign = factories.make_model(factories.make_provider(factories.make_organization()), "foreign")
    response = alice_client.post(url("send", workspace), {"model": foreign.uid, "message": "Hi"})
    assert response.status_code == 422
    assert "not available any more" in response.text
    assert not Conversation.objects.exists()


# The page ------------------------------------------------------------------------------------------------------


def test_a_new_conversation_waits_for_its_first_words(alice_client, workspace, model):
    response = alice_client.get(url("start", workspace))
    assert '<optgroup label="Ektos">' in response.text
    assert "$3 in, $15 out per million" in response.text
    assert "Write below" in response.text
    assert not Conversation.objects.exists()


def test_a_model_without_a_price_says_so(alice_client, workspace, organization):
    factories.make_model(factories.make_provider(organization), "free-range")
    assert "not priced" in alice_client.get(url("start", workspace)).text


def test_the_local_model_says_that_it_is_small(alice_client, workspace, organization):
    provider = factories.make_provider(organization, kind="local", name="On this machine")
    factories.make_model(provider, "smollm2")
    assert "It is a small model" in alice_client.get(url("start", workspace)).text


def test_without_a_model_the_page_says_what_to_do(alice_client, bob_client, workspace):
    assert "Go to the providers" in alice_client.get(url("start", workspace)).text
    response = bob_client.get(url("start", workspace))
    assert "An owner or admin" in response.text
    assert "Go to the providers" not in response.text


def test_a_conversation_shows_its_words_and_figures(alice_client, conversation):
    text = alice_client.get(conversation.get_absolute_url()).text
    assert "Where is my order?" in text
    assert "On its <strong>way</strong>." in text
    assert "$0.0016" in text
    assert "214" in text
    assert "Reported" in text
    assert reverse("usage:request_detail", args=["default", conversation.messages.last().request_id]) in text


def test_the_words_of_both_sides_cannot_act(alice, alice_client, workspace, model):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    conversation = make_conversation(
        alice, workspace, model, evil, evil, title=evil, system_prompt="</textarea>" + evil
    )
    Message.objects.filter(role="assistant").update(outcome="upstream_error", error_message=evil, model_name=evil)
    for address in [conversation.get_absolute_url(), url("conversation_list", workspace)]:
        text = alice_client.get(address).text
        assert "<script>alert(1)" not in text
        assert "<img" not in text
    for each in conversation.messages.all():
        assert "<img" not in alice_client.get(url("message_edit", workspace, conversation.uid, each.uid)).text


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("refused", "Refused before it reached a model."), ("upstream_error", "The provider did not answer."),
        ("timeout", "The provider took too long."), ("interrupted", "Interrupted on this server."),
        ("client_cancelled", "Stopped."),
    ],
)  # fmt: skip
def test_an_answer_that_failed_says_what_happened_and_what_works(alice_client, conversation, outcome, words):
    Message.objects.filter(role="assistant").update(outcome=outcome, content="", error_message="Because of this.")
    text = alice_client.get(conversation.get_absolute_url()).text
    assert words in text
    if outcome != "client_cancelled":
        assert "Because of this." in text
        assert "Your message is kept" in text
    assert 'aria-label="Ask again"' in text


def test_a_page_costs_a_fixed_number_of_queries(
    alice, alice_client, workspace, model, conversation, django_assert_max_num_queries
):
    long = make_conversation(alice, workspace, model, *["Words"] * 40)
    Message.objects.filter(conversation=long, role="assistant").update(usage_source="")
    for number in range(5):
        factories.make_price(factories.make_model(model.provider, f"m-{number}"))
    with django_assert_max_num_queries(12):
        alice_client.get(conversation.get_absolute_url())
    with django_assert_max_num_queries(12):
        alice_client.get(long.get_absolute_url())


def test_the_list_costs_a_fixed_number_of_queries(alice, alice_client, workspace, model, django_assert_max_num_queries):
    for number in range(60):
        make_conversation(alice, workspace, model, f"Talk {number}")
    with django_assert_max_num_queries(9):
        text = alice_client.get(url("conversation_list", workspace)).text
    assert "Talk 59" in text
    assert "Talk 0<" not in text
    assert "Talk 0<" in alice_client.get(url("conversation_list", workspace) + "?page=2").text


def test_the_list_holds_only_ones_own_of_this_workspace(alice, bob, alice_client, workspace, organization, model):
    make_conversation(alice, workspace, model, "Mine here")
    make_conversation(bob, workspace, model, "Bob's")
    make_conversation(alice, factories.make_workspace(organization=organization), model, "Mine elsewhere")
    text = alice_client.get(url("conversation_list", workspace)).text
    assert "Mine here" in text
    assert "Bob" not in text.split("<main")[1]
    assert "Mine elsewhere" not in text


def test_htmx_gets_dialogs_alone(alice_client, conversation):
    addresses = [
        url("conversation_list", conversation.workspace),
        url("conversation_delete", conversation.workspace, conversation.uid),
    ]
    for address in addresses:
        response = alice_client.get(address, headers={"HX-Request": "true"})
        assert "<html" not in response.text
        assert "<modal-dialog" in response.text


def test_an_unanswered_question_waits_for_what_is_saved_and_can_be_asked_again(alice, alice_client, workspace, model):
    conversation = make_conversation(alice, workspace, model, "Are you there?")
    question = conversation.messages.get()
    place = url("message_answer", workspace, conversation.uid, question.uid)
    text = alice_client.get(conversation.get_absolute_url()).text
    assert f'data-unanswered="{place}"' in text
    assert text.split("data-unanswered")[1].split("</li>")[0].count("Ask again") == 1
    assert alice_client.get(place).status_code == 204
    answer = Message.objects.create(
        conversation=conversation,
        position=1,
        role=Message.Role.ASSISTANT,
        content="Yes, and",
        outcome="client_cancelled",
    )
    found = alice_client.get(place).json()
    assert answer.uid in found["message"]
    assert "Stopped." in found["message"]
    assert "data-unanswered" not in alice_client.get(conversation.get_absolute_url()).text


def test_a_deleted_conversation_is_gone_and_its_requests_are_not(alice_client, conversation, workspace):
    log = factories.make_request_log(workspace)
    conversation.messages.filter(role="assistant").update(request_id=log.pk)
    address = url("conversation_delete", workspace, conversation.uid)
    assert "deleted for good" in alice_client.get(address).text
    assert Conversation.objects.exists()
    assert alice_client.post(address).status_code == 302
    assert not Conversation.objects.exists()
    log.refresh_from_db()


def test_a_new_conversation_takes_the_last_ones_model_alone(alice, alice_client, workspace, model):
    factories.make_model(model.provider, "another")
    make_conversation(alice, workspace, model, "Old", parameters={"temperature": 0.3}, system_prompt="Rhyme.")
    text = alice_client.get(url("start", workspace)).text
    assert f'<option value="{model.uid}" selected>' in text
    assert 'value="0.3"' not in text
    assert "Rhyme." not in text


def test_a_conversation_outlives_its_model(alice, alice_client, conversation, model):
    factories.make_model(model.provider, "another")
    remove_model(model=model, actor=alice)
    text = alice_client.get(conversation.get_absolute_url()).text
    assert "On its <strong>way</strong>." in text
    assert "another" in text
    assert f'value="{model.uid}"' not in text


# Settings and edits --------------------------------------------------------------------------------------------


def test_settings_are_kept_as_they_are_changed(alice_client, conversation, model):
    data = {"conversation": conversation.uid, "model": model.uid, "system_prompt": "Be brief.", "temperature": "0.2"}
    assert alice_client.post(url("parameters", conversation.workspace), data).status_code == 200
    conversation.refresh_from_db()
    assert conversation.system_prompt == "Be brief."
    assert conversation.parameters == {"temperature": 0.2}


def test_settings_that_are_wrong_are_shown_and_not_kept(alice_client, conversation, model):
    data = {"conversation": conversation.uid, "model": model.uid, "temperature": "9"}
    response = alice_client.post(url("parameters", conversation.workspace), data)
    assert response.status_code == 422
    assert "From 0 to 2." in response.text
    assert 'aria-invalid="true"' in response.text
    conversation.refresh_from_db()
    assert conversation.parameters == {}


def test_the_pane_follows_the_model(alice_client, workspace, model, organization):
    claude = factories.make_model(factories.make_provider(organization, kind="anthropic"), "claude-test")
    pane = alice_client.post(url("parameters", workspace), {"model": claude.uid}).text
    assert "Top K" in pane
    assert "Seed" not in pane
    assert 'placeholder="1,024"' in pane
    assert "<html" not in pane


def test_an_answer_is_edited_in_place(alice_client, conversation):
    message = conversation.messages.get(role="assistant")
    address = url("message_edit", conversation.workspace, conversation.uid, message.uid)
    assert "On its **way**.</textarea>" in alice_client.get(address).text
    assert alice_client.post(address, {"message": "Lost."}).status_code == 302
    message.refresh_from_db()
    assert message.content == "Lost."
    assert alice_client.post(address, {"message": " "}).status_code == 422


def test_htmx_gets_the_edited_message_alone(alice_client, conversation):
    message = conversation.messages.get(role="assistant")
    address = url("message_edit", conversation.workspace, conversation.uid, message.uid)
    assert alice_client.get(address, headers={"HX-Request": "true"}).text.startswith("<li")
    response = alice_client.post(address, {"message": "Lost."}, headers={"HX-Request": "true"})
    assert response.text.startswith("<li")
    assert "edited" in response.text


def test_what_was_replaced_can_be_brought_back(alice, alice_client, conversation, model):
    kept = services.Settings(model=model, system_prompt="", parameters={})
    services.begin_turn(conversation=conversation, settings=kept, text="New", edits=conversation.messages.first())
    assert "2 messages were replaced." in alice_client.get(conversation.get_absolute_url()).text
    assert alice_client.post(url("bring_back", conversation.workspace, conversation.uid)).status_code == 302
    text = alice_client.get(conversation.get_absolute_url()).text
    assert "Where is my order?" in text
    assert "1 message was replaced." in text


# Words that cannot be sent -------------------------------------------------------------------------------------


def test_words_over_200_kb_come_back_with_the_reason(alice_client, workspace, model):
    response = alice_client.post(url("send", workspace), {"model": model.uid, "message": "x" * 200_001})
    assert response.status_code == 422
    assert "over 200 kB" in response.text
    assert "x" * 200_001 in response.text
    assert not Conversation.objects.exists()


def test_settings_that_are_wrong_send_nothing(alice_client, workspace, model):
    data = {"model": model.uid, "message": "Hi", "temperature": "9"}
    response = alice_client.post(url("send", workspace), data, headers={"Accept": "text/event-stream"})
    assert response.status_code == 422
    assert "From 0 to 2." in response.json()["parameters"]
    assert response.json()["errors"] == ["Some settings cannot be sent; they are marked."]
    assert not Conversation.objects.exists()


def test_there_is_nothing_to_ask_again_in_an_empty_conversation(alice, alice_client, workspace, model):
    conversation = make_conversation(alice, workspace, model)
    data = {"conversation": conversation.uid, "model": model.uid}
    response = alice_client.post(url("send", workspace), data, headers={"Accept": "text/event-stream"})
    assert response.status_code == 422
    assert response.json()["errors"] == ["There is nothing to ask again."]


# Code ----------------------------------------------------------------------------------------------------------


def test_the_code_holds_the_request_as_it_stands(alice_client, conversation, model):
    data = {
        "conversation": conversation.uid, "model": model.uid, "system_prompt": "Be brief.", "temperature": "0.2",
        "message": "And when?",
    }  # fmt: skip
    text = alice_client.post(url("code", conversation.workspace), data).text
    for part in (
        "Be brief.",
        "Where is my order?",
        "On its **way**.",
        "And when?",
        "temperature=0.2",
        "http://testserver",
    ):
        assert part in text, part
    assert text.index("OpenAI, Python") < text.index("Anthropic, Python")
    assert Message.objects.count() == 2


def test_the_code_without_new_words_is_that_of_the_last_question(alice_client, conversation, model):
    text = alice_client.post(
        url("code", conversation.workspace), {"conversation": conversation.uid, "model": model.uid}
    ).text
    assert "Where is my order?" in text
    assert "On its **way**." not in text


def test_the_models_own_dialect_comes_first(alice_client, workspace, organization):
    claude = factories.make_model(factories.make_provider(organization, kind="anthropic"), "claude-test")
    text = alice_client.post(url("code", workspace), {"model": claude.uid}).text
    assert text.index("Anthropic, Python") < text.index("OpenAI, Python")


def test_code_names_the_public_address(alice_client, workspace, model, settings):
    settings.PUBLIC_URL = "https://ai.example.org"
    assert "https://ai.example.org/v1" in alice_client.post(url("code", workspace), {"model": model.uid}).text


def test_wrong_settings_are_shown_in_their_pane_instead_of_code(alice_client, workspace, model):
    data = {"model": model.uid, "temperature": "9"}
    response = alice_client.post(url("code", workspace), data, headers={"HX-Request": "true"})
    assert response.status_code == 422
    assert response["HX-Retarget"] == "#pane-parameters"
    assert alice_client.post(url("code", workspace), data).status_code == 422


def test_snippets_name_a_model_of_the_organization(alice_client, workspace, model):
    response = alice_client.get(url("snippets", workspace), headers={"HX-Request": "true"})
    assert response.text.count('role="tab"') == 4
    assert response.text.count("gpt-test") == 4
    assert "<html" not in response.text
    assert "<html" in alice_client.get(url("snippets", workspace)).text


def test_snippets_without_a_model_say_so(alice_client, workspace):
    assert "Once a provider has models" in alice_client.get(url("snippets", workspace)).text
