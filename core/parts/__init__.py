"""What a part is: registries, decorators, settings and their limits, variants, batches and problems."""
