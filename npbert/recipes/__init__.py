"""How the models that npbert ships were made: each a command that makes it again."""
