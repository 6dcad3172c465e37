"""Chains of steps: resumable stages, and the restoration curve with its controls."""
