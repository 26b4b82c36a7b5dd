"""The inferences that other people's loggers send as CloudEvents over HTTP, request and response apart."""
