"""The declarative API: one module per kind, the loader, and JSON Schema export."""
