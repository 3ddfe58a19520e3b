//! Ready-made services: pure parsers and the glue around them.
