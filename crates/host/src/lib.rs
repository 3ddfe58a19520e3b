//! Scopes, service processes and the ownership of an engine.
