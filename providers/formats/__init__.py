"""
What is said: the wire format of each endpoint, as far as it is read while it passes.

A format is a module with the same names in each: ``NAME``, ``DIALECT``, ``PROMPT_FIELDS`` (where a request's prompt
stands), ``read_request(fields, rules)``, ``wants_usage(fields)``, ``read_answer(body, meter)``,
``StreamReader(meter, hide_usage=…)`` with ``saw(event)`` and ``ended``, ``is_complete(reader)`` and
``error_event(error, request_id, sequence)``. Nothing in it decodes what it does not read.
"""

from providers.formats import chat_completions, completions, embeddings, messages, moderations, responses

BY_NAME = {each.NAME: each for each in (chat_completions, completions, messages, responses, embeddings, moderations)}
