"""Changes of the audit database's schema, applied by `audit.schema.migrate`."""
