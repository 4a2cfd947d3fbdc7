"""
The conformance matrix: unchanged clients, every endpoint, every upstream, through one real server.

``matrix`` says which cells there are, ``run`` asks them all, ``checks`` says what each must have shown, ``page`` writes
docs/conformance.md: ``python -m tests.conformance --write``.
"""
