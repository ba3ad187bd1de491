"""Looking into minilm itself: what runs here, and how well."""
