"""What lets a run go on: stages with keys over their code and inputs, and the folder they lie in."""
