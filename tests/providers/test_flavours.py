"""How answers are dressed for callers of the five OpenAI-shaped systems."""

import datetime
import json
from types import SimpleNamespace

import msgspec
import pytest

from providers import flavours
from providers.flavours import BY_NAME, at_path
from providers.flavours.ikalas import MOST_MESSAGE_TOKENS
from providers.request_body import InvalidRequest, parse_body

RECEIVED_AT = datetime.datetime(2025, 10, 10, 1, 59, 44, 503180, datetime.UTC).timestamp()
USAGE = {"prompt_tokens": 13, "completion_tokens": 1891, "total_tokens": 1904}


def fields_of(**body):
    return parse_body(json.dumps(body).encode())


def call_of(**body):
    return SimpleNamespace(
        id="req_01K74Y0WQ7T3Z9M2C5D8E1F4GH",
        model="m",
        received_at=RECEIVED_AT,
        fields=fields_of(**body),
        media=None,
    )


def target_of(kind="openai", **fields):
    known = {
        "public_name": "granite3.3:8b",
        "provider_name": "Éole & fils (Paris)",
        "kind": kind,
        "context_window": 60_000,
        "created": 1749110897,
        "capabilities": (),
        "aliases": (),
    }
    return SimpleNamespace(**known | fields)


def chat(**fields):
    message = {"role": "assistant", "content": "Hé"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1698765432,
        "model": "ikalas-v1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
    } | fields


def chunk(**fields):
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1698765432,
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "Hé"}, "finish_reason": None}],
    } | fields


def answered(name, body, *, kind="openai", format_name="chat_completions", headers=None, call=None, **target):
    """What the caller of a flavour gets for a provider's whole answer."""
    target = target_of(kind, **target)
    sent = BY_NAME[name].answer(format_name, json.dumps(body).encode(), call or call_of(), target, headers)
    return json.loads(sent)


def streamed(name, *chunks, kind="openai", format_name="chat_completions", headers=None, call=None):
    """The events that the caller gets for a provider's chunks, as JSON, the last word left out."""
    raw = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + b"data: [DONE]\n\n"
    sent = BY_NAME[name].events(format_name, raw, call or call_of(), target_of(kind), headers)
    assert sent.endswith(b"data: [DONE]\n\n")
    return [json.loads(event[6:]) for event in sent.decode().split("\n\n")[:-2]]


# The path --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name", "rest"),
    [
        ("/v1/chat/completions", None, "/v1/chat/completions"),
        ("/v1/models/api/v1/conversation", None, "/v1/models/api/v1/conversation"),
        ("/api/v1/conversation", "ikalas", "/v1/chat/completions"),
        ("/api/v1/completion", "ikalas", "/v1/completions"),
        ("/api/v1/embedding", "ikalas", "/v1/embeddings"),
        ("/api/v1/moderation", "ikalas", "/v1/moderations"),
        ("/api/v1/chat/completions", "ikalas", "/v1/chat/completions"),
        ("/ikalas/api/v1/conversation", "ikalas", "/v1/chat/completions"),
        ("/cloud-temple/v1/models/granite3.3:8b", "cloud-temple", "/v1/models/granite3.3:8b"),
        ("/evolink/v1/chat/completions", "evolink", "/v1/chat/completions"),
        ("/ektos/v1/chat/completions", "ektos", "/v1/chat/completions"),
        ("/openai/v1/chat/completions", "openai", "/v1/chat/completions"),
        ("/ektos/v1", None, "/ektos/v1"),
        ("/evolink/chat/completions", None, "/evolink/chat/completions"),
        ("/", None, "/"),
    ],
)
def test_a_path_says_the_flavour_and_what_is_asked(path, name, rest):
    flavour, found = at_path(path)
    assert (flavour and flavour.name, found) == (name, rest)


def test_every_choice_of_the_settings_is_a_flavour():
    from console.models import Flavour

    assert list(BY_NAME) == Flavour.values


# OpenAI ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai", "cloud-temple", "evolink", "ektos", "mistral"])
def test_the_plain_flavour_has_nothing_to_write(kind):
    plain = BY_NAME["openai"]
    assert not plain.rewrites("chat_completions", target_of(kind))
    assert plain.headers(call_of(), target_of(kind), {"backend": "engine_type=engo"}) == []
    fields = fields_of(modele="m", temperature=9)
    assert plain.read("chat_completions", fields) is fields


@pytest.mark.parametrize(
    ("format_name", "is_event", "given", "expected"),
    [
        ("chat_completions", False, ("conv_1", "conversation.completion"), ("chatcmpl-1", "chat.completion")),
        (
            "chat_completions",
            True,
            ("conv_1", "conversation.completion.chunk"),
            ("chatcmpl-1", "chat.completion.chunk"),
        ),
        ("completions", False, ("comp_1", "completion"), ("cmpl-1", "text_completion")),
        ("completions", True, ("comp_1", "completion"), ("cmpl-1", "text_completion")),
    ],
)
@pytest.mark.parametrize("name", ["openai", "ektos"])
def test_a_caller_of_the_openai_shape_does_not_notice_that_ikalas_answers(name, format_name, is_event, given, expected):
    assert BY_NAME[name].rewrites(format_name, target_of("ikalas"))
    body = chat(id=given[0], object=given[1])
    options = {"kind": "ikalas", "format_name": format_name}
    dressed = streamed(name, body, **options)[0] if is_event else answered(name, body, **options)
    assert (dressed["id"], dressed["object"]) == expected
    assert dressed == body | {"id": expected[0], "object": expected[1]}


def test_an_answer_of_ikalas_without_an_id_gets_the_requests():
    body = chat()
    del body["id"], body["object"]
    dressed = answered("openai", body, kind="ikalas")
    assert (dressed["id"], dressed["object"]) == ("chatcmpl-01K74Y0WQ7T3Z9M2C5D8E1F4GH", "chat.completion")


def test_embeddings_and_moderations_of_ikalas_pass_as_they_are():
    for name in ("openai", "ikalas", "cloud-temple", "evolink"):
        for format_name in ("embeddings", "moderations", "responses", "messages"):
            assert not BY_NAME[name].rewrites(format_name, target_of("ikalas"))


# Ikalas ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openai", "ikalas"])
def test_ikalas_has_ids_and_objects_of_its_own(kind):
    body = chat() if kind == "openai" else chat(id="conv_1", object="conversation.completion")
    assert answered("ikalas", body, kind=kind) == chat(id="conv_1", object="conversation.completion")
    (event,) = streamed("ikalas", chunk(), kind=kind)
    assert event == chunk(id="conv_1", object="conversation.completion.chunk")
    text = chat(id="cmpl-7", object="text_completion", choices=[{"index": 0, "text": "Hé", "finish_reason": "stop"}])
    assert answered("ikalas", text, kind=kind, format_name="completions") == text | {
        "id": "comp_7",
        "object": "completion",
    }


@pytest.mark.parametrize("format_name", ["chat_completions", "completions", "embeddings", "moderations"])
def test_ikalas_reads_the_french_name_of_the_model(format_name):
    read = BY_NAME["ikalas"].read
    assert read(format_name, fields_of(modele="a", input="x")) == fields_of(model="a", input="x")
    assert read(format_name, fields_of(model="b", input="x")) == fields_of(model="b", input="x")
    assert read(format_name, fields_of(model="b", modele="a")) == fields_of(model="a")
    assert read(format_name, fields_of(model="b", modele=None))["model"] == fields_of(model="b")["model"]


def test_ikalas_misses_the_model_by_its_french_name():
    with pytest.raises(InvalidRequest) as raised:
        BY_NAME["ikalas"].read("chat_completions", fields_of(messages=[{"role": "user", "content": "x"}]))
    assert raised.value.param == "modele"
    assert BY_NAME["ikalas"].read("moderations", fields_of(input="x")) == fields_of(input="x")


def test_ikalas_takes_16000_tokens_of_messages_and_not_one_more():
    # " token" is one token each in every vocabulary of the family.
    fits = [{"role": "user", "content": "token" + " token" * (MOST_MESSAGE_TOKENS // 2 - 1)}] * 2
    read = BY_NAME["ikalas"].read
    assert "messages" in read("chat_completions", fields_of(model="m", messages=fits))
    one_more = [*fits, {"role": "user", "content": [{"type": "text", "text": "a"}]}]
    with pytest.raises(InvalidRequest) as raised:
        read("chat_completions", fields_of(model="m", messages=one_more))
    assert raised.value.code == "context_length_exceeded"
    assert raised.value.param == "messages"
    assert "16000" in str(raised.value)


def test_ikalas_does_not_count_pictures():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 50_000}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]
    assert BY_NAME["ikalas"].read("chat_completions", fields_of(model="m", messages=messages))


def test_ikalas_stops_counting_where_it_is_enough(monkeypatch):
    counted = []
    from providers.flavours import ikalas

    real = ikalas.count_tokens
    monkeypatch.setattr(ikalas, "count_tokens", lambda text: counted.append(len(text)) or real(text))
    with pytest.raises(InvalidRequest):
        ikalas.require_room(msgspec.json.encode([{"role": "user", "content": "word " * 1_000_000}]))
    assert sum(counted) < 300_000
    counted.clear()
    ikalas.require_room(msgspec.json.encode([{"role": "user", "content": "word " * 1_000}]))
    assert counted == []


def test_ikalas_counts_no_piece_that_takes_long(monkeypatch):
    counted = []
    from providers.flavours import ikalas

    real = ikalas.count_tokens
    monkeypatch.setattr(ikalas, "count_tokens", lambda text: counted.append(text) or real(text))
    with pytest.raises(ikalas.PromptTooLong):
        ikalas.require_room(msgspec.json.encode([{"role": "user", "content": "a" * 400_000}]))
    assert max(map(len, counted)) <= 8_192
    counted.clear()
    words = "Les élèves vont à l'école, n'est-ce pas ? " * 1_000
    ikalas.require_room(msgspec.json.encode([{"role": "user", "content": words}]))
    assert len(counted) > 1
    assert "".join(counted) == words
    assert sum(map(real, counted)) == real(words)


@pytest.mark.parametrize("messages", [[{}] * 400_000, [{"role": "user", "content": [{}] * 400_000}]])
def test_ikalas_builds_nothing_of_more_messages_than_there_may_be(messages, monkeypatch):
    from providers.flavours import ikalas

    monkeypatch.setattr(ikalas, "_MESSAGES", None)
    with pytest.raises(ikalas.PromptTooLong):
        ikalas.require_room(msgspec.json.encode(messages))


def test_ikalas_builds_nothing_of_what_is_no_text():
    from providers.flavours import ikalas

    part = ikalas._MESSAGES.decode(b'[{"content":[{"text":[[1,2],{}]}]}]')[0].content[0]
    assert bytes(part.text) == b"[[1,2],{}]"
    assert ikalas.require_room(b'[{"content":[{"text":[' + b"1," * 10_000 + b"1]}]}]") is None


# Cloud Temple ----------------------------------------------------------------------------------------------------


def test_cloud_temple_says_who_answered():
    headers = dict(BY_NAME["cloud-temple"].headers(call_of(), target_of("anthropic"), {"backend": "a lie"}))
    assert headers == {
        b"id": b"req_01K74Y0WQ7T3Z9M2C5D8E1F4GH",
        b"backend": b"engine_type=anthropic; machine_name=eole-fils-paris",
    }
    assert answered("cloud-temple", chat(), kind="anthropic")["backend"] == {
        "engine_type": "anthropic",
        "machine_name": "eole-fils-paris",
    }


def test_an_answer_that_nobody_was_asked_for_has_an_id_and_no_backend():
    assert dict(BY_NAME["cloud-temple"].headers(call_of())) == {b"id": b"req_01K74Y0WQ7T3Z9M2C5D8E1F4GH"}


def test_what_cloud_temple_itself_says_of_its_machines_is_passed_on():
    said = {"backend": "engine_type=engo; machine_name=ma02"}
    flavour, target = BY_NAME["cloud-temple"], target_of("cloud-temple")
    assert dict(flavour.headers(call_of(), target, said))[b"backend"] == b"engine_type=engo; machine_name=ma02"
    own = {"engine_type": "engo", "machine_name": "ma03"}
    body = chat(backend=own, usage=USAGE | {"reasoning_tokens": 7})
    assert answered("cloud-temple", body, kind="cloud-temple", headers=said) == body
    without = answered("cloud-temple", chat(), kind="cloud-temple", headers=said)
    assert without["backend"] == {"engine_type": "engo", "machine_name": "ma02"}


@pytest.mark.parametrize("said", ["", "x" * 201, "é", "a\nb", "a\r\nset-cookie: b"])
def test_a_header_that_is_unfit_is_not_passed_on(said):
    headers = dict(BY_NAME["cloud-temple"].headers(call_of(), target_of("cloud-temple"), {"backend": said}))
    assert headers[b"backend"] == b"engine_type=cloud-temple; machine_name=eole-fils-paris"


@pytest.mark.parametrize("name", ["日本", "…", "a\r\nx: y", "-" * 30])
def test_a_providers_name_becomes_a_harmless_header(name):
    headers = dict(BY_NAME["cloud-temple"].headers(call_of(), target_of(provider_name=name)))
    assert b"\r" not in headers[b"backend"]
    assert headers[b"backend"].startswith(b"engine_type=openai; machine_name=")
    assert headers[b"backend"].split(b"machine_name=")[1]


@pytest.mark.parametrize(
    ("usage", "reasoning"),
    [
        (USAGE, 0),
        (USAGE | {"completion_tokens_details": {"reasoning_tokens": 40}}, 40),
        (USAGE | {"completion_tokens_details": None}, 0),
        (USAGE | {"reasoning_tokens": 5}, 5),
    ],
)
def test_cloud_temple_counts_reasoning_in_the_usage_itself(usage, reasoning):
    dressed = answered("cloud-temple", chat(usage=usage))
    assert dressed["usage"] == usage | {"reasoning_tokens": reasoning}
    *_rest, last = streamed("cloud-temple", chunk(usage=None), chunk(choices=[], usage=usage))
    assert last["usage"]["reasoning_tokens"] == reasoning


def test_every_chunk_of_cloud_temple_names_the_backend_and_is_else_unchanged():
    first, second = streamed("cloud-temple", chunk(usage=None), chunk(id="x"))
    assert first.pop("backend") == second.pop("backend") == {"engine_type": "openai", "machine_name": "eole-fils-paris"}
    assert (first, second) == (chunk(usage=None), chunk(id="x"))


def test_cloud_temples_list_is_the_documented_one():
    target = target_of("cloud-temple")
    assert BY_NAME["cloud-temple"].model_list([target]) == {
        "object": "list",
        "data": [
            {
                "id": "granite3.3:8b",
                "object": "model",
                "created": 1749110897,
                "owned_by": "CloudTemple",
                "root": "granite3.3:8b",
                "aliases": ["granite3.3:8b"],
                "parent": None,
                "max_model_len": 60000,
                "permission": [
                    {
                        "id": "modelperm-granite3.3:8b-1749110897",
                        "object": "model_permission",
                        "created": 1749110897,
                        "allow_create_engine": False,
                        "allow_sampling": True,
                        "allow_logprobs": True,
                        "allow_search_indices": False,
                        "allow_view": True,
                        "allow_fine_tuning": False,
                        "organization": "*",
                        "group": None,
                        "is_blocking": False,
                    }
                ],
            }
        ],
    }
    other = BY_NAME["cloud-temple"].model_item(target_of("openai", aliases=("fast",), context_window=None))
    assert (other["owned_by"], other["aliases"]) == ("Éole & fils (Paris)", ["granite3.3:8b", "fast"])
    assert other["max_model_len"] is None


# EvoLink ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_tokens", [1, 2000]),
        ("temperature", [0, 0.7, 2, 2.0]),
        ("top_p", [0, 0.5, 1]),
        ("top_k", [1, 40]),
    ],
)
def test_evolink_takes_what_is_within_its_ranges(name, values):
    for value in [*values, None]:
        fields = fields_of(model="m", **{name: value})
        assert BY_NAME["evolink"].read("chat_completions", fields) is fields


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_tokens", 0, "max_tokens: must be 1 or more"),
        ("max_tokens", -1, "max_tokens: must be 1 or more"),
        ("max_tokens", 1.5, "max_tokens: must be a whole number"),
        ("temperature", 2.01, "temperature: must be from 0 to 2"),
        ("temperature", -0.1, "temperature: must be from 0 to 2"),
        ("temperature", "hot", "temperature: must be a number"),
        ("top_p", 1.1, "top_p: must be from 0 to 1"),
        ("top_p", True, "top_p: must be a number"),
        ("top_k", 0, "top_k: must be 1 or more"),
        ("top_k", [1], "top_k: must be a whole number"),
    ],
)
def test_evolink_names_the_parameter_and_its_range(name, value, said):
    with pytest.raises(InvalidRequest) as raised:
        BY_NAME["evolink"].read("chat_completions", fields_of(model="m", **{name: value}))
    assert str(raised.value) == said
    assert raised.value.param == name


def test_evolinks_ranges_are_of_its_one_endpoint():
    fields = fields_of(model="m", max_tokens=0, echo=True)
    assert BY_NAME["evolink"].read("completions", fields) is fields


def test_evolinks_id_tells_the_time_and_is_the_same_in_every_chunk():
    expected = "chatcmpl-20251010015944503180"
    dressed = answered("evolink", chat())["id"]
    assert dressed.startswith(expected)
    assert len(dressed) == len("chatcmpl-20251010015944503180122WJNB8Eid")
    assert {event["id"] for event in streamed("evolink", chunk(), chunk(id="other"))} == {dressed}
    assert answered("evolink", chat(id="chatcmpl-own"), kind="evolink")["id"] == "chatcmpl-own"


def test_evolinks_usage_is_whole_and_true():
    usage = USAGE | {"completion_tokens_details": {"reasoning_tokens": 1480}}
    expected = {
        "prompt_tokens": 13,
        "completion_tokens": 1891,
        "total_tokens": 1904,
        "prompt_tokens_details": {"cached_tokens": 0, "text_tokens": 13, "audio_tokens": 0, "image_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 1480, "text_tokens": 411, "audio_tokens": 0},
        "input_tokens": 13,
        "output_tokens": 1891,
        "input_tokens_details": None,
    }
    assert answered("evolink", chat(usage=usage))["usage"] == expected
    *_rest, last = streamed("evolink", chunk(usage=None), chunk(choices=[], usage=usage))
    assert last["usage"] == expected
    # As EvoLink itself sends it: twins of zero, and no text although text was written.
    sent = expected | {"input_tokens": 0, "output_tokens": 0}
    sent["completion_tokens_details"] = {"text_tokens": 0, "audio_tokens": 0, "reasoning_tokens": 1480}
    assert answered("evolink", chat(usage=sent), kind="evolink")["usage"] == expected


def test_evolink_keeps_the_split_that_the_provider_gave():
    details = {"cached_tokens": 4, "text_tokens": 3, "audio_tokens": 2, "image_tokens": 8, "cache_write_tokens": 1}
    usage = answered("evolink", chat(usage=USAGE | {"prompt_tokens_details": details}))["usage"]
    assert usage["prompt_tokens_details"] == details


@pytest.mark.parametrize(
    ("part", "unknown"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "image_tokens"),
        ({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}, "audio_tokens"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "image_tokens"),
    ],
)
def test_evolink_claims_no_split_that_nobody_counted(part, unknown):
    call = call_of(messages=[{"role": "user", "content": [part]}])
    details = answered("evolink", chat(), call=call)["usage"]["prompt_tokens_details"]
    assert details[unknown] is None
    assert details["text_tokens"] is None


def test_evolink_looks_through_the_messages_once_for_all_chunks():
    looked_at = []

    class Fields(dict):
        def get(self, name, default=None):
            looked_at.append(name)
            return super().get(name, default)

    call = call_of(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}])
    call.fields = Fields(call.fields)
    chunks = [chunk(usage=USAGE)] * 3
    events = [*streamed("evolink", *chunks, call=call), *streamed("evolink", *chunks, call=call)]
    assert {event["usage"]["prompt_tokens_details"]["audio_tokens"] for event in events} == {None}
    assert looked_at == ["messages"]


@pytest.mark.parametrize("usage", [None, [], {}, {"prompt_tokens": "many"}])
def test_evolink_invents_no_usage(usage):
    assert answered("evolink", chat(usage=usage))["usage"] == usage


# Ektos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "kind"),
    [
        ((), "LLM"),
        (("chat", "tools"), "LLM"),
        (("embeddings",), "Embedding"),
        (("moderations",), "Moderation"),
        (("image_output",), "Other"),
    ],
)
def test_ektos_says_what_a_model_is_for(capabilities, kind):
    item = BY_NAME["ektos"].model_item(target_of(capabilities=capabilities))
    assert item["type"] == kind
    assert item["id"] == "granite3.3:8b"


def test_ektos_lists_the_models_of_a_type():
    targets = [target_of(public_name="chat"), target_of(public_name="vectors", capabilities=("embeddings",))]
    names = lambda query: [item["id"] for item in BY_NAME["ektos"].model_list(targets, query)["data"]]  # noqa: E731
    assert names(b"") == names(b"type=") == names(b"other=1") == ["chat", "vectors"]
    assert names(b"type=LLM") == names(b"type=llm") == ["chat"]
    assert names(b"type=embedding") == ["vectors"]
    assert names(b"type=LLM&type=Embedding") == ["chat", "vectors"]
    assert names(b"type=speech") == names(b"type=%FF") == []


# All of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(BY_NAME))
@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'"text"', b'{"error":{}}', b'{"id":}', b"{" * 2000])
def test_what_is_no_answer_stays_as_it_is(name, body):
    target = target_of("ikalas")
    assert BY_NAME[name].answer("chat_completions", body, call_of(), target) == body
    event = b"data: " + body + b"\n\n"
    assert BY_NAME[name].events("chat_completions", event, call_of(), target) == event


@pytest.mark.parametrize("name", ["ikalas", "cloud-temple", "evolink"])
def test_comments_and_named_events_keep_their_place(name):
    raw = b": keepalive\n\nevent: x\ndata: " + json.dumps(chunk()).encode() + b"\n\ndata: [DONE]\n\n"
    sent = BY_NAME[name].events("chat_completions", raw, call_of(), target_of())
    assert sent.startswith(b": keepalive\n\nevent: x\ndata: {")
    assert sent.endswith(b"}\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize("name", ["ikalas", "cloud-temple", "evolink"])
def test_what_a_flavour_does_not_know_passes_byte_for_byte(name):
    odd = b'{"choices":[1e999,{"x" : "\\u00e9"}],"later":{"a":1.0},"usage":null}'
    sent = BY_NAME[name].answer("chat_completions", odd, call_of(), target_of())
    assert b'"choices":[1e999,{"x" : "\\u00e9"}]' in sent
    assert b'"later":{"a":1.0}' in sent


def test_the_roots_are_what_the_front_door_sends_here():
    assert all(root.startswith("/") and root.endswith("/v1/") for root in flavours.ROOTS)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_how_a_stream_was_cut_into_pieces_makes_no_difference(name):
    events = [
        b"data: " + json.dumps(each).encode() + b"\n\n"
        for each in (chunk(usage=None), chunk(), chunk(choices=[], usage=USAGE))
    ]
    events += [b": ping\n\n", b"data: [DONE]\n\n"]
    dressed = lambda raw: BY_NAME[name].events("chat_completions", raw, call_of(), target_of("ikalas"))  # noqa: E731
    for cut in range(len(events) + 1):
        pieces = [b"".join(events[:cut]), b"".join(events[cut:])]
        assert b"".join(dressed(piece) for piece in pieces) == b"".join(dressed(event) for event in events)
