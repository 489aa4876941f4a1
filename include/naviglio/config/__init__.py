"""From YAML to the frozen dataclasses of the model; pydantic ends here."""
