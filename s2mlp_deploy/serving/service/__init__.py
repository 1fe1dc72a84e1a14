"""The service: the Open Inference Protocol over HTTP and gRPC. What decides anything knows neither of the two."""
