"""What the index says of what is served, and of what is only on the shelf."""

from __future__ import annotations

from atriva_ray.serve.index import index_of
from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.repository.version_files import ModelVersion
from atriva_ray.serve.table import Offer, OfferState, Table


def found(name, *versions, problems=()):
    files = tuple(ModelVersion(each, name, "", (), 1, "f") for each in versions)
    return RepositoryModel(name, versions=files, problems=problems)


def test_what_is_served_comes_before_what_the_shelf_says():
    table = Table().with_offers(
        "m",
        [
            Offer("m", "9", "f", OfferState.READY),
            Offer("m", "10", "f", OfferState.UNAVAILABLE, reason="it was lost"),
        ],
    )
    shelf = [found("m", 9, 11), found("broken", problems=("no file", "no name"))]
    assert [
        (each.name, each.version, each.state, each.reason) for each in index_of(table, shelf)
    ] == [
        ("broken", "", "UNAVAILABLE", "no file; no name"),
        ("m", "9", "READY", ""),
        ("m", "10", "UNAVAILABLE", "it was lost"),
        ("m", "11", "UNAVAILABLE", "not loaded"),
    ]
