"""Teachers that other libraries build."""
