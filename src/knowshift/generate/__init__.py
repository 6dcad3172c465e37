"""Who answers: one Engine protocol and its implementations."""
