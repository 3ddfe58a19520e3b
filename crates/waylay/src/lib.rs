//! The library for authors of redirect services.
