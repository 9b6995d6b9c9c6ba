//! The exact index against a naive model: never above it, and equal when nothing was lost.

mod oracle;
mod world;

mod corpus;
mod groups;
mod interleavings;
mod quiet;
mod rules;
mod threads;
