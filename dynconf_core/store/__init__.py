"""Content-addressed artefacts: written completely or not at all, verified when read, independent of what the stages do."""
