"""Every message that a caller can get is marked for translation, with the values that it names, and can be said."""

import ast
import re
from pathlib import Path

import pytest
from django.conf import settings

from gateway import errors, stored_responses
from gateway.errors import GatewayError
from gateway.http import Http
from providers import errors as upstream
from providers.request_body import InvalidRequest, Term, parse_body
from tests.test_translations import LANGUAGES, entries, forms, marked
from usage.ledger import Grant
from usage.spending import Limit, Spending

ROOT = Path(settings.BASE_DIR)
PLACEHOLDER = re.compile(r"%\((\w+)\)s")
# Where a message stands among the arguments, and which of the named ones are no values of it.
RAISED = {"InvalidRequest": (0, {"param"}), "PromptTooLong": (0, {"param"}), "GatewayError": (2, None)}
PROVIDERS = {"Broken", "TimedOut", "Unreachable", "OwnAccount", "Rejected", "StreamError"}
SOURCES = [path for folder in ("gateway", "providers") for path in sorted((ROOT / folder).rglob("*.py"))]


def calls():
    """``(place, function, call)`` of every call that makes an error, with the function that it stands in."""
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call):
                        yield f"{path.relative_to(ROOT)}:{call.lineno}", function, call


def name_of(call):
    return getattr(call.func, "attr", None) or getattr(call.func, "id", None)


def templates(message, function):
    """The texts that ``message``, an argument, may be, as far as they are written out; ``None`` for what is not."""
    if isinstance(message, ast.Call) and name_of(message) == "_":
        return [message.args[0].value]
    if isinstance(message, (ast.IfExp, ast.BoolOp)):
        parts = [message.body, message.orelse] if isinstance(message, ast.IfExp) else message.values
        return [text for part in parts for text in templates(part, function)]
    if isinstance(message, ast.Subscript):
        return templates(message.value, function)
    if isinstance(message, ast.Constant):
        return [None]
    if isinstance(message, ast.Name):
        found = []
        for assignment in ast.walk(function):
            if isinstance(assignment, ast.Assign):
                for target in assignment.targets:
                    names = target.elts if isinstance(target, ast.Tuple) else [target]
                    values = assignment.value.elts if isinstance(assignment.value, ast.Tuple) else [assignment.value]
                    for name, value in zip(names, values, strict=False):
                        if isinstance(name, ast.Name) and name.id == message.id:
                            found += templates(value, function)
        return found
    return []


def test_no_message_to_callers_is_unmarked_or_glued_together():
    seen, wrong = 0, []
    for place, function, call in calls():
        if name_of(call) in {*RAISED, *PROVIDERS} and call.args:
            message = call.args[min(RAISED.get(name_of(call), (0,))[0], len(call.args) - 1)]
            seen += 1
            if isinstance(message, (ast.JoinedStr, ast.BinOp)) or None in templates(message, function):
                wrong.append((place, ast.unparse(message)))
    assert wrong == []
    assert seen > 100


def test_every_message_is_given_the_values_that_it_names():
    seen, wrong = 0, []
    for place, function, call in calls():
        if name_of(call) not in {*RAISED, "refuse"} or not call.args:
            continue
        if name_of(call) == "GatewayError":
            values = next((word.value for word in call.keywords if word.arg == "values"), None)
            if (values is None and any(word.arg is None for word in call.keywords)) or (
                values is not None and not isinstance(values, ast.Dict)
            ):
                continue
            given = {key.value for key in values.keys} if values else set()
            message = call.args[2]
        else:
            if any(word.arg is None for word in call.keywords):
                continue
            given = {word.arg for word in call.keywords} - {"param"}
            given |= {"name", "model"} if name_of(call) == "refuse" else set()
            message = call.args[0]
        for template in templates(message, function):
            seen += 1
            needed = set(PLACEHOLDER.findall(template))
            # A conversation refuses with its model's name and the field's, whether the message has them or not.
            if needed - given or (given - needed and name_of(call) != "refuse"):
                wrong.append((place, template, sorted(given)))
            if not given and "%" in template:
                wrong.append((place, template, "would not be filled in"))
    assert wrong == []
    assert seen > 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_translation_can_be_filled_in(language):
    """With the values of its source and no others; a bare % would end the request that it should explain."""
    sources = {key for key, (_plural, where) in marked().items() if where.startswith(("gateway/", "providers/"))}
    checked = 0
    for key, entry in entries(language).items():
        names = PLACEHOLDER.findall(key[1])
        if key in sources and names:
            checked += 1
            for text in forms(entry.string):
                assert set(PLACEHOLDER.findall(text)) == set(names), text
                assert text % dict.fromkeys(names, "100 %")
    assert checked > 90


LIMIT = Limit(1, "limit_1", "workspace", 1, "month", allows_unpriced=False, refuses_all=False, name="100 %")
SPENDING = Spending(1, "EUR", "Europe/Paris", {("workspace", 1): (LIMIT,)})
GRANT = Grant(1, 0, 0, 5 * 10**9, 4_999_900_000, 0, 0, is_tight=True, others_idle=False)
FACTORIES = {
    errors.no_key: (), errors.wrong_key: (), errors.two_keys: (), errors.disabled_key: (), errors.expired_key: (),
    errors.unknown_model: ("100 %",), errors.unable_model: ("100 %", "embeddings"),
    errors.unknown_path: ("GET", "/50%20off"), errors.wrong_method: ("GET", "/v1/messages", "POST"),
    errors.too_large: (32 * 1024**2,), errors.body_cut: (), errors.body_slow: (), errors.encoded_body: ("gzip",),
    errors.missing_version: (), errors.invalid: (InvalidRequest("%(name)s: field required", "model", name="model"),),
    errors.storage_full: (), errors.not_ready: (), errors.unusable_provider: ("100 %",), errors.internal: (),
    errors.from_provider: (upstream.Unreachable("The provider could not be reached."), "100 %"),
    errors.spend_limit_reached: (LIMIT, SPENDING, SPENDING.key(LIMIT, 1.8e9), GRANT, 150_000),
    errors.nothing_allowed: (LIMIT,), errors.unpriced_model: ("100 %",), errors.ledger_unavailable: (),
    errors.stopping: (), stored_responses.not_found: (), stored_responses.previous_not_found: (),
    stored_responses.item_not_found: (), stored_responses.away: (), stored_responses.too_long: (),
}  # fmt: skip


def test_every_error_of_the_gateway_is_among_those_that_are_tried():
    made = {
        value
        for module in (errors, stored_responses)
        for value in vars(module).values()
        if callable(value) and getattr(value, "__module__", "") == module.__name__ and makes_errors(value)
    }
    assert made == set(FACTORIES)


def makes_errors(function):
    code = getattr(function, "__code__", None)
    return code is not None and "GatewayError" in code.co_names and not function.__name__.startswith("_")


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
def test_an_error_is_said_in_every_language_and_otherwise_the_same(factory):
    said = {language: factory(*FACTORIES[factory]).speak(language) for language in ("en", *LANGUAGES)}
    assert all(isinstance(error, GatewayError) for error in said.values())
    assert len({error.message for error in said.values()}) == len(said)
    assert len({(error.status, error.code, error.param, str(error.headers)) for error in said.values()}) == 1
    assert not any("%(" in error.message for error in said.values())


@pytest.mark.parametrize("factory", [errors.spend_limit_reached, errors.nothing_allowed])
def test_a_refusal_says_where_to_ask_for_more_where_the_address_of_this_server_is_known(settings, factory):
    settings.PUBLIC_URL = ""

    def said(*args):
        return factory(*FACTORIES[factory]).speak(*args).message

    assert "/limits/" not in said("en")
    assert said("en", "http://127.0.0.1:8000").endswith(
        "More can be asked for at http://127.0.0.1:8000/limits/limit_1/."
    )
    assert said("fr", "http://127.0.0.1:8000").endswith("sur http://127.0.0.1:8000/limits/limit_1/.")
    settings.PUBLIC_URL = "https://ai.example.org"
    assert said("en").endswith(" https://ai.example.org/limits/limit_1/.")
    assert said("en", "http://127.0.0.1:8000") == said("en")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("ai.example.org:8443", "https://ai.example.org:8443"),
        ("[::1]:8000", "https://[::1]:8000"),
        ("elsewhere.example", ""),
        ("ai.example.org/x", ""),
        ("", ""),
    ],
)
def test_only_a_host_of_this_server_is_taken_for_its_address(settings, host, origin):
    settings.ALLOWED_HOSTS = ["ai.example.org", "[::1]"]
    scope = {"headers": [(b"host", host.encode())], "method": "POST", "path": "/v1/messages", "query_string": b""}
    assert Http(scope | {"scheme": "https"}, None, None).origin == origin


def test_a_value_that_is_a_text_of_this_project_is_translated_and_any_other_is_not():
    told = InvalidRequest("%(name)s: must be %(what)s", "a", name="an object", what=Term("an object"))
    assert errors.invalid(told).speak("es").message == "an object: debe ser un objeto"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{1}", b'{"a" 1}', b'{"a":1,}', b'{"a":[1,]}', b'{"a":1 2}', b'{"a":[1 2]}', b'{"a":tru}',
     b'{"a":1}x', b'{"a":"\\x"}', b'{"a":"\\uzzzz"}', b'{"a":01}', b'{"a":"\xff"}', b'{"a":' + b"[" * 100_000,
     b'{"a":"\\ud800"}'],
)  # fmt: skip
def test_what_is_wrong_with_a_body_is_said_in_every_language(body):
    with pytest.raises(InvalidRequest) as raised:
        parse_body(body)
    said = [errors.invalid(raised.value).speak(language).message for language in ("en", *LANGUAGES)]
    assert len(set(said)) == len(said), said


@pytest.mark.parametrize(
    ("body", "byte"),
    [
        (rb'{"a":"\ud83d"}', 12),
        (rb'{"a":"\ud83d, and a good deal of text that follows"}', 12),
        (rb'{"a":["\ud83d\n"]}', 13),
        (rb'{"a":"\\ud83d \ud83d"}', 20),
        (rb'{"a":"\ude00"}', 12),
        (rb'{"a":"\ud83d\u0041"}', 18),
        (rb'{"a":"\ud83d', None),
        (rb'{"a":"\ud83d\ude', None),
        (rb'{"a":"\\ud83d "', None),
    ],
)
def test_half_a_surrogate_pair_is_said_to_be_that_and_where(body, byte):
    with pytest.raises(InvalidRequest) as raised:
        parse_body(body)
    told = f"half of a surrogate pair stands alone (byte {byte})." if byte else "it ends too early."
    assert str(raised.value).endswith(told)
