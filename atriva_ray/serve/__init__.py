"""Models on the network: the Open Inference Protocol over HTTP and gRPC."""
