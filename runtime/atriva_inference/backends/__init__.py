"""Adapters to the inference libraries; each registers itself when it is imported."""
