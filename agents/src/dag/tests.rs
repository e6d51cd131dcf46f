//! What holds of every graph, over many random ones, and what holds of a few in particular.

mod containment;
mod crew;
mod edits;
mod live;
mod random;
mod schedule;
