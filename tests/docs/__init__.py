"""docs/, README.md and conf/ say what the code does."""
