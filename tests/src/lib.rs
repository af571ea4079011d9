//! Holds the integration tests in `tests/tests`; no code of its own.
