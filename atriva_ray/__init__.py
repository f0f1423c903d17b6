"""Inference over a Ray cluster with the API of ``atriva_inference``."""
