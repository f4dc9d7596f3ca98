"""The control plane: what an operator asks and does. Each function takes a SQLAlchemy Connection first."""
