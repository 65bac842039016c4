"""From a configuration to compiled programs that advance many agents."""
