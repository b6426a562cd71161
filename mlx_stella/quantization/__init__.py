"""Choose the codes of few-bit weights by what they do to a model's vectors."""
