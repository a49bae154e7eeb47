//! The runner: declarative modules and the egress that all modules share.
//!
//! This process faces the services. It holds no store and no key; it gets one lease per slot of the
//! called tool, sends it to the host that the binding names and to no other, and gives back answers
//! that were redacted before anything read them.
//!
//! | by task | module |
//! |---|---|
//! | arguments into a request | [`template`], [`encode`] |
//! | an answer into a result | [`shape`], [`json`], [`room`] |
//! | a call of a declarative tool | [`http`] |
//! | the way out | [`egress`] |
//! | how much at once, and whether at all | [`gate`], [`breaker`] |
//! | the link to mcpistd | [`server`] |
//!
//! Threat: every answer of a service is hostile, every argument comes from a model, and a manifest is
//! written by somebody else. A service that echoes its credential, floods, hangs or redirects costs
//! its own module a coded error. That bindings hold assumes that this program is honest.

pub mod breaker;
pub mod egress;
pub mod encode;
pub mod gate;
pub mod http;
pub mod json;
#[cfg(feature = "test-leak")]
mod leak;
pub mod room;
pub mod server;
pub mod shape;
pub mod template;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod testing;
