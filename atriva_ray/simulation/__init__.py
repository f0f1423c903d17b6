"""A cluster that exists only as numbers, for the routing code to run on: no ray, no waiting."""
