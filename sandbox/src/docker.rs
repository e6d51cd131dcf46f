//! The Docker Engine backend.
