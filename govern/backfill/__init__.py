"""History that other systems recorded, read from their files and published as if govern had captured it."""
