"""For who keeps the project: conformance, benchmarks, the catalogue of variants, claims."""
