"""The Open Inference Protocol, version 2: what clients send and get, without any transport."""
