"""The Prefect tasks, one per stage: each reads artefacts, calls the core and writes an artefact."""
