"""Folders of models: what is in them, how each is to be served, and what has changed."""
