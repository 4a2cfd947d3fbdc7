"""
From one dialect to another: the folder's listing is the matrix of what works.

A translator is a module with ``request``, ``answer`` and ``Stream``; named ``caller_to_provider``. Requests go from the
caller's dialect to the provider's, answers and streams the way back.
"""
