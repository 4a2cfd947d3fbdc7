"""
What is said: the wire format of each endpoint, as far as it is read while it passes.

A format is a module with the same names in each: ``NAME``, ``DIALECT``, ``PROMPT_FIELDS`` (where a request's prompt
stands), ``read_request(fields, rules)``, ``wants_usage(fields)``, ``read_answer(body, meter)``,
``StreamReader(meter, hide_usage=…)`` with ``saw(event)`` and ``ended``, ``is_complete(reader)`` and
``error_event(error, request_id, sequence)``. Nothing in it decodes what it does not read.

Some have more: ``asking_for_usage(fields)`` where a stream has usage only for who asks, ``count_prompt(fields)`` where
a prompt is not all text, ``as_asked(fields, body)`` where a provider may answer in another encoding than it was asked
for, ``IS_FREE_UNLESS_PRICED``.
"""

from providers.formats import chat_completions, completions, embeddings, messages, moderations, responses

BY_NAME = {each.NAME: each for each in (chat_completions, completions, messages, responses, embeddings, moderations)}
