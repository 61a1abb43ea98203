"""npbert-tiny, a BERT of 3.4 million parameters that npbert ships, and how it was made.

``python -m npbert.recipes.npbert_tiny --help`` has the steps.
"""
