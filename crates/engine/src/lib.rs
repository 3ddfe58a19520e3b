//! The contract an engine fulfils, and the engine in memory.
