//! What the black-box tests share: the programs, an appliance in a folder of its own, a client line by line.
//!
//! Nothing here reaches into a crate's inside: the tests speak to real processes over the real sockets.

pub mod programs;
