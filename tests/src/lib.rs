//! End-to-end tests against a kind cluster.
