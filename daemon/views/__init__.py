"""Read-only views for people: status, history, reports, model card."""
