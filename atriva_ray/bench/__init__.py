"""Measuring a model the way OpenVINO's ``benchmark_app`` does, on the cluster or in one process."""
