"""What an error says comes in the caller's language; what programs read of it, and the record, never do."""

import json

import pytest

from tests.api import ANTHROPIC, OPENAI, Api
from tests.upstream import Script

HEADERS = {
    "fr": "fr", "es": "es", "fr-CA": "fr", "de, es;q=0.5": "es", "fr;q=0, es": "es", "de": "en", "*": "en",
    None: "en", b";;q=x,\xfc,": "en",
}  # fmt: skip

NO_KEY = {
    "en": "No API key was sent. Send it as “Authorization: Bearer …” or “x-api-key”.",
    "fr": "Aucune clé d’API n’a été envoyée. L’envoyer par « Authorization: Bearer … » ou « x-api-key ».",
    "es": "No se ha enviado ninguna clave de API. Se envía como «Authorization: Bearer …» o «x-api-key».",
}
UNKNOWN_MODEL = {
    "en": "The model “gpt-none” does not exist or is not available to this API key.",
    "fr": "Le modèle « gpt-none » n’existe pas ou n’est pas accessible à cette clé d’API.",
    "es": "El modelo «gpt-none» no existe o no está disponible para esta clave de API.",
}
BAD_JSON = {
    "en": "The request body is not valid JSON: a comma stands before a closing brace (byte 21).",
    "fr": "Le corps de la requête n’est pas du JSON valide : une virgule précède une accolade fermante (octet 21).",
    "es": "El cuerpo de la petición no es JSON válido: hay una coma antes de una llave de cierre (byte 21).",
}
BAD_FIELD = {
    "en": "stream: must be true or false",
    "fr": "stream : doit être true ou false",
    "es": "stream: debe ser true o false",
}
UNKNOWN_PATH = {
    "en": "There is nothing at POST /v1/nothing.",
    "fr": "Il n’y a rien à POST /v1/nothing.",
    "es": "No hay nada en POST /v1/nothing.",
}
UNREACHABLE = {
    "en": "nowhere (%s): The provider could not be reached.",
    "fr": "nowhere (%s) : Le fournisseur est injoignable.",
    "es": "nowhere (%s): No se ha podido acceder al proveedor.",
}
NO_CREDENTIAL = {
    "en": " refused the credential that this server uses there. An administrator can mend it.",
    "fr": " a refusé la clé que ce serveur y utilise. Un admin peut y remédier.",
    "es": " ha rechazado la credencial que este servidor usa allí. Un admin puede remediarlo.",
}
CUT_OFF = {
    "en": "The provider's answer was cut off.",
    "fr": "La réponse du fournisseur a été coupée.",
    "es": "La respuesta del proveedor se ha cortado.",
}
NOT_STORED = {
    "en": "No response with this id is stored here.",
    "fr": "Aucune réponse de cet identifiant n’est conservée ici.",
    "es": "Aquí no hay guardada ninguna respuesta con este identificador.",
}


def languages(ask):
    """
    The answers that ``ask``, given headers, gets for every ``Accept-Language``, as ``[(language, answer)]``.

    But for its message, an answer is the same in all languages.
    """
    answers = [(language, ask({"accept-language": wish} if wish else {})) for wish, language in HEADERS.items()]
    assert len({(answer.status_code, json.dumps(without_message(answer.json()))) for _, answer in answers}) == 1
    return answers


def without_message(document):
    """What programs read of an error body."""
    assert document["error"].pop("message")
    document.pop("request_id", None)
    return document


def message_of(answer):
    """What an error says, its narrow spaces as plain ones."""
    return plain(answer.json()["error"]["message"])


def plain(text):
    return text.replace("\u202f", " ")


def asking(api, path=None, **options):
    """What ``languages`` asks: one POST with further headers."""
    headers = options.pop("headers", api.headers)
    return lambda more: api.post(path, headers={"accept-language": ""} | headers | more, **options)


def holds(answers, messages):
    for language, answer in answers:
        assert message_of(answer) == messages[language]
        assert answer.headers["content-language"] == language


def test_an_error_is_said_in_the_language_that_the_caller_reads(api):
    body = api.dialect.body("gpt-test", "Hi")
    holds(languages(asking(api, json=body, headers=api.dialect.headers)), NO_KEY)
    holds(languages(asking(api, "/v1/nothing", json=body)), UNKNOWN_PATH)


def test_a_refusal_is_said_in_it_and_recorded_in_english(api):
    for body, messages in [
        (api.dialect.body("gpt-none", "Hi"), UNKNOWN_MODEL),
        (api.dialect.body("gpt-test", "Hi", stream="yes"), BAD_FIELD),
    ]:
        answers = languages(asking(api, json=body))
        holds(answers, messages)
        assert {api.row(answer)["error_message"] for _, answer in answers} == {messages["en"]}
    answers = languages(asking(api, content=b'{"model":"gpt-test" ,}'))
    holds(answers, BAD_JSON)
    assert {api.row(answer)["error_message"] for _, answer in answers} == {BAD_JSON["en"]}


def test_a_failing_provider_is_told_of_in_it_and_recorded_in_english(api, model, upstream):
    name = "OpenAI" if model == "gpt-test" else "Anthropic"
    nowhere = model.replace("test", "nowhere")
    answers = languages(asking(api, json=api.dialect.body(nowhere, "Hi")))
    for language, answer in answers:
        assert message_of(answer) == UNREACHABLE[language] % name
    assert {api.row(answer)["error_message"] for _, answer in answers} == {UNREACHABLE["en"] % name}
    upstream.play(model, Script.refuse(401))
    for language, answer in languages(asking(api, json=api.dialect.body(model, "Hi"))):
        assert message_of(answer).endswith(NO_CREDENTIAL[language])


def test_what_a_provider_says_of_the_request_stays_in_its_own_words(api, model, upstream):
    upstream.play(model, Script.refuse(400, message="100 % of the prompt is too long."))
    for _language, answer in languages(asking(api, json=api.dialect.body(model, "Hi"))):
        assert message_of(answer) == "100 % of the prompt is too long."
        # Nobody here knows which language that is.
        assert "content-language" not in answer.headers


def test_a_stream_that_breaks_off_says_so_in_it(api, model, upstream):
    upstream.play(model, Script(chunks=20, cut_at=2500))
    told, recorded = {}, set()
    for wish in ("fr", "es", None):
        headers = api.headers | {"accept-language": wish or ""}
        body = api.dialect.body(model, "Hello", stream=True)
        answer = api.client.post(api.dialect.path, json=body, headers=headers)
        last = api.dialect.events_of(answer.content)[-1]
        assert plain(last["error"]["message"]).endswith(CUT_OFF[wish or "en"])
        told[wish] = without_message(last)
        recorded.add(api.row(answer)["error_message"])
    assert told["fr"] == told["es"] == told[None]
    assert len(recorded) == 1
    assert recorded.pop().endswith(CUT_OFF["en"])


def test_ikalas_and_stored_responses_speak_it_too(server):
    caller = Api(server, server.api_key)
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    answers = languages(asking(caller, "/api/v1/conversation", json=body))
    assert {message_of(answer) for _, answer in answers} == {
        "modele: field required", "modele : champ requis", "modele: campo obligatorio",
    }  # fmt: skip
    body = {"modele": "gpt-none"} | body
    holds(languages(asking(caller, "/api/v1/conversation", json=body)), UNKNOWN_MODEL)

    def fetch(more):
        return caller.client.get("/v1/responses/resp_none", headers={"accept-language": ""} | caller.headers | more)

    holds(languages(fetch), NOT_STORED)
    body = {"model": "gpt-test", "input": "Hi", "background": True}
    answers = languages(asking(caller, "/v1/responses", json=body))
    assert ("fr", "background : non disponible ici") in [(language, message_of(each)) for language, each in answers]
    caller.close()


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/embeddings", {"model": "gpt-test", "input": []}, "input : ne doit pas être vide"),
        ("/v1/moderations", {"input": 3}, "une liste de parties text et image_url"),
        ("/v1/completions", {"model": "gpt-test", "prompt": 3}, "prompt : doit être une chaîne, ou une liste"),
        ("/v1/responses", {"model": "claude-test", "input": []}, "input : il y faut un message"),
        ("/v1/messages", {"model": "gpt-test", "messages": [{"role": "x"}], "max_tokens": 9}, "doit être user ou"),
        ("/v1/messages/count_tokens", {"model": "gpt-test"}, "messages : champ requis"),
    ],
)
def test_every_endpoint_speaks_french(server, path, body, message):
    caller = Api(server, server.api_key, ANTHROPIC if "messages" in path else OPENAI)
    answer = caller.post(path, json=body, headers=caller.headers | {"accept-language": "fr"})
    caller.close()
    assert answer.status_code == 400
    assert message in message_of(answer)
