import pytest
from django.utils import translation

from playground.forms import MOST_BYTES, MessageForm, SettingsForm
from playground.parameters import required_defaults
from playground.services import enabled_models
from tests import factories


@pytest.fixture
def openai_model(organization):
    return factories.make_model(factories.make_provider(organization, name="Ektos"), "gpt-test")


@pytest.fixture
def anthropic_model(organization):
    provider = factories.make_provider(organization, name="Anthropic", kind="anthropic")
    return factories.make_model(provider, "claude-test", max_output_tokens=8192)


def settings_form(model, **values):
    models = enabled_models(model.organization)
    return SettingsForm(models, {"model": model.uid, "system_prompt": "", "stop": "", **values})


def test_the_numbers_follow_what_the_model_takes(openai_model, anthropic_model):
    openai, anthropic = settings_form(openai_model), settings_form(anthropic_model)
    assert {"seed", "frequency_penalty", "presence_penalty"} <= set(openai.parameter_names)
    assert "top_k" not in openai.parameter_names
    assert "top_k" in anthropic.parameter_names
    assert "seed" not in anthropic.parameter_names


def test_what_is_empty_is_not_sent(openai_model):
    form = settings_form(openai_model, temperature="", max_tokens=" ", stop="\n \n")
    assert form.is_valid(), form.errors
    assert form.chosen_parameters() == {}


def test_what_is_set_is_sent_as_numbers(openai_model):
    form = settings_form(openai_model, temperature="0,7", top_p="0.95", max_tokens="200", seed="7", stop="###\r\n\\n")
    assert form.is_valid(), form.errors
    assert form.chosen_parameters() == {
        "temperature": 0.7, "top_p": 0.95, "max_tokens": 200, "seed": 7, "stop": ["###", "\n"],
    }  # fmt: skip


def test_zero_is_a_value(openai_model):
    form = settings_form(openai_model, temperature="0", presence_penalty="-2")
    assert form.is_valid()
    assert form.chosen_parameters() == {"temperature": 0, "presence_penalty": -2}


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": "2.1"}, {"temperature": "-0.1"}, {"temperature": "warm"}, {"temperature": "nan"},
        {"temperature": "1e9"}, {"top_p": "1.01"}, {"max_tokens": "0"}, {"max_tokens": "1.5"}, {"seed": "-1"},
        {"frequency_penalty": "3"}, {"stop": "a\nb\nc\nd\ne"}, {"stop": "x" * 101},
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_beside_its_field(openai_model, values):
    form = settings_form(openai_model, **values)
    assert set(form.errors) == set(values)


def test_each_dialect_has_its_own_range(openai_model, anthropic_model):
    assert settings_form(openai_model, temperature="1.5").is_valid()
    assert settings_form(anthropic_model, temperature="1.5").errors == {"temperature": ["From 0 to 1."]}
    assert settings_form(anthropic_model, max_tokens="8193").errors
    assert settings_form(anthropic_model, max_tokens="8192").is_valid()


def test_values_of_another_dialect_are_dropped(anthropic_model):
    form = settings_form(anthropic_model, seed="7", presence_penalty="1")
    assert form.is_valid()
    assert form.chosen_parameters() == {}


def test_anthropics_dialect_is_always_given_a_maximum(openai_model, anthropic_model):
    assert required_defaults(openai_model) == {}
    assert required_defaults(anthropic_model) == {"max_tokens": 1024}
    anthropic_model.max_output_tokens = 512
    assert required_defaults(anthropic_model) == {"max_tokens": 512}


def test_kept_values_come_back_as_they_were_written(openai_model):
    initial = {"model": openai_model.uid, "temperature": 0.7, "stop": ["###", "\n"]}
    form = SettingsForm(enabled_models(openai_model.organization), initial=initial)
    assert 'value="0.7"' in str(form["temperature"])
    assert "###\n\\n</textarea>" in str(form["stop"])
    with translation.override("fr"):
        assert 'value="0,7"' in str(form["temperature"])


def test_models_are_grouped_by_their_provider_and_only_enabled_ones(openai_model, anthropic_model):
    factories.make_model(openai_model.provider, "gpt-off", disabled_at=openai_model.created_at)
    off = factories.make_provider(openai_model.organization, name="Off", disabled_at=openai_model.created_at)
    factories.make_model(off, "hidden")
    factories.make_model(openai_model.provider, "gpt-removed", removed_at=openai_model.created_at)
    factories.make_model(factories.make_provider(factories.make_organization()), "foreign")
    form = settings_form(openai_model)
    assert form.fields["model"].choices == [
        ("Ektos", [(openai_model.uid, "gpt-test")]),
        ("Anthropic", [(anthropic_model.uid, "claude-test")]),
    ]


def test_a_model_that_has_gone_is_refused(openai_model):
    models = enabled_models(openai_model.organization)
    form = SettingsForm(models, {"model": "model_gone", "system_prompt": ""})
    assert "not available any more" in form.errors["model"][0]


def test_a_message_has_words_and_at_most_200_kb():
    assert MessageForm({"message": " a\r\nb "}).is_valid()
    assert not MessageForm({"message": " \n "}).is_valid()
    assert MessageForm({"message": "é" * (MOST_BYTES // 2)}).is_valid()
    assert not MessageForm({"message": "é" * (MOST_BYTES // 2) + "x"}).is_valid()


def test_a_message_is_kept_with_plain_line_breaks():
    form = MessageForm({"message": "a\r\nb\n"})
    assert form.is_valid()
    assert form.cleaned_data["message"] == "a\nb"
