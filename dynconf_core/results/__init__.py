"""Results of runs, sweeps and analyses: types, files and Markdown pages."""
