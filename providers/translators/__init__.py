"""
Between formats: each module reads and writes one of them in the terms of ``providers.conversation``.

Its names: ``read_request(fields, rules) -> Conversation``; ``write_request(conversation, target) -> dict`` (the body,
as plain values, with ``model`` and ``stream``); ``AnswerReader()`` with ``feed(said) -> pieces`` for each parsed event
of a stream and ``finish() -> pieces`` once it has come to its end; ``read_answer(said) -> pieces`` of a whole one;
``write_answer(pieces, reply) -> bytes``; and ``AnswerWriter(reply)`` with ``feed(pieces) -> bytes`` of whole events,
and ``finish() -> bytes`` for those that end the stream. Readers take what ``providers.formats`` has parsed.

Readers and writers of requests raise ``InvalidRequest`` for what cannot be said and must not be dropped.
"""

from providers.translators import chat_completions, completions, messages, responses

BY_NAME = {
    "chat_completions": chat_completions,
    "completions": completions,
    "messages": messages,
    "responses": responses,
}


def request_for(target, format_name, conversation):
    """The body that asks ``target`` in a format, without what its provider refuses and with the names that it uses."""
    body = BY_NAME[format_name].write_request(conversation, target)
    for name in target.drops & body.keys():
        del body[name]
        conversation.lose(conversation.spelling(name))
    for name in target.renames.keys() & body.keys():
        body[target.renames[name]] = body.pop(name)
    if target.model_field != "model":
        body[target.model_field] = body.pop("model")
    return body
