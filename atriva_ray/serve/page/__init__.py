"""The page that a browser gets at ``/``."""

from atriva_ray.serve.page.data import ModelCard, PageData
from atriva_ray.serve.page.headers import page_headers
from atriva_ray.serve.page.render import render

__all__ = ["ModelCard", "PageData", "page_headers", "render"]
