"""What is declared before the first run: settings, arms, identity, growth."""
