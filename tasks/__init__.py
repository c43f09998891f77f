"""One Prefect task a stage: reads artefacts, calls the core, writes artefacts."""
