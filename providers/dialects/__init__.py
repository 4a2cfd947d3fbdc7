"""
Who speaks: how a caller of each family is told ids, errors and models.

A dialect is a module with the same names in each: ``NAME``, ``REQUEST_ID_HEADER``, ``ORGANIZATION_HEADER``,
``error_status``, ``error_body``, ``error_event``, ``told``, ``model_item`` and ``model_list``.
"""

from providers.dialects import anthropic, openai

BY_NAME = {dialect.NAME: dialect for dialect in (openai, anthropic)}
