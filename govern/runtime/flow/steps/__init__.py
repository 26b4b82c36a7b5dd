"""What the steps of a flow do, by kind."""
