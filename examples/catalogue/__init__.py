"""A product catalogue: products are kept and imported from CSV, and others are told of each change."""
