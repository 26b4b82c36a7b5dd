"""What govern's HTTP APIs share: the application, problem documents, a socket and its server."""
