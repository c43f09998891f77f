"""Content-addressed artefacts: all or nothing when written, verified when read; knows nothing of stages."""
