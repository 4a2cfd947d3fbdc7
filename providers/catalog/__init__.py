"""
The catalogue: what anybody can look up of models, as rows of ``CatalogModel``.

Prices and context windows come from the package genai-prices, which ``update_catalog`` alone imports; the longest
answer and the capabilities from facts.json beside this file, which says where they were taken from and when.
"""
