//! The pure domain of MCPist: what a principal may see, what a call is, what a change of policy needs.
//!
//! This crate does no I/O, reads no clock and draws no randomness; `clippy.toml` beside it holds that.
//! Whatever comes from outside enters through a `parse` that either yields a valid value or says what is
//! wrong, so that no later stage checks again.
//!
//! A call is a chain of values, each made by the stage before it alone:
//!
//! ```text
//! PeerEvidence -> Principal -> VisibleTool -> Route -> Permit -> Lease -> ModuleCall -> ToolResult
//!  principal      principal    mask           route    permit    (broker) (wire)        result
//! ```
//!
//! | by task | module |
//! |---|---|
//! | names, digests, references | [`ids`], [`access`], [`text`], [`date`] |
//! | what a bundle says | [`manifest`], [`http`] |
//! | what the policy says | [`principal`], [`grant`], [`binding`] |
//! | what can be called now | [`catalogue`], [`mask`], [`route`] |
//! | arguments and permission | [`scan`], [`args`], [`schema`], [`permit`] |
//! | answers | [`result`], [`error`] |
//! | changing the policy | [`change`], [`floor`] |
//! | what is written down | [`event`], [`audit`] |
//! | the admin API's words | [`api`] |
//!
//! Without the feature `schema` every type exists, yet no schema can be compiled: such a build makes no
//! catalogue and so no permit. It serves the programs that only carry core's values.

pub mod access;
pub mod api;
pub mod args;
pub mod audit;
pub mod binding;
pub mod catalogue;
pub mod change;
pub mod date;
pub mod error;
pub mod event;
pub mod floor;
pub mod grant;
pub mod http;
pub mod ids;
pub mod manifest;
pub mod mask;
pub mod permit;
pub mod principal;
pub mod result;
pub mod route;
pub mod scan;
pub mod schema;
pub mod text;
