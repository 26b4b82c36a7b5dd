"""Pipeline graphs: their specification, validation and topology."""
