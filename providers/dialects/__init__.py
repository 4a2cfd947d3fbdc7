"""
Wire formats: what a request asks, where an answer's usage stands, how an error looks.

A dialect is a module with the same names in each: ``NAME``, ``REQUEST_ID_HEADER``, ``read_request``, ``wants_usage``,
``read_answer``, ``StreamReader``, ``is_complete``, ``error_status``, ``error_body``, ``error_event``, ``read_error``,
``model_item`` and ``model_list``.
"""

from providers.dialects import anthropic, openai

BY_NAME = {dialect.NAME: dialect for dialect in (openai, anthropic)}
