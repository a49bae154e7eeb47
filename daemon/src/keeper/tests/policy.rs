//! The policy in memory and the store behind it.
