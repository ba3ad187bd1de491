"""One file per architecture, named by its ``model_type``, each to be read from top to bottom."""
