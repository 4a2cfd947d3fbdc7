"""The playground says what failed in its reader's language; the request's row says it in English."""

import pytest

from tests.playground.test_streaming import Person, request_id_in
from tests.upstream import Script

UNREACHABLE = {
    "en": "The provider could not be reached.",
    "fr": "Le fournisseur est injoignable.",
    "es": "No se ha podido acceder al proveedor.",
}
CUT_OFF = {
    "en": "The provider's answer was cut off.",
    "fr": "La réponse du fournisseur a été coupée.",
    "es": "La respuesta del proveedor se ha cortado.",
}


@pytest.fixture(params=["en", "fr", "es"])
def language(request):
    return request.param


@pytest.fixture
def reader(server, language):
    """A person whose browser asks for ``language``."""
    person = Person(server.base_url)
    person.http.headers["accept-language"] = language
    return person


def told(found):
    """The answer's place on the page, its quotes as they are read."""
    return found[-1][1]["message"].replace("&#x27;", "'")


def test_a_provider_that_cannot_be_reached_is_told_of_in_it(reader, server, language):
    message = told(reader.ask("gpt-nowhere", message="Hello?"))
    assert UNREACHABLE[language] in message
    assert server.row(request_id_in(message))["error_message"].endswith(UNREACHABLE["en"])


def test_so_is_an_answer_that_breaks_off(reader, server, upstream, language):
    upstream.play("gpt-test", Script(chunks=20, cut_at=2500))
    message = told(reader.ask("gpt-test", message="Hello?"))
    assert CUT_OFF[language] in message
    assert server.row(request_id_in(message))["error_message"].endswith(CUT_OFF["en"])


def test_so_is_a_credential_that_the_provider_refuses(reader, server, upstream, language):
    upstream.play("gpt-test", Script.refuse(401))
    message = told(reader.ask("gpt-test", message="Hello?"))
    assert {"en": "refused the credential", "fr": "a refusé la clé", "es": "ha rechazado la credencial"}[
        language
    ] in message
