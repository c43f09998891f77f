"""One Prefect task a stage: it reads artefacts, calls the core and writes artefacts."""
