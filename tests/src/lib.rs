//! What the black-box tests share: the programs, an appliance in a folder of its own, a client, a service.
//!
//! Nothing here reaches into the daemon's inside: the tests speak to real processes over the real sockets.
#![allow(clippy::expect_used, clippy::panic)] // a test helper that cannot go on ends its test

pub mod appliance;
pub mod desk;
pub mod look;
pub mod needle;
pub mod process;
pub mod programs;
pub mod pty;
pub mod report;
pub mod service;
pub mod shares;
pub mod start;
